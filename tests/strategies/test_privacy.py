"""Privacy: norms are bounded, noise has its size, and the epsilon that is recorded is the one that is spent."""

import math
from dataclasses import replace

import numpy as np
import pytest
from aggregating import BLUEPRINT, RANK, global_adapter, keeps, make_update, tensors
from flwr.app import Array, RecordDict
from honest_fleet import BLUEPRINT as MODEL
from honest_fleet import DEVICES, WHOLE, honest, reply, validate
from house import tiny_job
from hypothesis import given
from hypothesis import strategies as st
from rounds import Evaluator, Memory

from slimfed.clients.adapter import Adapter
from slimfed.clients.messages.records import encode_results
from slimfed.clients.node.runtime import open_runtime
from slimfed.clients.privacy import clipped, delta_of, epsilon_of, localised, mean_shift
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.spec import PrivacySpec
from slimfed.clients.update import Assignment, Update
from slimfed.platform.fleet.clock import VirtualClock
from slimfed.platform.fleet.profiles import load_fleet
from slimfed.platform.job.compatibility import privacy_problems
from slimfed.platform.job.job import load_job
from slimfed.platform.server.assembly import new_fleet
from slimfed.strategies.checks.reply_validation import ValidationRules
from slimfed.strategies.coordinates.global_vector import GlobalVector
from slimfed.strategies.local_grid import LocalGrid
from slimfed.strategies.privacy import clipped_sum, planned_owners, release, spent
from slimfed.strategies.strategy import FedSlim

FULL = [1, 1, 1, 1, 1]
SAFE = ["bandit.name=random", "method.importance=random", "privacy.kind=central"]
CENTRAL = PrivacySpec(kind="central", clipping_norm=0.5, noise_multiplier=0.7)


def sent(update: Update) -> Adapter:
    structure = update.report.structure
    return narrow(global_adapter(), structure.blueprint.dense(), structure, update.report.rank)


def size(update: Update) -> float:
    pairs = zip(update.adapter.tensors(), sent(update).tensors(), strict=True)
    return math.sqrt(sum(float(np.square(now.astype(np.float64) - then).sum()) for now, then in pairs))


def of(update: Update) -> Assignment:
    """What a device was assigned that sends ``update``: its structure and rank were decided before the round."""
    report = update.report
    sparsity = report.structure.sparsity
    return Assignment(update.device, 1, report.rank, sparsity, 5, 1e-3, 1e-3, 1, False, report.structure)


def space() -> GlobalVector:
    return GlobalVector(global_adapter(), BLUEPRINT)


@given(st.integers(0, 99), st.integers(1, RANK), st.floats(1e-3, 1e3))
def test_no_update_is_longer_than_the_norm_and_a_short_one_stays_as_it_is(device, rank, norm) -> None:
    update = make_update(device, [1, 0, 0, 1, 1], rank, 5)
    safe, cut = clipped(update, sent(update), norm)
    assert size(safe) <= norm * (1 + 1e-5) + 1e-6, "up to the rounding of float32"
    assert cut == (size(update) > norm)
    if not cut:
        assert safe is update


scales = st.sampled_from([0.0, 1e-6, 1.0, 1e6, 1e30])
keeps_and_ranks = st.tuples(keeps, st.integers(1, RANK))


@st.composite
def neighbours(draw) -> tuple[list[Update], list[Update], list[Assignment]]:
    """A fleet, the same fleet with one device that sends something else or nothing, and the plan of both."""
    shapes = draw(st.lists(keeps_and_ranks, min_size=1, max_size=7))
    fleet = [make_update(device, *shape, 10, draw(scales)) for device, shape in enumerate(shapes)]
    odd, plan = draw(st.integers(0, len(fleet) - 1)), [of(update) for update in fleet]
    liar = make_update(odd, *shapes[odd], draw(st.integers(1, 2**29 - 1)), draw(scales))
    noise = np.random.default_rng(draw(st.integers(0, 99)))
    for tensor in liar.adapter.tensors():
        tensor *= noise.choice(np.array([-1, 0, 1, 1e3], np.float32), tensor.shape)
    others = [update for update in fleet if update.device != odd]
    return fleet, draw(st.sampled_from([others, sorted([*others, liar], key=lambda u: u.device)])), plan


@given(neighbours(), st.floats(1e-3, 1e3))
def test_one_device_moves_what_is_released_by_no_more_than_the_norm_whatever_it_sends(pair, norm) -> None:
    """An update that is sent, or not, or refused, moves the sum by the norm; another update in its place by two."""
    fleet, other, plan = pair
    one, two = (clipped_sum(space(), updates, norm) for updates in (fleet, other))
    steps = 1 if len(fleet) != len(other) else 2
    assert float((one.moves - two.moves).norm()) <= steps * norm * (1 + 1e-9)
    assert abs(one.within - two.within) <= steps * 0.5
    owners = planned_owners(space(), plan)
    assert float(owners.max()) == len(plan), "of the plan alone: the head belongs to all, whoever answers"
    expected = sum(space().owned(each.structure, each.rank).double() for each in plan)
    assert bool((owners == expected).all())


