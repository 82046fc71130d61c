"""A device trained in a cohort gets what it gets alone: update, structure, scores, losses, cost."""

from dataclasses import replace
from itertools import cycle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import CONFIGS, DECODERS, KIN_DECODERS
from training import adapter, assignment, begun, device_data, narrowed, opened, structure, task

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.targets import targeted
from slimfed.clients.adapters.training.broadcast import Broadcast
from slimfed.clients.importance import IMPORTANCE
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.spec import AdapterSpec
from slimfed.clients.training.cohort.model import Members, attach_cohort
from slimfed.clients.training.cohort.trainer import train_cohort
from slimfed.clients.training.single_device import train_device
from slimfed.clients.training.work import CohortWork, DeviceContext, DeviceData, DeviceWork
from slimfed.clients.update import Update

CASES = [(family, causal) for family in CONFIGS for causal in ((False, True) if family in DECODERS else (False,))]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}

devices = st.lists(
    st.tuples(
        st.sampled_from([1, 2, 4, 8]),  # rank
        st.sampled_from([0.0, 0.2, 0.5]),  # sparsity before
        st.sampled_from([0.0, 0.5, 0.7]),  # sparsity to reach
        st.sampled_from([1, 3, 50]),  # examples
    ),
    min_size=1,
    max_size=4,
)


def both(
    family: str, causal: bool, fleet: list[tuple[int, float, float, int]], quantization: str = "none", **options
) -> list[tuple[Update, Update]]:
    """Each device's update: alone, and from the cohort."""
    base, blueprint = opened(family, causal, quantization)
    job = task(causal, **options)
    plain = adapter(base, blueprint, 3, 8)
    plain = replace(plain, factors={name: plain.factors[name] for name in targeted(blueprint, job.adapter.targets)})
    whole = begun(job.adapter.name, plain, blueprint, 3)
    scores = np.random.default_rng(9).random(blueprint.units).astype(np.float32)
    starts = [structure(blueprint, n, part[1]) for n, part in enumerate(fleet)]
    parts = [
        assignment(n, rank, starts[n], max(starts[n].sparsity, goal)) for n, (rank, _, goal, _) in enumerate(fleet)
    ]
    sent = [narrowed(whole, a.structure, a.rank) for a in parts]
    alone = [
        train_device(DeviceContext(base, blueprint, job), DeviceWork(a, s, scores, device_data(n, causal, fleet[n][3])))
        for n, (a, s) in enumerate(zip(parts, sent, strict=True))
    ]
    data = [device_data(n, causal, part[3]) for n, part in enumerate(fleet)]
    return list(
        zip(
            alone, train_cohort(DeviceContext(base, blueprint, job), CohortWork(parts, sent, scores, data)), strict=True
        )
    )


def assert_equal(alone: Update, cohort: Update) -> None:
    assert alone.report.structure == cohort.report.structure
    for field in ("device", "rank", "examples", "workload"):
        assert getattr(alone.report, field) == getattr(cohort.report, field)
    for field in ("loss_before", "loss_after", "importance"):
        assert getattr(alone.report, field) == pytest.approx(getattr(cohort.report, field), rel=1e-4, abs=1e-5)
    np.testing.assert_allclose(alone.scores, cohort.scores, rtol=2e-3, atol=1e-4)
    assert list(alone.adapter.factors) == list(cohort.adapter.factors)
    for name, factors in alone.adapter.factors.items():
        assert factors.parts().keys() == cohort.adapter.factors[name].parts().keys()
        for part, tensor in factors.parts().items():
            np.testing.assert_allclose(tensor, cohort.adapter.factors[name].parts()[part], **TOLERANCE, err_msg=name)
    assert list(alone.adapter.deltas) == list(cohort.adapter.deltas)
    for name, delta in alone.adapter.deltas.items():
        np.testing.assert_array_equal(delta.indices, cohort.adapter.deltas[name].indices)
        np.testing.assert_allclose(delta.values, cohort.adapter.deltas[name].values, **TOLERANCE, err_msg=name)
    for name, tensor in alone.adapter.extra.items():
        np.testing.assert_allclose(tensor, cohort.adapter.extra[name], **TOLERANCE, err_msg=name)
    for name, tensor in alone.adapter.head.items():
        np.testing.assert_allclose(tensor, cohort.adapter.head[name], **TOLERANCE, err_msg=name)


@pytest.mark.parametrize(("family", "causal"), CASES)
def test_every_family_trains_alike_alone_and_in_a_cohort(family: str, causal: bool) -> None:
    fleet = [(2, 0.0, 0.5, 50), (8, 0.5, 0.7, 3), (4, 0.2, 0.0, 50)]
    for alone, cohort in both(family, causal, fleet):
        assert_equal(alone, cohort)


