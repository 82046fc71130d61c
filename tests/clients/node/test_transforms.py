"""What happens to updates between training and sending, step by step."""

from dataclasses import replace

import numpy as np
import pytest
from training import adapter, assignment, device_data, narrowed, opened, split, task

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.messages.records import Orders
from slimfed.clients.node.evaluator import ModelEvaluator
from slimfed.clients.node.runtime import NodeRuntime
from slimfed.clients.node.transforms import EvaluateModels, Privatise, PruneRanks, Quantise, Upload, sent_to
from slimfed.clients.spec import AdapterSpec, MessageSpec, PrivacySpec, PruningSpec, TaskSpec
from slimfed.clients.telemetry.stopwatch import Stopwatch
from slimfed.clients.training.single_device import train_device
from slimfed.clients.training.work import DeviceContext, DeviceWork
from slimfed.clients.update import Failure, Update

BASE, BLUEPRINT = opened("bert", False)
ROWS = np.arange(11)


@pytest.fixture(scope="module")
def orders() -> Orders:
    """Three devices, of which the last is to be measured."""
    dense = BLUEPRINT.dense()
    parts = [replace(assignment(n, 4, dense, 0.0, steps=1), evaluate=n == 2) for n in range(3)]
    scores = np.zeros(BLUEPRINT.units, np.float32)
    return Orders(task(False), adapter(BASE, BLUEPRINT, 3, 4), dense, scores, tuple(parts))


@pytest.fixture(scope="module")
def updates(orders: Orders) -> list[Update]:
    context = DeviceContext(BASE, BLUEPRINT, orders.task)
    sent = narrowed(orders.adapter, orders.envelope, 4)
    return [
        train_device(context, DeviceWork(part, sent, orders.scores, device_data(part.device, False, 20)))
        for part in orders.assignments
    ]


def transforms(context: DeviceContext) -> list:
    """One of each kind."""
    return [
        PruneRanks(AdapterSpec(keep_ranks=0.5)),
        EvaluateModels(ModelEvaluator(context, split(False, 1)), ROWS),
        Privatise(PrivacySpec(kind="local")),
        Upload(ADAPTERS["lora"]),
        Quantise("int8"),
    ]


def test_every_transform_answers_for_the_same_devices_in_order(orders: Orders, updates: list[Update]) -> None:
    for transform in transforms(DeviceContext(BASE, BLUEPRINT, orders.task)):
        before = [update.adapter.tensors() for update in updates]
        changed = transform(updates, orders)
        assert [update.device for update in changed] == [0, 1, 2]
        for update, old in zip(updates, before, strict=True):
            assert all(now is then for now, then in zip(update.adapter.tensors(), old, strict=True)), "left as it was"


def test_only_who_is_asked_is_measured_and_nobody_without_text(orders: Orders, updates: list[Update]) -> None:
    evaluator = ModelEvaluator(DeviceContext(BASE, BLUEPRINT, orders.task), split(False, 1))
    measured = EvaluateModels(evaluator, ROWS)(updates, orders)
    assert [update.report.evaluation is not None for update in measured] == [False, False, True]
    assert all(update.report.evaluation is None for update in EvaluateModels(evaluator, ROWS[:0])(updates, orders))
    assert "evaluate" in evaluator.context.watch.seconds


def test_what_rounding_takes_away_comes_back_in_the_next_round(orders: Orders, updates: list[Update]) -> None:
    sent = Quantise("int8")(updates, orders)
    for update, true in zip(sent, updates, strict=True):
        memory = update.report.memory
        for now, left, was in zip(update.adapter.tensors(), memory.tensors(), true.adapter.tensors(), strict=True):
            np.testing.assert_allclose(now + left, was, rtol=1e-5, atol=1e-7)
    again = Quantise("int8")(updates, replace(orders, memories={0: sent[0].report.memory}))
    first, second = (np.concatenate([t.ravel() for t in u.adapter.tensors()]) for u in (sent[0], again[0]))
    exact = np.concatenate([t.ravel() for t in updates[0].adapter.tensors()])
    assert np.abs((first + second) / 2 - exact).mean() < np.abs(first - exact).mean()


def test_local_privacy_leaves_no_number_that_text_made(orders: Orders, updates: list[Update]) -> None:
    spec = PrivacySpec(kind="local", clipping_norm=0.01, epsilon=8.0)
    for update in Privatise(spec)(updates, orders):
        report = update.report
        assert (report.loss_before, report.loss_after, report.importance, report.examples) == (0.0, 0.0, 0.0, 1)
        pairs = zip(update.adapter.tensors(), sent_to(update, orders).tensors(), strict=True)
        assert any(not np.array_equal(now, then) for now, then in pairs)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["EvaluateModels", "Upload"]),
        ({"adapter": AdapterSpec(keep_ranks=0.5)}, ["PruneRanks", "EvaluateModels", "Upload"]),
        ({"privacy": PrivacySpec(kind="local")}, ["EvaluateModels", "Privatise", "Upload"]),
        ({"messages": MessageSpec(precision="bf16")}, ["EvaluateModels", "Upload", "Quantise"]),
        ({"pruning": PruningSpec(allocation="cfsp")}, ["MeasureShares", "EvaluateModels", "Upload"]),
    ],
)
def test_a_job_gets_the_transforms_it_asks_for_in_order(changes: dict, names: list[str]) -> None:
    runtime = node(task(False).model_copy(update=changes))
    found = runtime._transforms(DeviceContext(BASE, BLUEPRINT, runtime.task))
    assert [type(each).__name__ for each in found] == names


def test_a_failed_device_keeps_its_place_among_the_updates(orders: Orders, monkeypatch: pytest.MonkeyPatch) -> None:
    def data(self: NodeRuntime, assignment):
        def broken():
            raise ValueError("its disk is gone")

        own = device_data(assignment.device, False, 20)
        return replace(own, batches=broken) if assignment.device == 1 else own

    monkeypatch.setattr(NodeRuntime, "data", data)
    results = node(orders.task).serve(orders, Stopwatch())
    assert [result.device for result in results] == [0, 1, 2]
    assert results[1] == Failure(1, "ValueError: its disk is gone")
    assert results[2].report.evaluation is not None


def node(job: TaskSpec) -> NodeRuntime:
    text = split(False, 1)
    return NodeRuntime(job, BASE, BLUEPRINT, text, text, {}, ROWS, None)
