"""A node measures its devices' models in as large passes as memory allows."""

import numpy as np
import pytest
import torch
from training import adapter, assignment, device_data, narrowed, opened, split, task

from slimfed.clients.evaluation.metrics import evaluate
from slimfed.clients.node.evaluator import ModelEvaluator
from slimfed.clients.training.cohort.evaluation import evaluate_cohort
from slimfed.clients.training.cohort.trainer import train_cohort
from slimfed.clients.training.work import CohortWork, DeviceContext
from slimfed.clients.update import Update

ROWS = np.arange(23)


def fleet(devices: int) -> tuple[DeviceContext, list[Update]]:
    """Updates of ``devices`` devices that have learnt a little, each from its own text."""
    base, blueprint = opened("bert", False)
    job = task(False).model_copy(update={"engine": "cohort", "cohort_size": devices})
    dense, whole = blueprint.dense(), adapter(base, blueprint, 3, 8)
    parts = [assignment(n, 4, dense, 0.0, steps=1) for n in range(devices)]
    sent, data = [narrowed(whole, dense, 4) for _ in parts], [device_data(n, False, 50) for n in range(devices)]
    context = DeviceContext(base, blueprint, job)
    return context, train_cohort(context, CohortWork(parts, sent, np.zeros(blueprint.units, np.float32), data))


def test_out_of_memory_halves_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    context, updates = fleet(5)
    text = split(False, 1)
    expected, sizes = evaluate_cohort(context, updates, text, ROWS), []

    def cramped(context, updates, *others):
        sizes.append(len(updates))
        if len(updates) > 2:
            raise torch.OutOfMemoryError("no room")
        return evaluate_cohort(context, updates, *others)

    monkeypatch.setattr("slimfed.clients.node.evaluator.evaluate_cohort", cramped)
    measured = ModelEvaluator(context, text).many(updates, ROWS)
    assert sizes == [5, 3, 2, 1, 2]
    assert [each.accuracy for each in measured] == [each.accuracy for each in expected]


@pytest.mark.parametrize("causal", [False, True])
def test_out_of_memory_halves_the_batch_of_a_single_model(monkeypatch: pytest.MonkeyPatch, causal: bool) -> None:
    base, blueprint = opened("llama", causal)
    evaluator = ModelEvaluator(DeviceContext(base, blueprint, task(causal)), split(causal, 1))
    expected, sizes = evaluate(base.model, evaluator.test), []

    def cramped(model, test, tokens, *others):
        sizes.append(tokens)
        if tokens > 100:
            raise torch.OutOfMemoryError("no room")
        return evaluate(model, test, tokens, *others)

    monkeypatch.setattr("slimfed.clients.node.evaluator.evaluate", cramped)
    found = evaluator.measure(base.model)
    assert (found.accuracy, found.examples) == (expected.accuracy, expected.examples)
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert sizes == [4096, 2048, 1024, 512, 256, 128, 64]


def test_a_batch_of_one_text_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    base, blueprint = opened("bert", False)

    def never(*_):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr("slimfed.clients.node.evaluator.evaluate", never)
    with pytest.raises(torch.OutOfMemoryError):
        ModelEvaluator(DeviceContext(base, blueprint, task(False)), split(False, 1)).measure(base.model)


def test_one_by_one_and_together_find_the_same() -> None:
    context, updates = fleet(2)
    evaluator = ModelEvaluator(context, split(False, 1))
    for update, found in zip(updates, evaluator.many(updates, ROWS), strict=True):
        alone = evaluator.one(update.adapter, update.report.structure, ROWS)
        assert (found.accuracy, found.examples) == (alone.accuracy, alone.examples)
        assert found.loss == pytest.approx(alone.loss, abs=1e-6)
