"""What adapters bring beside factors travels unchanged, and every corruption of it is caught and named."""

from dataclasses import replace

import numpy as np
import pytest
from training import adapter, assignment, begun, device_data, narrowed, opened, structure, task

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.messages.records import Orders, decode_orders, decode_results, encode_orders, encode_results
from slimfed.clients.training.single_device import train_device
from slimfed.clients.training.work import DeviceContext, DeviceWork
from slimfed.clients.update import Assignment, Update
from slimfed.strategies.checks.update_checks import find_unfit

BASE, BLUEPRINT = opened("bert", False)
KINDS = [kind for kind in ADAPTERS if kind != "lora"]


def round_of(kind: str, first: bool) -> tuple[Adapter, Assignment, Update]:
    """What was sent, what was asked, and what came back; ``first``: in the run's first round."""
    plain = adapter(BASE, BLUEPRINT, 0, 4)
    sent = ADAPTERS[kind].begin(plain, BLUEPRINT, 0) if first else begun(kind, plain, BLUEPRINT, 0)
    start = BLUEPRINT.dense() if first else structure(BLUEPRINT, 1, 0.4)
    part = assignment(0, 2, start, start.sparsity, steps=2)
    cut = narrowed(sent, start, 2)
    scores = np.zeros(BLUEPRINT.units, np.float32)
    update = train_device(
        DeviceContext(BASE, BLUEPRINT, task(False, adapter=kind)),
        DeviceWork(part, cut, scores, device_data(0, False, 8)),
    )
    return sent, part, replace(update, adapter=ADAPTERS[kind].upload(update.adapter))


def same(one: Adapter, other: Adapter) -> None:
    assert list(one.deltas) == list(other.deltas)
    for a, b in zip(one.tensors(), other.tensors(), strict=True):
        np.testing.assert_array_equal(a, b)
    for name, delta in one.deltas.items():
        assert delta.shape == other.deltas[name].shape
        for part in ("indices", "levels"):
            np.testing.assert_array_equal(getattr(delta, part), getattr(other.deltas[name], part))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [True, False])
def test_honest_rounds_travel_unchanged_and_pass(kind: str, first: bool) -> None:
    sent, part, update = round_of(kind, first)
    [back] = decode_results(encode_results([update]), BLUEPRINT)
    assert isinstance(back, Update)
    same(back.adapter, update.adapter)
    assert not find_unfit([back], {0: part}, sent)
    orders = Orders(task(False, adapter=kind), sent, BLUEPRINT.dense(), np.zeros(BLUEPRINT.units, np.float32), (part,))
    same(decode_orders(encode_orders(orders), BLUEPRINT).adapter, sent)


def spoil(update: Update, field: str, **changes) -> Update:
    """The first entry of a field of the update's adapter, changed."""
    parts = dict(getattr(update.adapter, field))
    name = next(iter(parts))
    parts[name] = replace(parts[name], **{key: change(parts[name]) for key, change in changes.items()})
    return replace(update, adapter=replace(update.adapter, **{field: parts}))


CASES = [
    ("sora", False, "factors", {"gate": lambda f: None}, "names"),
    ("sora", False, "factors", {"gate": lambda f: f.gate[:-1]}, "shape"),
    ("sora", False, "factors", {"gate": lambda f: f.gate * np.float32(np.nan)}, "not-finite"),
    ("sora", False, "factors", {"gate": lambda f: -np.abs(f.gate) - np.float32(1)}, "not-finite"),
    ("sparse", False, "deltas", {"values": lambda d: d.values[:-1]}, "shape"),
    ("sparse", False, "deltas", {"values": lambda d: d.values.astype(np.float64)}, "shape"),
    ("sparse", False, "deltas", {"values": lambda d: d.values + np.float32(np.inf)}, "not-finite"),
    ("sparse", False, "deltas", {"indices": lambda d: np.arange(d.values.size, dtype=np.int32)}, "names"),
    ("sparse", True, "deltas", {"indices": lambda d: None}, "shape"),
    ("sparse", True, "deltas", {"indices": lambda d: d.indices[::-1]}, "shape"),
    ("sparse", True, "deltas", {"indices": lambda d: d.indices + np.int32(d.shape[0] * d.shape[1])}, "shape"),
    ("sparse", True, "deltas", {"shape": lambda d: (1, 1)}, "shape"),
    ("sparse", True, "deltas", {"values": lambda d: -d.values}, "not-finite"),
    ("sparse", True, "deltas", {"values": lambda d: d.values * np.float32(np.nan)}, "not-finite"),
]


@pytest.mark.parametrize(("kind", "first", "field", "changes", "fault"), CASES)
def test_what_does_not_fit_is_refused_by_name(kind: str, first: bool, field: str, changes: dict, fault: str) -> None:
    sent, part, update = round_of(kind, first)
    [unfit] = find_unfit([spoil(update, field, **changes)], {0: part}, sent)
    assert unfit.finding.kind == fault
    assert unfit.finding.cause
    assert unfit.finding.remedy


def test_more_proposals_than_the_rank_pays_for_are_refused() -> None:
    sent, part, update = round_of("sparse", True)
    [unfit] = find_unfit([update.with_report(rank=1)], {0: replace(part, rank=1)}, sent)
    assert "at most" in unfit.finding.cause


def test_a_missing_sparse_module_is_refused() -> None:
    sent, part, update = round_of("sparse", False)
    rest = dict(list(update.adapter.deltas.items())[1:])
    [unfit] = find_unfit([replace(update, adapter=replace(update.adapter, deltas=rest))], {0: part}, sent)
    assert unfit.finding.kind == "names"
