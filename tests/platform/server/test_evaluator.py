"""The server measures the global model on the same sample in every round."""

import numpy as np
import pytest
import torch

from slimfed.clients.node.evaluator import ModelEvaluator
from slimfed.clients.node.runtime import NodeRuntime, open_runtime
from slimfed.platform.job.job import load_job
from slimfed.platform.server.assembly import new_fleet
from slimfed.platform.server.evaluator import GlobalEvaluator

JOB = load_job(None, ["fleet.devices=4", "data.max_length=16", "evaluation.examples=90", "engine.name=cohort"])


@pytest.fixture(scope="module")
def opened() -> NodeRuntime:
    return open_runtime(JOB.task_spec())


def test_the_sample_is_the_same_in_every_round_and_has_every_label(opened: NodeRuntime, monkeypatch) -> None:
    fleet, asked = new_fleet(opened, JOB), []
    measure = ModelEvaluator.measure

    def listening(self, model, rows):
        asked.append(rows)
        return measure(self, model, rows)

    monkeypatch.setattr(ModelEvaluator, "measure", listening)
    evaluator = GlobalEvaluator(opened, torch.get_num_threads())
    one, two = (evaluator.evaluate(fleet.adapter, fleet.structure, 90) for _ in range(2))
    whole = evaluator.evaluate(fleet.adapter, fleet.structure)
    assert one == two
    assert (one.examples, one.test_examples) == (90, len(opened.test))
    assert (whole.examples, whole.test_examples) == (len(opened.test), len(opened.test))
    np.testing.assert_array_equal(asked[0], asked[1])
    np.testing.assert_array_equal(asked[2], np.arange(len(opened.test)))
    labels = opened.test.labels
    assert set(labels[asked[0]]) == set(labels)


def test_a_job_hands_the_sample_to_the_strategy_and_not_to_the_nodes() -> None:
    """Nodes of older versions refuse tasks with fields that they do not know."""
    assert JOB.strategy_settings(JOB.task_spec(), 1).evaluate_examples == 90
    assert load_job().strategy_settings(JOB.task_spec(), 1).evaluate_examples == 0
    assert (
        JOB.task_spec() == load_job(None, ["fleet.devices=4", "data.max_length=16", "engine.name=cohort"]).task_spec()
    )
