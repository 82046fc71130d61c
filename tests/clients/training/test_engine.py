"""What goes wrong with one device, or with the memory of one pass, costs the other devices nothing."""

import os
import subprocess
import sys
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from training import adapter, assignment, device_data, narrowed, opened, task

from slimfed.clients.importance import IMPORTANCE
from slimfed.clients.training.engine import train
from slimfed.clients.training.out_of_memory import is_out_of_memory, with_room
from slimfed.clients.training.work import CohortWork, DeviceContext, DeviceData
from slimfed.clients.update import Failure, Update

DEVICES = 5


def trained(data: list[DeviceData], engine: str = "cohort", size: int = DEVICES) -> list[Update | Failure]:
    base, blueprint = opened("bert", False)
    job = task(False).model_copy(update={"engine": engine, "cohort_size": size})
    parts = [assignment(device, 4, blueprint.dense(), 0.5) for device in range(DEVICES)]
    sent = [narrowed(adapter(base, blueprint, 3, 8), part.structure, part.rank) for part in parts]
    scores = np.random.default_rng(9).random(blueprint.units).astype(np.float32)
    return train(DeviceContext(base, blueprint, job), CohortWork(parts, sent, scores, data))


def test_devices_with_other_local_steps_train_as_they_do_alone() -> None:
    base, blueprint = opened("bert", False)
    job = task(False).model_copy(update={"engine": "cohort", "cohort_size": DEVICES})
    counts = [4, 4, 6, 6, 4]
    parts = [
        replace(assignment(device, 4, blueprint.dense(), 0.5), local_steps=steps) for device, steps in enumerate(counts)
    ]
    sent = [narrowed(adapter(base, blueprint, 3, 8), part.structure, part.rank) for part in parts]
    scores = np.random.default_rng(9).random(blueprint.units).astype(np.float32)
    context = DeviceContext(base, blueprint, job)
    whole = train(context, CohortWork(parts, sent, scores, fleet_data()))
    for n, together in enumerate(whole):
        [alone] = train(context, CohortWork(parts[n : n + 1], sent[n : n + 1], scores, fleet_data()[n : n + 1]))
        assert_alike(together, alone)
        assert together.report.workload.flops == pytest.approx(alone.report.workload.flops)
    assert whole[2].report.workload.flops > 1.2 * whole[1].report.workload.flops


@pytest.mark.parametrize("engine", ["cohort", "sequential"])
def test_losses_that_an_agent_asks_for_are_counted_as_work(engine: str) -> None:
    base, blueprint = opened("bert", False)
    job = task(False).model_copy(update={"engine": engine, "cohort_size": 2})
    plain = [assignment(device, 4, blueprint.dense(), 0.5) for device in range(2)]
    sent = [narrowed(adapter(base, blueprint, 3, 8), part.structure, part.rank) for part in plain]
    scores = np.zeros(blueprint.units, np.float32)

    def work(parts):
        done = train(DeviceContext(base, blueprint, job), CohortWork(parts, sent, scores, fleet_data()[:2]))
        return [each.report.workload for each in done]

    for without, asked in zip(work(plain), work([replace(part, probed=True) for part in plain]), strict=True):
        assert without.flops < asked.flops < 2 * without.flops
        assert without.traffic_bytes < asked.traffic_bytes
        assert without.peak_memory_bytes == asked.peak_memory_bytes


def fleet_data() -> list[DeviceData]:
    return [device_data(device, False, 50) for device in range(DEVICES)]


def assert_alike(one: Update | Failure, other: Update | Failure) -> None:
    assert isinstance(one, Update)
    assert isinstance(other, Update)
    assert one.report.structure == other.report.structure
    for ours, theirs in zip(one.adapter.tensors(), other.adapter.tensors(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ["cohort", "sequential"])
@pytest.mark.parametrize("bad", [0, 3])
def test_a_device_that_fails_is_the_only_one_that_does(engine: str, bad: int) -> None:
    healthy = trained(fleet_data())

    def broken():
        raise ValueError("its disk is gone\nand more")

    data = fleet_data()
    data[bad] = replace(data[bad], batches=broken)
    results = trained(data, engine)
    assert results[bad] == Failure(bad, "ValueError: its disk is gone")
    for device in set(range(DEVICES)) - {bad}:
        assert_alike(results[device], healthy[device])


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("[enforce fail] can't allocate memory: 8 GB")]
)
def test_a_cohort_without_memory_is_halved_and_goes_on(error: Exception) -> None:
    healthy, data, asked = trained(fleet_data()), fleet_data(), count()

    def batches():
        if next(asked) < 2:  # the whole cohort, and the half with device 3
            raise error
        return whole.batches()

    whole = data[3]
    data[3] = replace(whole, batches=batches)
    results = trained(data)
    assert next(asked) == 3
    for ours, theirs in zip(results, healthy, strict=True):
        assert_alike(ours, theirs)


def test_a_device_that_never_fits_is_a_failure() -> None:
    def starving():
        raise MemoryError("no room")

    data = fleet_data()
    data[4] = replace(data[4], batches=starving)
    results = trained(data, size=2)
    assert results[4] == Failure(4, "out of memory on the node: no room")
    assert all(isinstance(result, Update) for result in results[:4])


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not is_out_of_memory(ValueError("allocate memory"))


def test_training_takes_denormal_numbers_for_zero_and_nothing_after_it_does() -> None:
    seen: list[float] = []

    def tiny() -> float:
        return float(torch.tensor([1e-30]) * 1e-10)

    def watched(data: DeviceData) -> DeviceData:
        def batches():
            seen.append(tiny())
            return data.batches()

        return replace(data, batches=batches)

    trained([watched(data) for data in fleet_data()])
    assert seen == [0.0] * DEVICES
    assert tiny() > 0.0


def test_determinism_is_asked_of_torch_and_of_cublas() -> None:
    """In a process of its own: it holds for the whole of one."""
    code = (
        "import os, torch\n"
        "from slimfed.clients.training.determinism import insist_on_determinism as insist\n"
        "insist()\n"
        "assert torch.are_deterministic_algorithms_enabled() and os.environ['CUBLAS_WORKSPACE_CONFIG'] == ':4096:8'"
    )
    bare = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    subprocess.run([sys.executable, "-c", code], check=True, env=bare, timeout=200)


def test_what_found_no_memory_is_tried_once_more_and_no_more() -> None:
    tries = []

    def cramped(fits_at: int) -> int:
        tries.append(fits_at)
        if len(tries) < fits_at:
            raise torch.OutOfMemoryError("no room")
        return 7

    assert with_room(lambda: cramped(2)) == 7
    tries.clear()
    with pytest.raises(torch.OutOfMemoryError):
        with_room(lambda: cramped(3))
    assert len(tries) == 2


@pytest.mark.parametrize("importance", IMPORTANCE)
@pytest.mark.parametrize("engine", ["cohort", "sequential"])
def test_a_round_in_which_nobody_prunes_needs_no_importance(engine: str, importance: str) -> None:
    base, blueprint = opened("bert", False)
    job = task(False, importance=importance).model_copy(update={"engine": engine, "cohort_size": DEVICES})
    parts = [assignment(device, 4, blueprint.dense(), 0.0) for device in range(DEVICES)]
    sent = [narrowed(adapter(base, blueprint, 3, 8), part.structure, part.rank) for part in parts]
    results = train(
        DeviceContext(base, blueprint, job),
        CohortWork(parts, sent, np.zeros(blueprint.units, np.float32), fleet_data()),
    )
    assert all(isinstance(result, Update) and result.report.structure.keep.all() for result in results)
