"""Devices whose memory does not hold the dense model take part from the first round on, in a structure that fits."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from rounds import Memory

from slimfed.clients.node.runtime import open_runtime
from slimfed.platform.fleet.clock import VirtualClock
from slimfed.platform.fleet.forecast import ProfileForecast
from slimfed.platform.fleet.profiles import load_fleet
from slimfed.platform.job.job import Job, load_job
from slimfed.platform.server.assembly import assemble, new_fleet
from slimfed.strategies.local_grid import LocalGrid
from slimfed.strategies.strategy import FedSlim

DEVICES = 6
# Training of the built-in encoder needs 0.28448 GiB dense here, 0.28350 at 30% sparsity and 0.28283 at 50%.
BIG, SMALL, NONE = "6.0", "0.2834", "0.2"


def job(folder: Path, small: str, *sets: str) -> Job:
    """Six devices, every second of which has little memory."""
    text = files("slimfed.platform.fleet.builtin").joinpath("uniform.toml").read_text(encoding="utf-8")
    head, _, kind = text.partition("[[class]]")
    second = kind.replace('name = "uniform"', 'name = "small"').replace("memory_gib = 6.0", f"memory_gib = {small}")
    profile = folder / "mixed.toml"
    profile.write_text(f"{head}[[class]]{kind}\n[[class]]{second}", encoding="utf-8")
    fixed = [
        f"fleet.profile={profile}", f"fleet.devices={DEVICES}", "data.max_length=24", "training.batch_size=4",
        "training.rounds=3", "training.local_steps=3", "engine.name=cohort", "engine.cohort_size=3",
        "engine.dtype=fp32", "evaluation.every=100", "evaluation.devices=0", "pruning.until=1.0", "bandit.ranks=[16]",
    ]  # fmt: skip
    return load_job(None, [*fixed, *sets])


def run(job: Job) -> tuple[FedSlim, Memory]:
    runtime, recorder = open_runtime(job.task_spec()), Memory()
    strategy = assemble(job, runtime, new_fleet(runtime, job), 1, recorder)
    strategy.start(LocalGrid(1))
    return strategy, recorder


def statuses(recorder: Memory, number: int) -> list[str]:
    return [device.status for device in recorder.rounds[number - 1].devices]


@pytest.mark.parametrize("method", ["fedspine", "slimfed", "fedmp"])
def test_all_take_part_from_the_first_round_and_the_run_says_how(tmp_path: Path, method: str) -> None:
    _, recorder = run(job(tmp_path, SMALL, f"method.name={method}"))
    for number in (1, 2, 3):
        assert statuses(recorder, number) == ["done"] * DEVICES
    first = recorder.rounds[0].devices
    starts = [device.assignment.structure.sparsity for device in first]
    assert [start > 0.3 for start in starts].count(True) == DEVICES // 2
    (event,) = [each for each in recorder.events if each.kind == "small-memory"]
    assert "3 of 6 devices cannot hold training of the dense model" in event.cause
    last = [device.report.structure for device in recorder.rounds[-1].devices]
    assert all(structure.sparsity == pytest.approx(0.5, abs=5e-3) for structure in last)


def test_without_the_fit_the_same_devices_stay_out_until_they_are_pruned(tmp_path: Path) -> None:
    _, recorder = run(job(tmp_path, SMALL, "pruning.fit_memory=false"))
    assert statuses(recorder, 1).count("out-of-memory") == DEVICES // 2
    assert not [each for each in recorder.events if each.kind == "small-memory"]


def test_a_device_that_fits_at_no_sparsity_runs_out_of_memory_as_before(tmp_path: Path) -> None:
    _, recorder = run(job(tmp_path, NONE))
    assert statuses(recorder, 1).count("out-of-memory") == DEVICES // 2


def test_a_shared_structure_is_that_of_the_devices_that_hold_it(tmp_path: Path) -> None:
    strategy, recorder = run(job(tmp_path, SMALL, "method.name=slimfed"))
    for record in recorder.rounds:
        kept = [device.assignment.structure.keep for device in record.devices]
        whole = max(kept, key=lambda keep: keep.sum())
        assert all((whole >= keep).all() for keep in kept), "a small device trains a part of what the others train"
    assert strategy.fleet.structure.sparsity == pytest.approx(0.5, abs=5e-3)


def test_methods_that_need_equal_structures_and_runs_that_prune_nothing_cut_none(tmp_path: Path) -> None:
    for sets in (["method.name=fedit", "method.target_sparsity=0.1"], ["method.target_sparsity=0"]):
        _, recorder = run(job(tmp_path, SMALL, *sets))
        assert len({device.assignment.structure.sparsity for device in recorder.rounds[0].devices}) == 1
        assert statuses(recorder, 1).count("out-of-memory") == DEVICES // 2


def test_what_is_foreseen_fits_and_less_does_not(tmp_path: Path) -> None:
    made = job(tmp_path, SMALL)
    runtime = open_runtime(made.task_spec())
    forecast = assemble(made, runtime, new_fleet(runtime, made), 1, Memory()).context.forecast
    assert forecast is not None
    needs = [forecast.sparsity_to_fit(device, 16) for device in range(DEVICES)]
    assert sorted(set(needs)) == [0.0, pytest.approx(0.35)]
    memory = forecast.clock.fleet.devices[int(np.argmax(needs))].memory_bytes
    assert forecast.costs.peak_bytes(max(needs), 16) <= memory < forecast.costs.peak_bytes(max(needs) - 0.05, 16)
    scores = forecast.first_scores()
    assert scores.shape == (runtime.blueprint.units,)
    assert (scores > 0).all()
    assert forecast.costs is forecast.costs  # what it has found is kept


def test_a_quantised_base_fits_where_the_plain_one_does_not(tmp_path: Path) -> None:
    least = {}
    for form in ("none", "int8", "nf4"):
        wanted = job(tmp_path, "0.2838", f"model.quantization={form}")
        runtime = open_runtime(wanted.task_spec())
        clock = VirtualClock(load_fleet(wanted.fleet, wanted.seed), wanted.seed)
        forecast = ProfileForecast(clock, runtime, new_fleet(runtime, wanted).adapter)
        least[form] = max(forecast.sparsity_to_fit(device, 16) for device in range(DEVICES))
    assert least["nf4"] == least["int8"] == 0.0 < least["none"]
