"""What a device claims of itself, its texts and its units, does not let it decide the average or the pruning alone."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import RecordDict
from honest_fleet import BLUEPRINT, DEVICES, HONEST, WHOLE, honest, reply, validate
from hypothesis import given
from hypothesis import strategies as st

from slimfed.clients.messages.records import encode_results
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.update import Update
from slimfed.strategies.accumulation import RoundAccumulator
from slimfed.strategies.aggregation import AGGREGATIONS
from slimfed.strategies.checks.claims import CAP, largest_weight
from slimfed.strategies.checks.reply_validation import ValidationRules

LIAR = 2
KNOWN = ValidationRules(examples=dict.fromkeys(range(DEVICES), 10))


def sent_by(update: Update, change: Callable[[Update], Update] = lambda update: update) -> RecordDict:
    return encode_results([change(update)])


def liar(update: Update) -> Update:
    """Flipped, five times as large, and with the largest number of examples that a message may have."""
    start = narrow(WHOLE, BLUEPRINT.dense(), update.report.structure, update.report.rank)
    for now, then in zip(update.adapter.tensors(), start.tensors(), strict=True):
        now[:] = then - np.float32(5) * (now - then)
    return update.with_report(examples=2**29 - 1)


def fleet(change: Callable[[Update], Update], rules: ValidationRules | None = None):
    pairs = [honest(device) for device in range(DEVICES)]
    return validate(
        [reply(n, sent_by(u, change) if u.device == LIAR else sent_by(u)) for n, (_, u) in enumerate(pairs, 1)], rules
    )


def test_the_server_knows_the_examples_of_a_text_that_it_has_divided() -> None:
    found = fleet(lambda update: update.with_report(examples=11), KNOWN)
    [event] = found.events
    assert (event.kind, event.device) == ("examples", LIAR)
    assert "counts 11 examples, its part of the text has 10" in event.cause
    assert len(found.accepted) == DEVICES - 1
    assert len(fleet(lambda update: update, KNOWN).accepted) == DEVICES


def test_a_claim_counts_up_to_a_multiple_of_the_median_and_is_told() -> None:
    found = fleet(lambda update: update.with_report(examples=2**29 - 1))
    [event] = found.events
    assert (event.kind, event.device) == ("weight-capped", LIAR)
    assert event.cause == f"claims {2**29 - 1} examples, counts as {10 * CAP}: {CAP} times the median of the fleet"
    [report] = [each for each in found.reports if each.device == LIAR]
    assert report.examples == 10 * CAP, "the figure on record is the one that counted"
    weighted = [u.with_report(examples=10 * CAP) if u.device == LIAR else u for _, u in HONEST]
    expected = AGGREGATIONS["coverage"](WHOLE, weighted).tensors()
    assert all(np.array_equal(a, b) for a, b in zip(found.accumulated.aggregate().tensors(), expected, strict=True))


@given(st.lists(st.integers(1, 2**29 - 1), min_size=1, max_size=30), st.data())
def test_fewer_than_half_cannot_raise_the_largest_weight_beyond_what_the_others_claim(claims, data) -> None:
    liars = data.draw(st.integers(0, (len(claims) - 1) // 2))
    told = dict(enumerate(claims)) | dict.fromkeys(range(liars), 2**29 - 1)
    assert largest_weight(told) <= CAP * max(claims[liars:])


def test_no_honest_fleet_within_the_factor_is_capped() -> None:
    assert largest_weight({}) == 0
    assert largest_weight({0: 10, 1: 2**29 - 1}) == 10 * CAP, "of two, the smaller one decides"


def test_multi_krum_leaves_the_liar_out() -> None:
    """Flipped and five times as large: the average stays that of the others, to the bit."""
    updates = fleet(liar).accumulated.kept_updates()
    found = AGGREGATIONS["multi-krum"](WHOLE, updates).tensors()
    others = [update for update in updates if update.device != LIAR]
    assert all(
        np.array_equal(a, b) for a, b in zip(found, AGGREGATIONS["coverage"](WHOLE, others).tensors(), strict=True)
    )


@pytest.mark.parametrize(("robust", "decides"), [(True, False), (False, True)])
def test_a_fifth_of_the_devices_does_not_decide_what_all_prune(robust: bool, decides: bool) -> None:
    """Two of ten name the ten least important units the most important ones, within the size that is accepted."""
    units, draw = BLUEPRINT.units, np.random.default_rng(1)
    truth = draw.random(units) + 0.1
    accumulator = RoundAccumulator(AGGREGATIONS["coverage"].start(WHOLE), units, (), robust=robust)
    least = np.argsort(truth)[:10]
    template = honest(0)[1]
    for device in range(10):
        scores = (truth * (1 + 0.05 * draw.standard_normal(units))).astype(np.float32)
        if device in (3, 8):
            scores = np.zeros(units, np.float32)
            scores[least] = 20.0
        accumulator.add(replace(template.with_report(device=device), scores=scores))
    total, count = accumulator.scores()
    assert count == 10
    lowest = set(np.argsort(total)[:10].tolist())
    assert (len(lowest & set(least.tolist())) < 5) is decides
