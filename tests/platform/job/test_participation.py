"""The fields that say who takes part, from the job file to what a run needs of them."""

from pathlib import Path

import numpy as np
import pytest
import tomli_w

from slimfed.clients.errors import InputError
from slimfed.platform.fleet.admission import admitted, facts
from slimfed.platform.fleet.profiles import load_fleet, load_profile
from slimfed.platform.inputs import read_inputs
from slimfed.platform.job.compatibility import problems_of_run
from slimfed.platform.job.job import job_to_dict, job_to_toml, load_job, parse_job
from slimfed.platform.job.real_devices import load_real_job
from slimfed.platform.job.references import REFERENCES, reference_job
from slimfed.platform.launch.expected_course import expected_course
from slimfed.platform.launch.preflight import check_participation, few_updates
from slimfed.strategies.where import SIMULATED


def refusal(**fleet: object) -> str:
    try:
        parse_job({"fleet": fleet})
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("given", "kept", "asked"),
    [("all", "all", 80), (1.0, "all", 80), (0.1, 0.1, 8), (8, 8, 8), (1, 1, 1), (80, 80, 80)],
)
def test_a_share_a_number_or_all_stay_what_they_are_in_every_file(tmp_path: Path, given, kept, asked: int) -> None:
    job = parse_job({"fleet": {"participation": given}})
    assert job.fleet.participation == kept
    assert type(job.fleet.participation) is type(kept)
    assert job.fleet.participants == asked
    (tmp_path / "job.toml").write_text(job_to_toml(job))
    for same in (load_job(tmp_path / "job.toml"), parse_job(job_to_dict(job))):
        assert same == job
        assert type(same.fleet.participation) is type(kept)


@pytest.mark.parametrize("value", [0, 0.0, -1, 1.5, True, "some", "0.1", [1]])
def test_other_amounts_are_refused(value) -> None:
    assert "fleet.participation" in refusal(participation=value)


def test_each_field_says_what_is_wrong_with_it() -> None:
    assert refusal(participation=81) == "fleet.participation = 81: the fleet has 80 devices (fleet.devices)"
    assert "fleet.selection = 'best'" in refusal(selection="best")
    assert "'random', 'round-robin'" in refusal(selection="best")
    assert "must be always, daily, or a CSV file" in refusal(availability="weekly")
    assert "did you mean memory_gib?" in refusal(where="ram_gib >= 8")
    assert refusal(where="cores >= 8") == (
        f"fleet.where: a profile does not tell 'cores' of a device; known are {', '.join(SIMULATED)}"
    )
    real = refusal(where="up_mbit_s >= 8", clock="measured")
    assert (
        real == "fleet.where: real nodes do not tell 'up_mbit_s' of a device; known are device, memory_gib, cores, tags"
    )
    assert refusal(where="cores >= 8", clock="measured") == ""


def test_real_devices_have_no_trace() -> None:
    job = parse_job({"fleet": {"clock": "measured", "availability": "daily"}})
    assert any(line.startswith("fleet.availability = 'daily'") for line in problems_of_run(job))


def test_a_trace_lies_beside_its_job_and_words_stay_words(tmp_path: Path) -> None:
    for given, kept in (("mine.csv", str(tmp_path / "mine.csv")), ("daily", "daily")):
        (tmp_path / "job.toml").write_text(tomli_w.dumps({"fleet": {"availability": given}}))
        assert load_job(tmp_path / "job.toml").fleet.availability == kept