# Not gemma2: its attention computes in float32 whatever the model's type, so rounding decides between units.
@pytest.mark.parametrize("family", ["gemma3_text", "smollm3", "granite", "opt", "electra"])
def test_kin_train_alike_alone_and_in_a_cohort(family: str) -> None:
    for alone, cohort in both(family, family in KIN_DECODERS, [(2, 0.0, 0.5, 50), (4, 0.2, 0.0, 3)]):
        assert_equal(alone, cohort)


@pytest.mark.parametrize("kind", ["lora", "sora"])
@pytest.mark.parametrize(
    ("form", "family", "causal", "options"),
    [
        ("nf4", "bert", False, {"importance": "magnitude"}),
        ("int8", "qwen2", True, {"targets": "attention", "importance": "activation"}),
        ("nf4", "gpt2", True, {"importance": "lora-gradient"}),
    ],
    ids=["nf4-bert", "int8-qwen2", "nf4-gpt2"],
)
def test_a_quantised_base_trains_alike_alone_and_in_a_cohort(kind, form, family, causal, options) -> None:
    """Devices cut the quantised weights that a cohort masks, some of them without an adapter."""
    fleet = [(2, 0.0, 0.5, 50), (8, 0.5, 0.7, 3), (4, 0.2, 0.0, 50)]
    plain = both(family, causal, fleet, adapter=kind, **options)
    for (alone, cohort), (usual, _) in zip(
        both(family, causal, fleet, quantization=form, adapter=kind, **options), plain, strict=True
    ):
        assert_equal(alone, cohort)
        assert alone.report.loss_before != usual.report.loss_before
        assert alone.report.workload.peak_memory_bytes < usual.report.workload.peak_memory_bytes


@pytest.mark.parametrize("kind", ["lora", "sora"])
@pytest.mark.parametrize(
    ("targets", "importance"),
    [("attention", "magnitude"), ("ffn", "activation"), (("v_proj", "down_proj"), "lora-gradient")],
    ids=["attention", "ffn", "list"],
)
def test_targets_are_adapted_alike_alone_and_in_a_cohort(kind: str, targets, importance: str) -> None:
    """Units are pruned from modules without an adapter, too, which a cohort masks and a device cuts."""
    fleet = [(2, 0.0, 0.5, 50), (8, 0.5, 0.7, 3), (4, 0.2, 0.0, 50)]
    for alone, cohort in both("qwen2", True, fleet, adapter=kind, targets=targets, importance=importance):
        assert_equal(alone, cohort)
        assert alone.adapter.factors.keys() < set(alone.report.structure.blueprint.modules)


@pytest.mark.parametrize("kind", ["lora", "sora"])
@pytest.mark.parametrize(("family", "causal"), [("bert", False), ("gpt2", True)])
def test_factors_b_learn_faster_alike_alone_and_in_a_cohort(kind: str, family: str, causal: bool) -> None:
    """LoRA+, with weight decay, through two prune events."""
    fleet = [(2, 0.0, 0.5, 50), (8, 0.5, 0.7, 3), (4, 0.2, 0.0, 50)]
    plain = both(family, causal, fleet, adapter=kind)
    for (alone, cohort), (usual, _) in zip(
        both(family, causal, fleet, adapter=kind, lora_plus=4.0), plain, strict=True
    ):
        assert_equal(alone, cohort)
        name = next(iter(alone.adapter.factors))
        assert np.abs(alone.adapter.factors[name].b - usual.adapter.factors[name].b).max() > 1e-3


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(fleet=devices, causal=st.booleans())
def test_any_mix_of_devices_trains_alike(fleet, causal: bool) -> None:
    for alone, cohort in both("qwen2" if causal else "bert", causal, fleet):
        assert_equal(alone, cohort)


@pytest.mark.parametrize("kind", [kind for kind in ADAPTERS if kind != "lora"])
@pytest.mark.parametrize(("family", "causal"), [("bert", False), ("qwen2", True), ("gpt2", True)])
def test_every_adapter_trains_alike_alone_and_in_a_cohort(kind: str, family: str, causal: bool) -> None:
    fleet = [(2, 0.0, 0.5, 50), (8, 0.5, 0.7, 3), (4, 0.2, 0.0, 50)]
    for alone, cohort in both(family, causal, fleet, adapter=kind):
        assert_equal(alone, cohort)


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize(("family", "causal"), [("bert", False), ("qwen2", True), ("gpt2", True)])
def test_devices_are_held_alike_alone_and_in_a_cohort(kind: str, family: str, causal: bool) -> None:
    """FedProx, through two prune events."""
    fleet = [(2, 0.0, 0.5, 50), (8, 0.5, 0.7, 3), (4, 0.2, 0.0, 50)]
    for alone, cohort in both(family, causal, fleet, adapter=kind, proximal=1.0):
        assert_equal(alone, cohort)


