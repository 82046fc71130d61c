"""HetLoRA's self-pruning: the last ranks go when they have shrunk, and only then; the penalty is what shrinks them."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training import adapter, assignment, device_data, narrowed, opened, structure, task

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.rank_pruning import kept_ranks, self_pruned, tail_product
from slimfed.clients.adapters.training.rank_penalty import TailPenalty
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.spec import AdapterSpec
from slimfed.clients.training.cohort.model import Members, attach_cohort
from slimfed.clients.training.single_device import train_device
from slimfed.clients.training.work import DeviceContext, DeviceWork
from slimfed.clients.update import Update

SPEC = AdapterSpec(keep_ranks=0.7, tail_penalty=0.3, least_rank=2)


@cache
def trained() -> tuple[Update, object]:
    base, blueprint = opened("bert", False)
    start = structure(blueprint, 1, 0.2)
    sent = narrowed(adapter(base, blueprint, 3, 8), start, 8)
    part, scores = assignment(0, 8, start, start.sparsity, steps=2), np.zeros(blueprint.units, dtype=np.float32)
    return train_device(
        DeviceContext(base, blueprint, task(False)), DeviceWork(part, sent, scores, device_data(0, False, 50))
    ), sent


@given(scale=st.sampled_from([0.0, 0.5, 0.999, 1.0, 1.001, 3.0]), gamma=st.sampled_from([0.3, 0.7, 0.99, 1.0]))
def test_the_last_ranks_go_if_and_only_if_their_product_has_shrunk(scale: float, gamma: float) -> None:
    update, sent = trained()
    spec = AdapterSpec(keep_ranks=gamma, least_rank=2)
    kept = kept_ranks(8, spec)
    factors = {}
    for name, f in sent.factors.items():
        a = f.a.copy()
        a[kept:] *= np.float32(scale)
        factors[name] = replace(f, a=a)
    back = replace(update, adapter=replace(sent, factors=factors))
    done = self_pruned(back, sent, spec)
    assert (done.report.rank < 8) == (scale < 1 and gamma < 1)
    assert done.report.rank in (8, kept)
    for name, f in done.adapter.factors.items():
        np.testing.assert_array_equal(f.a, factors[name].a[: done.report.rank])
        np.testing.assert_array_equal(f.b, factors[name].b[:, : done.report.rank])


@given(rank=st.integers(1, 200), gamma=st.floats(0.01, 1.0), least=st.integers(1, 20))
def test_a_device_keeps_at_least_the_smallest_rank_and_at_most_its_own(rank: int, gamma: float, least: int) -> None:
    kept = kept_ranks(rank, AdapterSpec(keep_ranks=gamma, least_rank=least))
    assert min(rank, least) <= kept <= rank
    assert kept_ranks(rank, AdapterSpec()) == rank


def test_a_tail_of_zeros_is_kept_and_has_no_slope_but_a_finite_one() -> None:
    """As in the first round, where B is zero: norms have no derivative there, and none must become NaN."""
    base, blueprint = opened("bert", False)
    sent = adapter(base, blueprint, 3, 8)
    for factors in sent.factors.values():
        factors.b[:] = 0
    model = ADAPTERS["lora"].training.attach(
        slice_model(base.model, blueprint.dense()), blueprint.dense(), sent, task(False)
    )
    TailPenalty(model, SPEC, [8]).penalty().backward()
    assert all(torch.count_nonzero(p.grad) == 0 for p in model.adapter_parameters())
    update, _ = trained()
    update = update.with_report(structure=blueprint.dense())
    assert self_pruned(replace(update, adapter=sent), sent, SPEC).report.rank == 8


def test_the_penalty_is_each_device_s_own_tail() -> None:
    base, blueprint = opened("bert", False)
    ranks, starts = [8, 4, 2], [structure(blueprint, n, sparsity) for n, sparsity in enumerate((0.0, 0.3, 0.5))]
    whole = adapter(base, blueprint, 3, 8)
    parts = [narrowed(whole, start, rank) for start, rank in zip(starts, ranks, strict=True)]
    cohort = attach_cohort(base.model, Members(parts, starts, ranks), SPEC)
    expected = [
        SPEC.tail_penalty * tail_product(part, kept_ranks(rank, SPEC)) for part, rank in zip(parts, ranks, strict=True)
    ]
    assert expected[2] == 0.0, "2 is the least rank: no tail"
    assert TailPenalty(cohort, SPEC, ranks).penalty().tolist() == pytest.approx(expected)
    for part, start, rank, size in zip(parts, starts, ranks, expected, strict=True):
        model = ADAPTERS["lora"].training.attach(slice_model(base.model, start), start, part, task(False))
        assert float(TailPenalty(model, SPEC, [rank]).penalty().detach()) == pytest.approx(size)