def test_the_content_of_a_trace_is_part_of_what_a_run_began_with(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("device,from,until\n0,0,5\n")
    (tmp_path / "job.toml").write_text(tomli_w.dumps({"fleet": {"availability": "mine.csv"}}))
    found = read_inputs(load_job(tmp_path / "job.toml"))
    assert list(found.files["fleet.availability"]) == ["mine.csv"]
    assert "fleet.availability" not in read_inputs(parse_job({})).files


def private(**fleet: object) -> str:
    document = {
        "method": {"name": "fedit", "target_sparsity": 0.0},
        "privacy": {"kind": "central", "clipping": "adaptive", "noise_multiplier": 1.0},
        "fleet": fleet,
    }
    return "\n".join(problems_of_run(parse_job(document)))


def test_under_privacy_who_is_asked_depends_on_no_text() -> None:
    assert "fleet.selection" not in private(participation=0.5)
    assert 'fleet.selection: must be "random" or "round-robin"' in private(participation=0.5, selection="oort")
    assert "fleet.selection" not in private(selection="oort"), "nothing is selected"
    assert "a tenth of the devices of a round" in private(participation=8)
    assert "a tenth of the devices of a round" not in private(participation=40)


def test_runs_of_reference_ask_all() -> None:
    job = parse_job({"fleet": {"participation": 5, "availability": "daily", "where": "memory_gib > 7"}})
    for name in REFERENCES:
        fleet = reference_job(job, name, 100).fleet
        assert (fleet.participation, fleet.availability, fleet.where) == ("all", "always", "")


def test_a_robust_average_of_real_devices_suits_those_of_a_round() -> None:
    assert load_real_job(None, ["fleet.participation=4"]).job.method.aggregation == "median"
    assert load_real_job(None, ["fleet.participation=5"]).job.method.aggregation == "multi-krum"
    few = parse_job({"method": {"aggregation": "multi-krum"}, "fleet": {"participation": 4}})
    assert few_updates(few)[0].startswith("method.aggregation = 'multi-krum': leaves out nobody of fewer than 5")
    assert few_updates(parse_job({"fleet": {"participation": 1}})) == ()


def test_a_filter_admits_by_profile_and_tags(tmp_path: Path) -> None:
    profile = load_profile("jetson-80").model_dump(by_alias=True, exclude_none=True)
    for place, each in enumerate(profile["class"]):
        each["tags"] = ["lab", "charging"] if place == 0 else ["field"]
    path = tmp_path / "mine.toml"
    path.write_text(tomli_w.dumps(profile))
    fleet = load_fleet(parse_job({"fleet": {"profile": str(path)}}).fleet, 1)
    tx2 = tuple(device.device for device in fleet.devices if device.profile == "jetson-tx2")
    assert admitted(fleet, '"lab" in tags') == tx2
    assert admitted(fleet, 'class == "jetson-tx2" and "field" not in tags') == tx2
    assert admitted(fleet, "memory_gib >= 24") == tuple(d.device for d in fleet.devices if "agx" in d.profile)
    assert admitted(fleet, "") is None
    assert set(facts(fleet.devices[0])) == set(SIMULATED)
    with pytest.raises(InputError, match="fits none of the 80 devices"):
        admitted(fleet, "memory_gib > 1000")
    path.write_text(tomli_w.dumps({"class": [{**profile["class"][0], "tags": ["a b"]}]}))
    with pytest.raises(InputError, match=r"class\.0\.tags\.0|class.*tags.*must be a word"):
        load_profile(str(path))


def checked(**fleet: object) -> tuple[str, ...]:
    job = parse_job({"fleet": fleet})
    return check_participation(job, load_fleet(job.fleet, job.seed))


def test_what_cannot_be_asked_is_told_before_a_run(tmp_path: Path) -> None:
    assert checked() == ()
    assert checked(where="memory_gib >= 24") == ("fleet.where = 'memory_gib >= 24': 10 of 80 devices may be asked",)
    with pytest.raises(
        InputError, match=r"fleet\.participation = 11: fleet\.where = 'memory_gib >= 24' admits 10 devices"
    ):
        checked(where="memory_gib >= 24", participation=11)
    trace = tmp_path / "trace.csv"
    trace.write_text("device,from,until\n0,0,5\n")
    agx = load_fleet(parse_job({}).fleet, 0).devices[0].memory_bytes / 2**30 >= 24
    assert not agx
    with pytest.raises(InputError, match="none of the 10 devices that may be asked is ever available"):
        checked(where="memory_gib >= 24", availability=str(trace))


def test_costs_are_those_of_the_devices_that_take_part() -> None:
    def course(**fleet: object):
        job = parse_job({"fleet": fleet, "training": {"rounds": 6}})
        told: list[list[int]] = []

        def seconds(devices, number: int) -> float:
            told.append(list(devices))
            return float(max(devices))

        return expected_course(job, load_fleet(job.fleet, job.seed), seconds), told

    found, told = course()
    assert found.participants == (80,) * 6
    assert found.seconds == 6 * 79.0
    found, told = course(participation=0.25, selection="round-robin")
    assert found.participants == (20,) * 6
    assert sorted(device for devices in told[:4] for device in devices) == list(range(80))
    assert found.seconds == sum(max(devices) for devices in told)
    found, told = course(participation=8, selection="oort", where="memory_gib >= 24")
    assert found.participants == (8,) * 6
    assert len({device for devices in told for device in devices}) <= 10
    found, told = course(availability="daily")
    assert all(np.array(found.participants) <= 80)
    assert sum(found.participants) < 6 * 80
