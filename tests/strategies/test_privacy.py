"""Privacy: norms are bounded, noise has its size, and the epsilon that is recorded is the one that is spent."""

import math

import numpy as np
import pytest
from aggregating import RANK, global_adapter, make_update, tensors
from hypothesis import given
from hypothesis import strategies as st

from slimfed.clients.adapter import Adapter
from slimfed.clients.privacy import clipped, delta_of, epsilon_of, localised, mean_shift
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.spec import PrivacySpec
from slimfed.clients.update import Update
from slimfed.platform.job.compatibility import privacy_problems
from slimfed.platform.job.job import load_job
from slimfed.strategies.aggregation import AGGREGATIONS
from slimfed.strategies.privacy import add_noise, clip, spent

FULL = [1, 1, 1, 1, 1]
CENTRAL = PrivacySpec(kind="central", clipping_norm=0.5, noise_multiplier=0.7)


def sent(update: Update) -> Adapter:
    structure = update.report.structure
    return narrow(global_adapter(), structure.blueprint.dense(), structure, update.report.rank)


def size(update: Update) -> float:
    pairs = zip(update.adapter.tensors(), sent(update).tensors(), strict=True)
    return math.sqrt(sum(float(np.square(now.astype(np.float64) - then).sum()) for now, then in pairs))


@given(st.integers(0, 99), st.integers(1, RANK), st.floats(1e-3, 1e3))
def test_no_update_is_longer_than_the_norm_and_a_short_one_stays_as_it_is(device, rank, norm) -> None:
    update = make_update(device, [1, 0, 0, 1, 1], rank, 5)
    safe, cut = clipped(update, sent(update), norm)
    assert size(safe) <= norm * (1 + 1e-5) + 1e-6, "up to the rounding of float32"
    assert cut == (size(update) > norm)
    if not cut:
        assert safe is update


def test_one_device_moves_the_sum_by_no_more_than_the_norm_whatever_it_claims() -> None:
    """Add a device, or take it away: the sum of what counts changes by the clipping norm at most."""
    fleet = [make_update(device, FULL, RANK, 10) for device in range(6)]
    fleet[3] = fleet[3].with_report(examples=2**28)
    safe = clip(fleet, global_adapter(), CENTRAL, 0.5, np.random.default_rng(1)).updates
    assert {update.report.examples for update in safe} == {1}
    assert all(size(update) <= 0.5 * (1 + 1e-5) for update in safe)


def test_the_noise_of_a_mean_is_that_of_its_sum_over_the_owners() -> None:
    """Empirically, per coordinate: multiplier * norm / owners; nothing where nobody owns it."""
    before = global_adapter()
    fleet = [make_update(0, FULL, RANK, 1), make_update(1, [1, 0, 1, 0, 0], 2, 1), make_update(2, FULL, 2, 1)]
    draw, mean = np.random.default_rng(3), AGGREGATIONS["coverage"](before, fleet)
    noise = [add_noise(mean, fleet, CENTRAL, 0.5, draw) for _ in range(400)]
    head = np.stack([each.head["head.weight"] - mean.head["head.weight"] for each in noise])
    assert head.std() == pytest.approx(0.35 / 3, rel=0.05)
    lone = np.stack([each.factors["qk"].b[:, 2:] - mean.factors["qk"].b[:, 2:] for each in noise])
    assert lone.std() == pytest.approx(0.35, rel=0.05), "ranks that only one device has"
    few = add_noise(mean, fleet[1:2], CENTRAL, 0.5, draw)
    assert np.array_equal(few.factors["qk"].b[:, 2:], mean.factors["qk"].b[:, 2:])


def test_the_adaptive_norm_goes_where_half_of_the_updates_are_clipped() -> None:
    spec = CENTRAL.model_copy(update={"clipping": "adaptive"})
    fleet = [make_update(device, FULL, RANK, 1, scale=1 + device / 20) for device in range(40)]
    norm, draw = 0.1, np.random.default_rng(4)
    for _ in range(200):
        norm = clip(fleet, global_adapter(), spec, norm, draw).next_norm
    assert norm == pytest.approx(float(np.median([size(update) for update in fleet])), rel=0.15)


@pytest.mark.parametrize(("shift", "epsilon"), [(1.0, 4.3762), (0.5, 1.9931)])
def test_epsilon_of_one_gaussian(shift: float, epsilon: float) -> None:
    """At delta 1e-5, against the integral of the privacy loss (numerically, from its definition)."""
    x = np.linspace(-40, 40, 2_000_001)
    p, q = (np.exp(-((x - m) ** 2) / 2) / math.sqrt(2 * math.pi) for m in (shift, 0.0))
    at = epsilon_of(shift, 1e-5)
    assert np.trapezoid(np.maximum(p - math.exp(at) * q, 0), x) == pytest.approx(1e-5, rel=1e-3)
    assert at == pytest.approx(epsilon, rel=0.02)


@given(st.floats(0.01, 20), st.floats(1e-9, 0.1))
def test_shift_and_epsilon_belong_together(epsilon: float, delta: float) -> None:
    shift = mean_shift(epsilon, delta)
    assert delta_of(epsilon, shift) <= delta * (1 + 1e-6)
    assert epsilon_of(shift, delta) == pytest.approx(epsilon, rel=1e-3, abs=1e-5)


def test_more_rounds_and_less_noise_spend_more() -> None:
    values = [spent(CENTRAL, rounds) for rounds in (1, 2, 10, 100)]
    assert values == sorted(values)
    assert spent(CENTRAL.model_copy(update={"noise_multiplier": 2.0}), 10) < spent(CENTRAL, 10)
    assert spent(PrivacySpec(), 10) is None
    local = PrivacySpec(kind="local", epsilon=2.0)
    assert spent(local, 1) == pytest.approx(2.0, rel=1e-3)
    assert 2.0 < spent(local, 4) < 8.0, "composed exactly, not added up"


def test_a_local_update_carries_noise_and_no_number_of_the_text() -> None:
    spec = PrivacySpec(kind="local", clipping_norm=0.5, epsilon=4.0)
    update = make_update(0, FULL, RANK, 123)
    made = [localised(update, sent(update), spec, np.random.default_rng(seed)) for seed in range(300)]
    told = {(r.examples, r.loss_before, r.loss_after, r.importance, r.evaluation) for r in (u.report for u in made)}
    assert told == {(1, 0, 0, 0, None)}
    values = np.stack([tensors(u.adapter)["head.weight"] for u in made])
    expected = 2 * 0.5 / mean_shift(4.0, spec.delta)
    assert values.std(axis=0).mean() == pytest.approx(expected, rel=0.05)


SAFE = ["bandit.name=random", "method.importance=random", "privacy.kind=central"]


def test_a_method_that_tells_of_the_text_is_refused() -> None:
    assert privacy_problems(load_job(None, SAFE)) == []
    assert privacy_problems(load_job(None, [])) == []
    for change, words in {
        "bandit.name=s-ucb": 'bandit.name: must be "fixed" or "random"',
        "bandit.name=oracle": "bandit.name",
        "method.importance=lora-gradient": 'method.importance: must be "random"',
        "method.aggregation=median": 'method.aggregation: must be "coverage" or "fedavg"',
        "method.adapter=sora": 'method.adapter: must be "lora"',
        "privacy.secure_aggregation=true": "SecAgg",
    }.items():
        [problem] = privacy_problems(load_job(None, [*SAFE, change]))
        assert words in problem
    [problem] = privacy_problems(load_job(None, [*SAFE, "bandit.name=fixed", "adapter.keep_ranks=0.9"]))
    assert "adapter.keep_ranks" in problem
