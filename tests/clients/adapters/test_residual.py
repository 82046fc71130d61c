"""A residual is a change of the base that all devices share: cut, sent, folded and trained on like the base itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import CONFIGS
from small_structures import draw_structure
from training import adapter, narrowed, opened, structure

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters.training.merging import changed, fold
from slimfed.clients.messages.records import Orders, decode_orders, encode_orders
from slimfed.clients.node.runtime import NodeRuntime, open_runtime
from slimfed.clients.pruning.adapter_slicing import narrow, widen
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.spec import AdapterSpec, DataSpec, ModelSpec, PruningSpec, TaskSpec, TrainingSpec
from slimfed.clients.structure import union
from slimfed.clients.telemetry.stopwatch import Stopwatch
from slimfed.clients.update import Assignment

TASK = TaskSpec(
    seed=5,
    devices=4,
    model=ModelSpec(),
    data=DataSpec(max_length=16),
    adapter=AdapterSpec(),
    pruning=PruningSpec(),
    training=TrainingSpec(rounds=2, local_steps=2, batch_size=4),
    cohort_size=2,
)


def with_residual(whole: Adapter, seed: int, size: float = 0.05) -> Adapter:
    draw = np.random.default_rng(seed)
    shapes = {name: (f.b.shape[0], f.a.shape[1]) for name, f in whole.factors.items()}
    return replace(whole, residual={name: draw.normal(0, size, s).astype(np.float32) for name, s in shapes.items()})


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(3, 15).reshape(2, 6)
    with torch.no_grad():
        return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


@pytest.mark.parametrize("family", CONFIGS)
def test_cutting_and_folding_it_is_changing_the_base_first(family: str) -> None:
    base, blueprint = opened(family, False)
    kept = structure(blueprint, 1, 0.4)
    whole = with_residual(adapter(base, blueprint, 3, 4), 2)
    folded = fold(slice_model(base.model, kept), narrowed(whole, kept, 4), 1.5)
    other = fold(
        slice_model(changed(base.model, whole.residual), kept), narrowed(replace(whole, residual={}), kept, 4), 1.5
    )
    torch.testing.assert_close(logits(folded), logits(other), rtol=1e-9, atol=1e-9)
    bare = fold(slice_model(base.model, kept), narrowed(replace(whole, residual={}), kept, 4), 1.5)
    assert not torch.allclose(logits(folded), logits(bare), rtol=1e-3)


@pytest.mark.parametrize("family", ["bert", "qwen2", "gpt2"])
def test_widening_puts_it_back_and_is_zero_elsewhere(family: str) -> None:
    base, blueprint = opened(family, False)
    kept = draw_structure(blueprint, 4)
    whole = with_residual(adapter(base, blueprint, 3, 4), 2)
    wide = widen(narrow(whole, blueprint.dense(), kept), kept)
    again = narrow(wide, blueprint.dense(), kept)
    for name, change in narrow(whole, blueprint.dense(), kept).residual.items():
        np.testing.assert_array_equal(again.residual[name], change)
        assert wide.residual[name].shape == whole.residual[name].shape
        assert np.count_nonzero(wide.residual[name]) == change.size


def served(task: TaskSpec, residual: bool) -> list:
    runtime: NodeRuntime = open_runtime(task)
    whole = adapter(runtime.base, runtime.blueprint, 3, 4)
    whole = with_residual(whole, 2) if residual else whole
    parts = tuple(
        Assignment(n, 1, 2 + 2 * n, 0.4, 2, 5e-3, 3e-3, 100 + n, True, draw_structure(runtime.blueprint, n))
        for n in range(2)
    )
    envelope = union(part.structure for part in parts)
    scores = np.zeros(runtime.blueprint.units, dtype=np.float32)
    orders = Orders(task, narrow(whole, runtime.blueprint.dense(), envelope), envelope, scores, parts)
    return runtime.serve(decode_orders(encode_orders(orders), runtime.blueprint), Stopwatch())


def test_devices_train_and_measure_on_it_alone_and_in_a_cohort_and_send_none_back() -> None:
    with_it = [served(TASK.model_copy(update={"engine": engine}), True) for engine in ("sequential", "cohort")]
    without = served(TASK, False)
    runtime = open_runtime(TASK)
    whole = with_residual(adapter(runtime.base, runtime.blueprint, 3, 4), 2)
    for alone, together, bare in zip(*with_it, without, strict=True):
        assert not alone.adapter.residual
        assert not together.adapter.residual
        assert alone.report.loss_before == pytest.approx(together.report.loss_before, rel=1e-5)
        assert alone.report.loss_after == pytest.approx(together.report.loss_after, rel=1e-4)
        assert alone.report.loss_before != pytest.approx(bare.report.loss_before, rel=1e-4)
        cut = narrow(whole, runtime.blueprint.dense(), alone.report.structure)
        own = replace(alone.adapter, residual=cut.residual)
        found = runtime.evaluate(own, alone.report.structure, runtime.sample)
        assert found.loss == pytest.approx(alone.report.evaluation.loss)