def test_no_check_of_one_device_s_update_depends_on_anothers() -> None:
    """Compared with the median, one device's size decided whether four others counted: it moved the sum by five."""
    rules = ValidationRules(compare=False)

    def sized(device: int, factor: float) -> Update:
        update = honest(device)[1]
        start = narrow(WHOLE, MODEL.dense(), update.report.structure, update.report.rank)
        for now, then in zip(update.adapter.tensors(), start.tensors(), strict=True):
            now[:] = then + np.float32(factor) * (now - then)
        return update

    def accepted(last: float) -> set[int]:
        """Three devices that move little, three that move much, and the last one: it is the median."""
        fleet = [sized(device, 1e-3 if device < 3 else 30.0 if device < 6 else last) for device in range(DEVICES)]
        found = validate([reply(update.device + 1, encode_results([update])) for update in fleet], rules)
        return {record.assignment.device for record in found.accepted}

    assert accepted(1e-3) == accepted(30.0) == accepted(1e4) == set(range(DEVICES))


def test_what_a_private_round_releases_depends_on_no_answer_but_the_clipped_sum() -> None:
    """Structures, ranks, scores and divisors of the next round: with a device, without it, and with its lies."""
    job = tiny_job(*SAFE, "method.target_sparsity=0.5")
    runtime, ends = open_runtime(job.task_spec()), []
    for change in (lambda _: None, lambda content: content.pop("update-2"), _inflated):
        fleet, recorder = new_fleet(runtime, job), Memory()
        settings = replace(job.strategy_settings(runtime.task, 1), real=False)
        FedSlim(settings, fleet, VirtualClock(load_fleet(job.fleet, 1), 1), recorder, Evaluator()).start(
            Changing(change)
        )
        assert [device.assignment.device for device in recorder.rounds[0].devices if device.status != "done"] in (
            [],
            [2],
        )
        ends.append((fleet, recorder))
    (whole, told), *rest = ends
    assert whole.structure.sparsity > 0.4
    for fleet, recorder in rest:
        assert np.array_equal(fleet.scores, whole.scores)
        assert fleet.structure == whole.structure
        assert [device.structure for device in fleet.devices] == [device.structure for device in whole.devices]
        for one, other in zip(recorder.rounds, told.rounds, strict=True):
            assert [d.assignment for d in one.devices] == [d.assignment for d in other.devices]
            assert one.aggregation_error is None


class Changing(LocalGrid):
    """A node in front of the server, which changes its replies."""

    def __init__(self, change) -> None:
        super().__init__(1)
        self.change = change

    def pull_messages(self, message_ids):
        replies = list(super().pull_messages(message_ids))
        for each in replies:
            if "update-2" in each.content:
                self.change(each.content)
        return replies


def _inflated(content: RecordDict) -> None:
    """All that device 2 may say: another count, a large update, scores of its own."""
    values = content["update-2"]["adapter"].numpy()
    content["update-2"]["adapter"] = Array(values + np.float32(1e3))
    scores = content["update-2"]["scores"].numpy()
    content["update-2"]["scores"] = Array((scores + 5) * (np.arange(len(scores)) % 2 == 0).astype(np.float32))
    content["metrics-2"]["examples"] = 2**28


def test_the_noise_of_a_mean_is_that_of_its_sum_over_the_planned_owners() -> None:
    """Empirically, per coordinate: multiplier * norm / owners; nothing where nobody owns it. One does not answer."""
    fleet = [make_update(0, FULL, RANK, 1), make_update(1, [1, 0, 1, 0, 0], 2, 1), make_update(2, FULL, 2, 1)]
    draw, plan = np.random.default_rng(3), [of(update) for update in fleet]
    made = [release(space(), fleet[:2], plan, CENTRAL, 0.5, draw).adapter for _ in range(400)]
    head = np.stack([each.head["head.weight"] for each in made])
    assert head.std(axis=0).mean() == pytest.approx(0.35 / 3, rel=0.05)
    lone = np.stack([each.factors["qk"].b[:, 2:] for each in made])
    assert lone.std(axis=0).mean() == pytest.approx(0.35, rel=0.05), "ranks that only one device has"
    few = release(space(), fleet[1:2], plan[1:2], CENTRAL, 0.5, draw).adapter
    assert np.array_equal(few.factors["qk"].b[:, 2:], global_adapter().factors["qk"].b[:, 2:])


def test_the_adaptive_norm_goes_where_half_of_the_updates_are_clipped() -> None:
    spec = CENTRAL.model_copy(update={"clipping": "adaptive"})
    fleet = [make_update(device, FULL, RANK, 1, scale=1 + device / 20) for device in range(40)]
    plan = [of(update) for update in fleet]
    norm, draw = 0.1, np.random.default_rng(4)
    for _ in range(200):
        norm = release(space(), fleet, plan, spec, norm, draw).next_norm
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


def test_a_method_that_tells_of_the_text_is_refused() -> None:
    assert privacy_problems(load_job(None, SAFE)) == []
    assert privacy_problems(load_job(None, [])) == []
    for change, words in {
        "bandit.name=s-ucb": 'bandit.name: must be "fixed" or "random"',
        "bandit.name=oracle": "bandit.name",
        "method.importance=lora-gradient": 'method.importance: must be "random"',
        "method.aggregation=median": 'method.aggregation: must be "coverage" or "fedavg"',
        "bandit.pacing=within": 'bandit.pacing: must be "off"',
        "method.adapter=sora": 'method.adapter: must be "lora"',
        "privacy.secure_aggregation=true": "SecAgg",
    }.items():
        [problem] = privacy_problems(load_job(None, [*SAFE, change]))
        assert words in problem
    [problem] = privacy_problems(load_job(None, [*SAFE, "bandit.name=fixed", "adapter.keep_ranks=0.9"]))
    assert "adapter.keep_ranks" in problem
