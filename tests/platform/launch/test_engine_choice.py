"""What a job leaves open is settled before the run exists, with a reason, and what it settles is left alone."""

import socket

import pytest

from slimfed.clients.errors import InputError
from slimfed.clients.processors import processor_count
from slimfed.platform.job.job import job_to_toml, load_job
from slimfed.platform.job.overrides import read_toml
from slimfed.platform.launch.engine_choice import StepCost, seconds_a_device
from slimfed.platform.launch.preflight import check

FAST = ["data.max_length=16", "fleet.devices=30"]


@pytest.fixture(scope="module")
def chosen():
    return check(load_job(None, FAST))


def test_nothing_is_left_open_and_every_choice_has_its_reason(chosen) -> None:
    assert "auto" not in chosen.job.engine.model_dump().values()
    assert [reason.split(" = ")[0] for reason in chosen.reasons] == [
        "engine.dtype", "engine.name", "engine.cohort_size", "engine.workers",
    ]  # fmt: skip
    assert all(len(reason.split(": ", 1)[1]) > 10 for reason in chosen.reasons)
    assert 1 <= chosen.job.engine.workers <= processor_count()
    assert chosen.sizing.workers == chosen.job.engine.workers


def test_the_choice_travels_with_the_run(chosen, tmp_path) -> None:
    """A resumed run reads the run's own job file, and chooses nothing anew."""
    (tmp_path / "job.toml").write_text(job_to_toml(chosen.job))
    assert "auto" not in read_toml(tmp_path / "job.toml", "job file")["engine"].values()
    again = check(load_job(tmp_path / "job.toml"))
    assert again.job == chosen.job
    assert all(reason.endswith(": asked for") for reason in again.reasons)


def test_the_job_overrules_each() -> None:
    wanted = {"name": "sequential", "workers": 1, "cohort_size": 3, "dtype": "fp32", "deterministic": True}
    checked = check(load_job(None, [*FAST, *(f"engine.{name}={str(value).lower()}" for name, value in wanted.items())]))
    assert checked.job.engine.model_dump() == {**wanted, "cluster": ""}


def test_a_cluster_that_is_not_there_is_named_at_once() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(InputError, match=rf"engine\.cluster = '{address}': nothing answers there .*ray start"):
            check(load_job(None, [*FAST, f"engine.cluster={address}", "engine.workers=2"]))


def test_what_cannot_share_a_pass_is_trained_alone() -> None:
    checked = check(load_job(None, [*FAST, "adapter.dropout=0.1"]))
    assert (checked.job.engine.name, checked.job.engine.cohort_size) == ("sequential", 1)
    with pytest.raises(InputError, match=r"engine.name = cohort: adapter.dropout .* use sequential or auto"):
        check(load_job(None, [*FAST, "adapter.dropout=0.1", "engine.name=cohort"]))


def test_a_teacher_has_no_place_in_a_cohort() -> None:
    checked = check(load_job(None, [*FAST, "training.recovery=squarehead"]))
    assert checked.job.engine.name == "sequential"
    assert any(
        reason.startswith("engine.name = sequential: training.recovery and training.kl") for reason in checked.reasons
    )
    with pytest.raises(InputError, match=r"engine.name = cohort: training.recovery and training.kl .* use sequential"):
        check(load_job(None, [*FAST, "training.recovery=squarehead", "engine.name=cohort"]))


def test_layers_are_computed_again_for_one_device_at_a_time() -> None:
    checked = check(load_job(None, [*FAST, "training.checkpointing=true"]))
    assert (checked.job.engine.name, checked.job.engine.cohort_size) == ("sequential", 1)
    assert any(reason.startswith("engine.name = sequential: training.checkpointing") for reason in checked.reasons)
    with pytest.raises(InputError, match=r"engine.name = cohort: training.checkpointing .* use sequential or auto"):
        check(load_job(None, [*FAST, "training.checkpointing=true", "engine.name=cohort"]))


def test_cohorts_grow_with_what_they_save_and_shrink_with_what_they_waste() -> None:
    """Launch cost is shared; what the base keeps for the others' sake is not."""
    job = load_job(None, ["method.target_sparsity=0.8", "pruning.prior_weight=0.0"])
    launch_bound, compute_bound = StepCost(fixed=1.0, own=0.1), StepCost(fixed=0.0, own=1.0)
    assert seconds_a_device(launch_bound, job, 10) < seconds_a_device(launch_bound, job, 1)
    assert seconds_a_device(compute_bound, job, 1) < seconds_a_device(compute_bound, job, 10)
    alike = load_job(None, ["method.target_sparsity=0.8", "pruning.prior_weight=1.0"])
    assert seconds_a_device(compute_bound, alike, 10) == seconds_a_device(compute_bound, alike, 1)
