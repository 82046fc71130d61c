"""The aggregation's error on a sample of modules, against the exact one."""

from dataclasses import replace

import numpy as np
import pytest
from aggregating import make_update

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.structure import Block, Blueprint, Cut, Structure
from slimfed.clients.update import Update
from slimfed.strategies.aggregation import AGGREGATIONS
from slimfed.strategies.aggregation.error import MODULES, aggregation_error, restricted, sampled_modules

LAYERS = 30
WIDE = Blueprint(
    "wide",
    tuple(
        Block(f"ffn{n}", n, "ffn", 20, 120, (Cut(f"up{n}", "out", 3), Cut(f"down{n}", "in", 3))) for n in range(LAYERS)
    ),
)


def adapter(draw: np.random.Generator, base: Adapter | None = None) -> Adapter:
    """Factors of 60 modules, or ``base`` moved by a module-dependent step."""
    factors = {}
    for n in range(LAYERS):
        for name, shape in ((f"up{n}", (4, 200, 60)), (f"down{n}", (4, 60, 200))):
            rank, columns, rows = shape
            a, b = draw.normal(size=(rank, columns)), draw.normal(size=(rows, rank))
            if base is not None:
                size = 0.1 * (1 + n % 5)
                a, b = base.factors[name].a + size * a, base.factors[name].b + size * b
            factors[name] = Factors(a.astype(np.float32), b.astype(np.float32))
    return Adapter(factors, {})


def a_round() -> tuple[Adapter, list[Update], Adapter]:
    draw = np.random.default_rng(7)
    before, template = adapter(draw), make_update(0, [1] * 5, 1, 1)
    fields = {"structure": Structure(WIDE, np.ones(WIDE.units, dtype=bool)), "rank": 4}
    updates = [
        replace(template.with_report(**fields, device=n, examples=n + 1), adapter=adapter(draw, before))
        for n in range(6)
    ]
    return before, updates, AGGREGATIONS["coverage"](before, updates)


def exact(before: Adapter, updates: list[Update], after: Adapter) -> float:
    off = moved = 0.0
    total = sum(update.report.examples for update in updates)
    for name in before.factors:
        products = [
            update.report.examples * (u.b.astype(float) @ u.a)
            for update in updates
            for u in [update.adapter.factors[name]]
        ]
        mean = sum(products) / total
        old, new = (each.factors[name].b.astype(float) @ each.factors[name].a for each in (before, after))
        off, moved = off + np.square(new - mean).sum(), moved + np.square(mean - old).sum()
    return float(np.sqrt(off / moved))


def test_samples_are_near_the_exact_error_by_their_own_deviation() -> None:
    before, updates, after = a_round()
    truth = exact(before, updates, after)
    whole = aggregation_error(before, after, updates, 1.0)
    assert whole.value == pytest.approx(truth, rel=0.1)
    draws = [sampled_modules(before, np.random.default_rng(seed)) for seed in range(60)]
    found = [aggregation_error(before, after, updates, 1.0, modules) for modules in draws]
    assert all(len(modules) == MODULES for modules in draws)
    assert len(set(draws)) > 50
    scores = np.array([(each.value - truth) / each.deviation for each in found])
    assert np.mean(np.abs(scores) < 2) > 0.8, "the deviation is about that of the estimates"
    assert np.std([each.value for each in found]) > 0.3 * np.mean([each.deviation for each in found]), "and not larger"
    assert np.mean([each.value for each in found]) == pytest.approx(truth, rel=0.05)


def test_parts_of_updates_give_the_same_estimate() -> None:
    before, updates, after = a_round()
    modules = sampled_modules(before, np.random.default_rng(1))
    parts = [replace(update, adapter=restricted(update.adapter, modules)) for update in updates]
    assert aggregation_error(before, after, parts, 1.0, modules) == aggregation_error(
        before, after, updates, 1.0, modules
    )
