"""A device that computes its layers again learns what one that keeps them learns, to the last bits."""

import numpy as np
import pytest
import torch
from small_models import CONFIGS, DECODERS
from training import adapter, assignment, begun, device_data, narrowed, opened, structure, task, taught

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.importance import IMPORTANCE
from slimfed.clients.training.single_device import train_device
from slimfed.clients.training.work import DeviceWork
from slimfed.clients.update import Update


def assert_alike_with_and_without(family: str, kind: str = "lora", **options: object) -> list[Update]:
    causal = family in DECODERS
    base, blueprint = opened(family, causal)
    start, sent = structure(blueprint, 1, 0.2), adapter(base, blueprint, 3, 8)
    sent = narrowed(begun(kind, sent, blueprint, 3), start, 8)
    scores = np.random.default_rng(9).random(blueprint.units).astype(np.float32)
    updates = []
    for checkpointing in (False, True):
        torch.manual_seed(4)  # for dropout
        job = task(causal, adapter=kind, checkpointing=checkpointing, **options)
        part = assignment(0, 8, start, 0.6)
        updates.append(
            train_device(taught(base, blueprint, job), DeviceWork(part, sent, scores, device_data(0, causal, 50)))
        )
    plain, again = updates
    assert again.report.structure == plain.report.structure
    assert again.report.structure.sparsity > start.sparsity or not ADAPTERS[kind].prunes(sent)
    np.testing.assert_allclose(again.scores, plain.scores, rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(again.adapter.tensors(), plain.adapter.tensors(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    assert again.report.loss_after == pytest.approx(plain.report.loss_after, rel=1e-6)
    return updates


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_learns_alike(family: str) -> None:
    plain, again = assert_alike_with_and_without(family)
    assert again.report.workload.flops > plain.report.workload.flops
    assert again.report.workload.peak_memory_bytes < plain.report.workload.peak_memory_bytes


@pytest.mark.parametrize("kind", sorted(set(ADAPTERS) - {"lora"}))
def test_every_adapter_learns_alike(kind: str) -> None:
    assert_alike_with_and_without("bert", kind)


@pytest.mark.parametrize("importance", sorted(IMPORTANCE))
def test_every_importance_scores_alike(importance: str) -> None:
    assert_alike_with_and_without("llama", importance=importance)


def test_a_teacher_teaches_alike() -> None:
    assert_alike_with_and_without("bert", recovery="squarehead")
