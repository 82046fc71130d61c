"""Sparse deltas: which entries are chosen, and that all others keep their bits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training import adapter, assignment, device_data, narrowed, opened, structure, task

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.sparse import largest
from slimfed.clients.adapters.training.merging import fold
from slimfed.clients.messages.records import update_bytes
from slimfed.clients.pruning.adapter_slicing import narrow, widen
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.training.cohort.trainer import train_cohort
from slimfed.clients.training.single_device import train_device
from slimfed.clients.training.work import CohortWork, DeviceContext, DeviceWork

SPARSE = ADAPTERS["sparse"]
RANK = 4


def ticket(family: str = "bert", rank: int = 2, seed: int = 0):
    """A base, what a run starts from, two devices' proposals, and the server's decision."""
    base, blueprint = opened(family, family != "bert")
    begun = SPARSE.begin(adapter(base, blueprint, seed, RANK), blueprint, seed)
    job = task(family != "bert", adapter="sparse", local_steps=3)
    updates = []
    for device in range(2):
        part = assignment(device, rank, blueprint.dense(), 0.0, steps=3)
        data = device_data(device, family != "bert", 8)
        updates.append(
            train_device(
                DeviceContext(base, blueprint, job),
                DeviceWork(part, begun, np.zeros(blueprint.units, np.float32), data),
            )
        )
    return base, blueprint, begun, updates, SPARSE.decide(begun, begun, updates, job, RANK, 1)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_the_server_takes_the_largest_of_the_summed_scores_and_forgets_the_rest(family: str) -> None:
    _, _, begun, updates, decided = ticket(family)
    summed = {name: np.zeros(np.prod(d.shape)) for name, d in begun.deltas.items()}
    for update in updates:
        proposed = sum(d.values.size for d in update.adapter.deltas.values())
        assert proposed == begun.budget(2), "a device proposes what its rank pays for"
        for name, d in update.adapter.deltas.items():
            summed[name][d.indices] += d.values.astype(np.float64) * update.report.examples
    whole = np.concatenate(list(summed.values()))
    count = min(begun.budget(RANK), int((whole > 0).sum()))
    chosen = np.concatenate([summed[name][d.indices] for name, d in decided.deltas.items()])
    assert len(chosen) == count
    assert chosen.min() >= np.sort(whole)[-count]
    assert all(not d.values.any() for d in decided.deltas.values())
    assert decided.head is begun.head
    levels = np.concatenate([d.levels for d in decided.deltas.values()])
    for level in range(1, RANK + 1):
        assert (levels <= level).sum() == pytest.approx(count * level / RANK, abs=1)
    assert chosen[levels == 1].min() >= chosen[levels == RANK].max()


def test_only_the_ticket_moves_and_everything_else_keeps_its_bits_with_weight_decay_on() -> None:
    base, blueprint, _, _, decided = ticket()
    job = task(False, adapter="sparse", weight_decay=0.3)
    part = assignment(0, 2, structure(blueprint, 1, 0.3), 0.6)
    sent = narrowed(decided, part.structure, part.rank)
    update = train_device(
        DeviceContext(base, blueprint, job),
        DeviceWork(part, sent, np.zeros(blueprint.units, np.float32), device_data(0, False, 8)),
    )
    assert update.report.structure.sparsity > 0.5
    before, after = slice_model(base.model, update.report.structure), slice_model(base.model, update.report.structure)
    fold(after, update.adapter, 1.0)
    for name, delta in update.adapter.deltas.items():
        old, new = (m.get_submodule(name).weight.numpy().reshape(-1) for m in (before, after))
        elsewhere = np.setdiff1d(np.arange(old.size), delta.indices)
        np.testing.assert_array_equal(old[elsewhere].view(np.int64), new[elsewhere].view(np.int64))
        assert not np.array_equal(old, new)


def test_the_trained_model_is_the_folded_one_and_sends_nothing_but_values() -> None:
    base, blueprint, _, _, decided = ticket()
    job = task(False, adapter="sparse")
    part = assignment(0, RANK, blueprint.dense(), 0.0)
    data = device_data(0, False, 8)
    update = train_device(
        DeviceContext(base, blueprint, job), DeviceWork(part, decided, np.zeros(blueprint.units, np.float32), data)
    )
    model = fold(slice_model(base.model, blueprint.dense()), update.adapter, 1.0)
    again = SPARSE.training.attach(slice_model(base.model, blueprint.dense()), blueprint.dense(), update.adapter, job)
    batch = {k: v for k, v in data.probe[0].items() if k != "labels"}
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, again.model(**batch).logits)
    sent = replace(update, adapter=SPARSE.upload(update.adapter))
    values = sum(d.values.size for d in decided.deltas.values())
    head = sum(t.nbytes for t in update.adapter.head.values())
    overhead = sent.report.structure.pack().nbytes + sent.scores.nbytes
    assert update_bytes(sent) == 4 * values + head + overhead


def test_devices_propose_the_same_alone_and_in_a_cohort() -> None:
    base, blueprint, begun, updates, _ = ticket()
    parts = [assignment(device, 2, blueprint.dense(), 0.0, steps=3) for device in range(2)]
    data = [device_data(device, False, 8) for device in range(2)]
    scores = np.zeros(blueprint.units, np.float32)
    job = task(False, adapter="sparse", local_steps=3)
    together = train_cohort(DeviceContext(base, blueprint, job), CohortWork(parts, [begun, begun], scores, data))
    for alone, cohort in zip(updates, together, strict=True):
        assert alone.report.workload == cohort.report.workload
        for name, delta in alone.adapter.deltas.items():
            other = cohort.adapter.deltas[name]
            both, own, its = np.intersect1d(delta.indices, other.indices, return_indices=True)
            assert len(both) >= 0.99 * len(delta.indices), "but for ties at the threshold"
            np.testing.assert_allclose(delta.values[own], other.values[its], rtol=1e-5, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), family=st.sampled_from(["bert", "gpt2"]), rank=st.integers(1, RANK))
def test_cutting_a_delta_is_cutting_what_it_does(seed: int, family: str, rank: int) -> None:
    base, blueprint = opened(family, family != "bert")
    draw = np.random.default_rng(seed)
    begun = SPARSE.begin(adapter(base, blueprint, seed, RANK), blueprint, seed)
    deltas = {}
    for name, d in begun.deltas.items():
        at = np.sort(draw.permutation(np.prod(d.shape))[:50]).astype(np.int32)
        levels = draw.integers(1, RANK + 1, 50).astype(np.uint16)
        deltas[name] = replace(d, values=draw.normal(size=50).astype(np.float32), indices=at, levels=levels)
    whole, kept = replace(begun, deltas=deltas), structure(blueprint, seed, 0.5)
    dense = blueprint.dense()
    cut = narrow(whole, dense, kept, rank)
    level = replace(
        whole,
        deltas={
            n: replace(d, values=np.where(d.levels <= rank, d.values, 0).astype(np.float32)) for n, d in deltas.items()
        },
    )
    one = fold(slice_model(base.model, kept), cut, 1.0).state_dict()
    other = slice_model(fold(slice_model(base.model, dense), level, 1.0), kept).state_dict()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=0)
    back = narrow(widen(cut, kept), dense, kept)
    for name, d in cut.deltas.items():
        np.testing.assert_array_equal(d.indices, back.deltas[name].indices)


@given(
    parts=st.lists(st.lists(st.integers(0, 5), max_size=20), min_size=1, max_size=4),
    count=st.integers(0, 30),
)
def test_the_largest_are_as_many_as_asked_and_none_is_passed_over(parts: list[list[int]], count: int) -> None:
    scores = {str(n): np.array(part, dtype=np.float64) for n, part in enumerate(parts)}
    chosen = largest(scores, count)
    taken = np.concatenate([scores[name][at] for name, at in chosen.items()])
    every = np.sort(np.concatenate(list(scores.values())))[::-1]
    every = every[every > 0][:count]
    np.testing.assert_array_equal(np.sort(taken)[::-1], every)
