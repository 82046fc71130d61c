"""What a job for real devices averages by, and what is said of it."""

from pathlib import Path

import pytest

from slimfed.platform.job.real_devices import load_real_job
from slimfed.strategies.aggregation import AGGREGATIONS


def test_real_devices_are_averaged_robustly_unless_the_job_chooses() -> None:
    for devices, name in ((80, "multi-krum"), (5, "multi-krum"), (4, "median"), (3, "median")):
        found = load_real_job(None, [f"fleet.devices={devices}"])
        assert found.job.fleet.clock == "measured"
        assert found.job.method.aggregation == name
        assert "since the job names none" in found.remark
        assert AGGREGATIONS[name].bounds_influence


@pytest.mark.parametrize(
    ("sets", "aggregation", "said"),
    [
        (["method.aggregation=coverage"], "coverage", "one device can move it"),
        (["method.aggregation=median"], "median", "a fifth of the devices cannot move it far"),
        (["method.name=fedit"], "fedavg", "one device can move it"),
        (["messages.precision=int8"], "coverage", "does not go with this job"),
        (
            ["privacy.kind=central", "bandit.name=random", "method.importance=random"],
            "coverage",
            "privacy.kind = 'central' needs a mean",
        ),
    ],
)
def test_what_the_job_chooses_or_needs_stays(sets: list[str], aggregation: str, said: str) -> None:
    found = load_real_job(None, sets)
    assert found.job.method.aggregation == aggregation
    assert said in found.remark


def test_the_job_file_may_choose_the_plain_mean(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text('[method]\naggregation = "coverage"\n')
    assert load_real_job(file).job.method.aggregation == "coverage"
    file.write_text("[method]\ntarget_sparsity = 0.3\n")
    assert load_real_job(file).job.method.aggregation == "multi-krum"
