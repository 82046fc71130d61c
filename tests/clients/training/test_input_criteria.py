"""The criteria "relative" and "fluctuation" are what they say of a batch; alone and in cohorts is test_trainer.py's."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import repeat

import numpy as np
import pytest
import torch
from torch import nn
from training import adapter, assignment, device_data, narrowed, opened, structure, task

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.data.batching import Batch
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.structure import Block
from slimfed.clients.training.single_device import train_device
from slimfed.clients.training.work import DeviceContext, DeviceData, DeviceWork


def _inputs(model: nn.Module, modules: Mapping[str, nn.Module], batch: Batch) -> dict[str, np.ndarray]:
    """What flows into ``modules`` at the tokens that count, float64 [tokens, in] each."""
    found: dict[str, np.ndarray] = {}
    mask = batch["attention_mask"].reshape(-1).bool()

    def note(name: str, _module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        found[name] = inputs[0].detach().reshape(-1, inputs[0].shape[-1])[mask].double().numpy()

    hooks = [module.register_forward_pre_hook(partial(note, name)) for name, module in modules.items()]
    model.eval()
    with torch.no_grad():
        model(**{name: tensor for name, tensor in batch.items() if name != "labels"})
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize(("family", "causal"), [("bert", False), ("llama", True), ("gpt2", True)])
@pytest.mark.parametrize("criterion", ["relative", "fluctuation"])
def test_scores_follow_from_the_inputs_and_the_merged_weights(criterion: str, family: str, causal: bool) -> None:
    """Of a model that has lost units already, on a batch with padding."""
    base, blueprint = opened(family, causal)
    job = task(causal, importance=criterion, events=1)
    start = structure(blueprint, 4, 0.4)
    sent = narrowed(adapter(base, blueprint, 3, 4), start, 4)
    part = replace(assignment(0, 4, start, start.sparsity, steps=1), score=True)
    text = next(iter(device_data(0, causal, 8).batches()))
    data = DeviceData(lambda: repeat(text), (text,), 8)
    nothing = np.zeros(blueprint.units, dtype=np.float32)
    scores = train_device(DeviceContext(base, blueprint, job), DeviceWork(part, sent, nothing, data)).scores

    adapted = ADAPTERS["lora"].training.attach(slice_model(base.model, start), start, sent, job)
    names = [block.cuts[-1].module for block in blueprint.blocks]
    inputs = _inputs(adapted.model, {name: adapted.layer(name).module for name in names}, text)
    for index, block in enumerate(blueprint.blocks):
        name = block.cuts[-1].module
        w = adapted.layer(name).merged().detach().numpy()
        if criterion == "relative":
            rows = abs(w) / abs(w).sum(1, keepdims=True)
            each = np.linalg.norm(inputs[name], axis=0) * rows.sum(0)
        else:
            each = inputs[name].var(axis=0) * (w**2).sum(0)
        wanted = each.reshape(-1, block.cuts[-1].width).sum(1)
        found = scores[blueprint.span(index)][start.kept(index)]
        assert found == pytest.approx(wanted / np.linalg.norm(wanted), rel=1e-3, abs=1e-5)
    assert not scores[~start.keep].any()


def test_relative_does_not_rank_by_the_activations_alone() -> None:
    """As it would if columns were divided by their own sums."""
    base, blueprint = opened("bert", False)
    text = next(iter(device_data(0, False, 8).batches()))
    ranks = []
    for criterion in ("relative", "activation"):
        job = task(False, importance=criterion, events=1)
        part = replace(assignment(0, 4, blueprint.dense(), 0.0, steps=1), score=True)
        data = DeviceData(lambda: repeat(text), (text,), 8)
        nothing = np.zeros(blueprint.units, dtype=np.float32)
        work = DeviceWork(part, adapter(base, blueprint, 3, 4), nothing, data)
        ranks.append(train_device(DeviceContext(base, blueprint, job), work).scores)
    names = {block.cuts[-1].module: base.model.get_submodule(block.cuts[-1].module) for block in blueprint.blocks}
    inputs = _inputs(base.model, names, text)
    block = blueprint.blocks[1]
    assert isinstance(block, Block)
    norms = np.linalg.norm(inputs[block.cuts[-1].module], axis=0)
    assert np.argsort(ranks[0][blueprint.span(1)]).tolist() != np.argsort(norms).tolist()
    assert np.argsort(ranks[0][blueprint.span(1)]).tolist() != np.argsort(ranks[1][blueprint.span(1)]).tolist()
