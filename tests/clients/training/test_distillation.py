"""SquareHead pulls the states of a pruned model towards those of the unpruned base, and counts nothing else."""

from itertools import cycle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import CONFIGS, DECODERS, build, tokens
from training import adapter, assignment, device_data, narrowed, opened, structure, task

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.training.distillation import divergence, square_head, taught
from slimfed.clients.training.single_device import train_device
from slimfed.clients.training.teacher import open_teacher
from slimfed.clients.training.work import DeviceContext, DeviceData, DeviceWork


def states(seed: int, layers: int, rows: int, length: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, length, 6, generator=draw, dtype=torch.float64) for _ in range(layers)]


@given(layers=st.integers(1, 4), rows=st.integers(1, 3), length=st.integers(2, 6), pad=st.integers(0, 3))
def test_padding_changes_nothing(layers: int, rows: int, length: int, pad: int) -> None:
    own, wanted = states(1, layers, rows, length + pad), states(2, layers, rows, length + pad)
    mask = torch.ones(rows, length + pad, dtype=torch.int64)
    mask[:, length:] = 0
    short = square_head([s[:, :length] for s in own], [s[:, :length] for s in wanted], mask[:, :length])
    torch.testing.assert_close(square_head(own, wanted, mask), short)
    assert square_head(wanted, wanted, mask) == 0


def test_every_layer_counts_relative_to_its_own_size() -> None:
    wanted, mask = states(2, 3, 2, 4), torch.ones(2, 4, dtype=torch.int64)
    far = [1.5 * wanted[0], wanted[1], 1.1e3 * wanted[2] / 1e3]
    expected = sum(
        share**2 * float((s**2).mean() / ((s**2).mean() + torch.finfo(torch.bfloat16).eps))
        for share, s in ((0.5, wanted[0]), (0.1, wanted[2]))
    )
    assert float(square_head(far, wanted, mask)) == pytest.approx(expected)


@pytest.mark.parametrize("family", CONFIGS)
def test_the_last_states_count_once_and_are_what_the_head_gets(family: str) -> None:
    model = build(family, causal=family in DECODERS)
    batch = tokens()
    model.train()
    found, logits = taught(model, **_renamed(batch))
    assert model.training
    assert len(found) == CONFIGS[family].num_hidden_layers
    assert not any(torch.equal(one, other) for n, one in enumerate(found) for other in found[n + 1 :])
    last = model.eval().base_model(**batch).last_hidden_state
    torch.testing.assert_close(found[-1], last)
    torch.testing.assert_close(logits, model(**batch).logits)


def test_a_device_is_held_to_the_unpruned_base_and_pays_for_it() -> None:
    """On text whose labels it sees, too: the distance falls against a device that recovers plainly."""
    base, blueprint = opened("bert", False)
    start, sent = structure(blueprint, 1, 0.5), adapter(base, blueprint, 3, 8)
    part = assignment(0, 8, start, start.sparsity, steps=30)
    data = device_data(0, False, 50)
    own = DeviceData(lambda: cycle(data.probe), data.probe, 8)
    scores = np.zeros(blueprint.units, dtype=np.float32)
    far, updates = {}, {}
    for recovery in ("plain", "squarehead"):
        job = task(False, recovery=recovery)
        updates[recovery] = train_device(
            DeviceContext(base, blueprint, job, teacher=open_teacher(job.training, job.model, None, base, blueprint)),
            DeviceWork(part, narrowed(sent, start, 8), scores, own),
        )
        model = _built(base, start, updates[recovery].adapter, job)
        batch = {name: data.probe[0][name] for name in ("input_ids", "attention_mask")}
        pair = (taught(each, **_renamed(batch))[0] for each in (model, base.model))
        far[recovery] = float(square_head(*pair, batch["attention_mask"]))
    assert far["squarehead"] < 0.9 * far["plain"]
    plain, held = (updates[recovery].report for recovery in ("plain", "squarehead"))
    assert held.loss_before == plain.loss_before, "the reported loss is of the text alone"
    assert held.workload.flops > plain.workload.flops
    assert held.workload.peak_memory_bytes > plain.workload.peak_memory_bytes


def _built(base, start, learnt, job):
    return ADAPTERS["lora"].training.build(base.model, start, learnt, job.adapter)


def _renamed(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"input_ids": batch["input_ids"], "mask": batch["attention_mask"]}


@given(seed=st.integers(0, 100), causal=st.booleans())
def test_the_divergence_is_that_of_the_counted_positions(seed: int, causal: bool) -> None:
    draw = torch.Generator().manual_seed(seed)
    shape = (3, 5, 7) if causal else (3, 7)
    student, teacher = (torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(0, 7, shape[:-1], generator=draw)
    labels[0] = -100
    found = divergence(student, teacher, labels)
    p, q = (logits[1:, :-1] if causal else logits[1:] for logits in (teacher.softmax(-1), student.softmax(-1)))
    assert float(found) == pytest.approx(float((p * (p.log() - q.log())).sum(-1).mean()))
    assert float(divergence(teacher, teacher, labels)) == pytest.approx(0, abs=1e-12)
    assert float(divergence(student, teacher, torch.full_like(labels, -100))) == 0
