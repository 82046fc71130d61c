"""Layer shares: the budget is met within a unit, bounds hold, and equal weights give equal layers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import build

from slimfed.clients.allocation import ALLOCATIONS
from slimfed.clients.allocation.choosing import select_allocated
from slimfed.clients.allocation.counts import kept_counts, kept_shares
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.linear import weight_of
from slimfed.clients.pruning.selection import select
from slimfed.clients.spec import PruningSpec
from slimfed.clients.structure import Block, Blueprint, Cut, Structure


def blueprint(blocks: list[tuple[int, int]]) -> Blueprint:
    """Layers of attention and FFN blocks, each of so many units of so many parameters."""
    made = []
    for place, (units, parameters) in enumerate(blocks):
        kind = "ffn" if place % 2 else "attention"
        made.append(Block(f"b{place}", place // 2, kind, units, parameters, (Cut(f"m{place}", "in", 1),)))
    return Blueprint("made-up", tuple(made))


BLOCKS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 3000)), min_size=2, max_size=10)
WEIGHTS = st.lists(st.floats(1e-3, 1e3), min_size=10, max_size=10)


@settings(max_examples=300, deadline=None)
@given(BLOCKS, WEIGHTS, st.floats(0, 0.99), st.floats(0, 0.99))
def test_the_budget_is_met_within_a_unit_as_far_as_the_bounds_allow(
    blocks: list[tuple[int, int]], weights: list[float], sparsity: float, cap: float
) -> None:
    made = blueprint(blocks)
    units = np.array([block.units for block in made.blocks])
    each = np.array([block.unit_parameters for block in made.blocks])
    counts = kept_counts(made, np.array(weights[: len(blocks)]), sparsity, cap, units)
    least = np.minimum(units, np.maximum(1, np.ceil((1 - cap) * units - 1e-9)))
    assert (counts >= least).all()
    assert (counts <= units).all()
    budget, kept = (1 - sparsity) * float(units @ each), float(counts @ each)
    assert kept >= budget * (1 - 1e-6)
    spare = each[counts > least]
    assert not spare.size or kept - budget < spare.min() * (1 + 1e-6), "no unit is kept that the budget does not need"


@settings(max_examples=100, deadline=None)
@given(WEIGHTS, st.lists(st.floats(1, 1e6), min_size=10, max_size=10), st.floats(0.05, 1))
def test_shares_follow_the_weights_between_their_bounds(weights: list[float], sizes: list[float], kept: float) -> None:
    q, n = np.array(weights), np.array(sizes)
    least, most = np.full(10, 0.05), np.ones(10)
    shares = kept_shares(q, n, least, most, kept * n.sum())
    assert shares @ n == pytest.approx(kept * n.sum(), rel=1e-9)
    free = (shares > least + 1e-9) & (shares < most - 1e-9)
    levels = shares[free] / q[free]
    assert not free.any() or levels == pytest.approx(levels[0])
    assert not free.any() or (q[shares == 1] >= q[free].max(initial=0) * (1 - 1e-9)).all()


@pytest.mark.parametrize("scope", ["layer", "balanced", "global", "uniform"])
def test_equal_is_what_the_scope_selects(scope: str) -> None:
    made = discover(build("bert"))
    scores = np.random.default_rng(1).random(made.units)
    for sparsity in (0.0, 0.3, 0.5, 0.8):
        pruning = PruningSpec(scope=scope, target_sparsity=0.8)
        found = select_allocated(made.dense(), scores, sparsity, pruning)
        assert found == select(made.dense(), scores, sparsity, scope, 0.8)


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2", "modernbert"])
def test_erk_counts_the_rows_and_columns_of_the_model(family: str) -> None:
    model = build(family)
    made = discover(model)
    found = ALLOCATIONS["erk"].weights(made, None, 0.5)
    for block, weight in zip(made.blocks, found, strict=True):
        shapes = []
        for name in dict.fromkeys(cut.module for cut in block.cuts):
            rows, columns = weight_of(model.get_submodule(name)).shape
            parts = max(len(cut.starts) for cut in block.cuts if cut.module == name)
            shapes += [(rows // parts, columns)] * parts
        assert weight == pytest.approx(sum(o + i for o, i in shapes) / sum(o * i for o, i in shapes))
    assert len(set(np.round(found, 12))) <= 2, "one density of attention, one of FFNs"


def test_erk_of_minilm_s_shapes_gives_attention_1_6_times_the_share_of_its_ffns() -> None:
    width, ffn = 384, 1536
    attention = (*(Cut(name, "out", 32) for name in "qkv"), Cut("o", "in", 32))
    made = Blueprint(
        "bert",
        (
            Block("a", 0, "attention", 12, 4 * 32 * width + 3 * 32, attention),
            Block("f", 0, "ffn", ffn, 2 * width + 1, (Cut("up", "out", 1), Cut("down", "in", 1))),
        ),
    )
    first, second = ALLOCATIONS["erk"].weights(made, None, 0.5)
    assert first / second == pytest.approx(1.6)


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.floats(0.05, 1.0))
def test_cfsp_keeps_more_of_what_turns_the_stream_further_and_no_block_whole(angles: list[float], kept: float) -> None:
    made = blueprint([(6, 100), (40, 7)] * 2)
    weights = ALLOCATIONS["cfsp"].weights(made, np.array([50.0, *(50 * angle for angle in angles)]), kept)
    assert (weights > 0).all()
    order = np.argsort(angles)
    assert (np.diff(weights[order]) >= -1e-12).all()
    sizes = np.array([block.units * block.unit_parameters for block in made.blocks])
    shares = kept * weights / np.average(weights, weights=sizes)
    assert shares @ sizes == pytest.approx(kept * sizes.sum())
    assert shares.max() <= 1 + 1e-9


def test_cfsp_says_what_its_paper_s_release_does_before_shares_are_bounded() -> None:
    made = blueprint([(4, 10)] * 4)
    angles = np.array([0.20, 0.22, 0.25, 0.21])
    raised = 1 / (1 + np.exp(-13.1072 * (angles - angles.mean())))
    found = ALLOCATIONS["cfsp"].weights(made, np.array([1000.0, *(1000 * angles)]), 0.3)
    assert found == pytest.approx(raised)


@pytest.mark.parametrize("allocation", ["erk", "cfsp"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_structure_on_its_way_to_the_target_only_loses_units_and_ends_there(family: str, allocation: str) -> None:
    made = discover(build(family))
    draw = np.random.default_rng(2)
    measured = np.concatenate([[100.0], 100 * draw.random(len(made.blocks))])
    pruning = PruningSpec(allocation=allocation, target_sparsity=0.6, structure="shared", schedule="cubic")
    structure, way = made.dense(), [0.0, 0.1, 0.25, 0.31, 0.45, 0.58, 0.6]
    for sparsity in way:
        scores = draw.random(made.units)  # of another round, so that others would be kept
        found = select_allocated(structure, scores, sparsity, pruning, measured)
        assert found.within(structure)
        assert found.sparsity <= sparsity + 1e-9
        structure = found
    assert structure == select_allocated(structure, scores, 0.6, pruning, measured)
    assert 0.6 - structure.sparsity <= made.parameters.max() / made.parameters.sum()
    at_once = select_allocated(made.dense(), scores, 0.6, pruning, measured)
    assert _counts(at_once) == _counts(structure), "the way there does not matter"


@pytest.mark.parametrize("allocation", ["erk", "cfsp"])
def test_a_model_that_begins_pruned_keeps_what_it_has(allocation: str) -> None:
    made = discover(build("llama"))
    start = select(made.dense(), np.random.default_rng(0).random(made.units), 0.5, "global")
    measured = np.concatenate([[100.0], 100 * np.random.default_rng(2).random(len(made.blocks))])
    pruning = PruningSpec(allocation=allocation, target_sparsity=0.6, structure="shared", schedule="cubic")
    found = select_allocated(start, np.random.default_rng(3).random(made.units), 0.6, pruning, measured)
    assert found.within(start)
    assert 0.6 - found.sparsity <= made.parameters.max() / made.parameters.sum()


@pytest.mark.parametrize("allocation", ["erk", "cfsp"])
def test_the_units_that_go_are_those_of_the_lowest_score_in_their_block(allocation: str) -> None:
    made = discover(build("bert"))
    scores = np.random.default_rng(5).random(made.units)
    measured = np.concatenate([[1.0], np.linspace(0.1, 0.3, len(made.blocks))])
    pruning = PruningSpec(allocation=allocation, structure="shared", schedule="cubic")
    found = select_allocated(made.dense(), scores, 0.5, pruning, measured)
    for index in range(len(made.blocks)):
        span = made.span(index)
        kept, of = found.keep[span], scores[span]
        assert kept.all() or of[kept].min() > of[~kept].max()


def test_no_block_loses_more_than_the_cap() -> None:
    made = blueprint([(10, 100), (100, 10)] * 2)
    structure = made.dense()
    measured = np.array([1.0, 0.0, 1.0, 1.0, 1.0])
    pruning = PruningSpec(
        allocation="cfsp", allocation_cap=0.7, structure="shared", schedule="cubic", target_sparsity=0.5
    )
    found = select_allocated(structure, np.zeros(made.units), 0.5, pruning, measured)
    assert min(_shares(found)) >= 0.3
    further = select_allocated(structure, np.zeros(made.units), 0.9, pruning, measured)
    assert _shares(further) == [0.3] * 4, "90% cannot be reached"


def _counts(structure: Structure) -> list[int]:
    return [len(structure.kept(index)) for index in range(len(structure.blueprint.blocks))]


def _shares(structure: Structure) -> list[float]:
    return [count / block.units for count, block in zip(_counts(structure), structure.blueprint.blocks, strict=True)]
