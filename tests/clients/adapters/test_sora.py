"""SoRA: the gate, its threshold, and what is left of a rank that is off."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import build, tokens
from small_structures import draw_adapter
from training import adapter, assignment, device_data, opened, task

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.training.base import parameter_groups
from slimfed.clients.adapters.training.merging import fold
from slimfed.clients.models.discovery import discover
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.training.cohort.model import Members, attach_cohort
from slimfed.clients.training.single_device import train_device
from slimfed.clients.training.work import DeviceContext, DeviceWork

SORA = ADAPTERS["sora"]


def gated(whole: Adapter, seed: int) -> Adapter:
    """Gates of either sign, a third of them shut."""
    draw = np.random.default_rng(seed)
    factors = {}
    for name, f in whole.factors.items():
        gate = draw.normal(0, 1, len(f.a)) * (draw.random(len(f.a)) > 0.33)
        factors[name] = Factors(f.a, f.b, gate.astype(np.float32))
    return Adapter(factors, whole.head)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), family=st.sampled_from(["bert", "llama", "gpt2"]))
def test_the_baked_model_says_what_the_gated_one_says(seed: int, family: str) -> None:
    base = build(family)
    blueprint = discover(base)
    trained = gated(draw_adapter(base, blueprint, seed), seed)
    spec = task(False, adapter="sora")
    batch = tokens(seed)
    with torch.no_grad():
        dense = blueprint.dense()
        alone = SORA.training.attach(slice_model(base, dense), dense, trained, spec).model(**batch).logits
        cohort = attach_cohort(base, Members([trained], [dense], [4]), spec.adapter).model(**batch).logits
        small = SORA.finished(SORA.closed(trained, 4))
        baked = fold(slice_model(base, dense), small, spec.adapter.scaling)(**batch).logits
    torch.testing.assert_close(baked, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cohort, alone, rtol=1e-4, atol=1e-4)
    for name, f in trained.factors.items():
        assert len(small.factors[name].a) == np.count_nonzero(f.gate)


@given(
    gates=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=8),
    rate=st.floats(1e-5, 0.1),
    last=st.booleans(),
    follows=st.sampled_from(["rate", "nothing"]),
)
def test_the_threshold_is_soft_once_and_rises_over_the_rounds(
    gates: list[float], rate: float, last: bool, follows: str
) -> None:
    base, blueprint = opened("bert", False)
    whole = adapter(base, blueprint, 0, len(gates))
    name = blueprint.modules[0]
    sent = gated(whole, 0)
    sent.factors[name].gate[:] = gates
    job = task(False, adapter="sora", rounds=7)
    job = job.model_copy(update={"adapter": job.adapter.model_copy(update={"threshold_follows": follows})})
    adapted = SORA.training.attach(slice_model(base.model, blueprint.dense()), blueprint.dense(), sent, job)
    SORA.training.companion(adapted, job, 7 if last else 1, [8]).end(rate)
    got = adapted.read().factors[name].gate
    xi = job.adapter.threshold * (rate if follows == "rate" else job.training.learning_rate) if last else 0.0
    before = np.array(gates)
    np.testing.assert_allclose(got, np.sign(before) * np.maximum(np.abs(before) - xi, 0), atol=1e-6)


def test_the_server_sorts_ranks_by_their_gates_and_keeps_the_function() -> None:
    base, blueprint = opened("bert", False)
    sent = SORA.closed(gated(draw_adapter(base.model, blueprint, 3), 3), 4)
    after = SORA.decide(sent, sent, [], task(False, adapter="sora"), 4, 1)
    for name, f in sent.factors.items():
        now = after.factors[name]
        np.testing.assert_array_equal(now.gate, np.sort(f.gate)[::-1])
        np.testing.assert_allclose(now.b @ now.a, f.b @ f.a, rtol=1e-4, atol=1e-5)


def test_what_travels_is_opened_as_it_was_closed() -> None:
    base, blueprint = opened("bert", False)
    sent = SORA.begin(adapter(base, blueprint, 0, 4), blueprint, 1)
    again = SORA.closed(SORA.opened(sent), 4)
    for name, f in sent.factors.items():
        np.testing.assert_allclose(again.factors[name].b, f.b, rtol=1e-6)
        np.testing.assert_array_equal(again.factors[name].gate, f.gate)
        assert (f.gate > 0).all()


def test_weight_decay_spares_the_gates() -> None:
    base, blueprint = opened("bert", False)
    dense = blueprint.dense()
    sent = SORA.begin(adapter(base, blueprint, 0, 4), blueprint, 1)
    adapted = SORA.training.attach(slice_model(base.model, dense), dense, sent, task(False))
    decayed, spared = parameter_groups(adapted, 0.1)
    assert decayed["weight_decay"] == 0.1
    assert spared["weight_decay"] == 0.0
    assert {tuple(p.shape) for p in spared["params"]} == {(4,)}
    assert len(decayed["params"]) + len(spared["params"]) == len(adapted.parameters())


def test_a_rank_that_is_off_on_every_device_stays_off_and_the_device_reports_the_others() -> None:
    base, blueprint = opened("bert", False)
    sent = SORA.begin(adapter(base, blueprint, 0, 4), blueprint, 1)
    for f in sent.factors.values():
        f.gate[1], f.b[:, 1] = 0.0, 0.0
    job = task(False, adapter="sora", weight_decay=0.1)
    part = assignment(0, 4, blueprint.dense(), 0.0)
    data = device_data(0, False, 8)
    update = train_device(
        DeviceContext(base, blueprint, job), DeviceWork(part, sent, np.zeros(blueprint.units, np.float32), data)
    )
    for f in update.adapter.factors.values():
        assert f.gate[1] == 0
        assert not f.b[:, 1].any()
    assert update.adapter.effective_rank == 3