@pytest.mark.parametrize(("family", "causal"), [("bert", False), ("qwen2", True), ("gpt2", True)])
def test_tails_shrink_alike_alone_and_in_a_cohort(family: str, causal: bool) -> None:
    """HetLoRA's penalty, with tails of unequal length beside each other and one device that has none."""
    fleet = [(2, 0.0, 0.5, 50), (8, 0.5, 0.7, 3), (4, 0.2, 0.0, 50), (1, 0.0, 0.0, 50)]
    for alone, cohort in both(family, causal, fleet, keep_ranks=0.7, tail_penalty=0.5):
        assert_equal(alone, cohort)


def test_fedprox_is_what_autograd_makes_of_its_penalty() -> None:
    """Against plain steps on loss + mu/2 |w - w_sent|^2; both engines train alike, says the test above."""
    base, blueprint = opened("bert", False)
    mu, steps, sent = 3.0, 4, adapter(base, blueprint, 3, 4)
    part = replace(assignment(0, 4, blueprint.dense(), 0.0, steps=steps), learning_rate_end=5e-3)
    job = task(False, proximal=mu, weight_decay=0.0, max_grad_norm=1e9)
    scores = np.zeros(blueprint.units, dtype=np.float32)
    update = train_device(
        DeviceContext(base, blueprint, job), DeviceWork(part, sent, scores, device_data(0, False, 50))
    )

    model = ADAPTERS["lora"].training.attach(slice_model(base.model, part.structure), part.structure, sent, job)
    start = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    stream = device_data(0, False, 50).batches()
    model.model.train()
    for _ in range(steps):
        loss = model.model(**next(stream)).loss
        way = sum((p - begun).square().sum() for p, begun in zip(model.parameters(), start, strict=True))
        (loss + mu / 2 * way).backward()
        optimizer.step()
        optimizer.zero_grad()
    for ours, theirs in zip(update.adapter.tensors(), model.read().tensors(), strict=True):
        np.testing.assert_allclose(ours, theirs, **TOLERANCE)


def test_a_held_device_stays_nearer_to_what_it_was_sent() -> None:
    base, blueprint = opened("bert", False)
    part = assignment(0, 4, blueprint.dense(), 0.0, steps=10)
    sent, scores = adapter(base, blueprint, 3, 4), np.zeros(blueprint.units, dtype=np.float32)
    ways = []
    for strength in (0.0, 1.0, 100.0):
        job = task(False, proximal=strength)
        update = train_device(
            DeviceContext(base, blueprint, job), DeviceWork(part, sent, scores, device_data(0, False, 50))
        )
        pairs = zip(update.adapter.tensors(), sent.tensors(), strict=True)
        ways.append(float(np.sqrt(sum(((now - then) ** 2).sum() for now, then in pairs))))
    assert ways[0] > ways[1] > ways[2]


@pytest.mark.parametrize("importance", IMPORTANCE)
def test_every_importance_scores_alike(importance: str) -> None:
    for alone, cohort in both("bert", False, [(2, 0.0, 0.5, 50), (4, 0.2, 0.5, 50)], importance=importance):
        assert_equal(alone, cohort)


def test_training_lowers_the_loss_and_pruning_reaches_its_goal() -> None:
    base, blueprint = opened("bert", False)
    part = assignment(0, 4, blueprint.dense(), 0.5, steps=40)
    data = device_data(0, False, 4)
    own = DeviceData(lambda: cycle(data.probe), data.probe, 8)
    scores = np.zeros(blueprint.units, dtype=np.float32)
    update = train_device(
        DeviceContext(base, blueprint, task(False)), DeviceWork(part, adapter(base, blueprint, 3, 4), scores, own)
    )
    assert update.report.loss_after < 0.3 * update.report.loss_before
    assert update.report.structure.sparsity == pytest.approx(0.5, abs=0.03)
    assert update.report.importance > 0


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_factors_are_picked_in_one_piece_as_one_by_one(family: str) -> None:
    base, blueprint = opened(family, False)
    whole = adapter(base, blueprint, 3, 8)
    starts, ranks = [structure(blueprint, n, sparsity) for n, sparsity in enumerate((0.0, 0.2, 0.5))], [4, 8, 2]
    sent = Broadcast(whole, blueprint.dense(), starts, ranks)
    spread = attach_cohort(base.model, Members(sent, starts, ranks), AdapterSpec())
    stacked = attach_cohort(base.model, Members(list(sent), starts, ranks), AdapterSpec())
    for cohort in (spread, stacked):
        for one, other in zip(cohort.read(starts), cohort.read_low_rank(starts), strict=True):
            assert one.factors.keys() == other.factors.keys()
            assert one.head.keys() == other.head.keys()
            for ours, theirs in zip(one.tensors(), other.tensors(), strict=True):
                np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(spread.parameters(), stacked.parameters(), strict=True):
        assert torch.equal(ours, theirs)
