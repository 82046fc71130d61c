"""Selection never passes the asked sparsity, never brings a unit back, and comes as near as a head allows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from slimfed.clients.selection import kept_units, select
from slimfed.clients.structure import Block, Blueprint, Cut

sizes = st.tuples(st.integers(1, 16), st.integers(1, 400), st.integers(1, 300), st.integers(1, 40))
sparsities = st.floats(0, 0.99)
scopes = st.sampled_from(["layer", "global"])


@st.composite
def blueprints(draw: st.DrawFn) -> Blueprint:
    heads, head, channels, channel = draw(st.tuples(*[st.integers(1, n) for n in (8, 300, 60, 30)]))
    blocks: list[Block] = []
    for layer in range(draw(st.integers(1, 3))):
        blocks.append(Block(f"{layer}.a", layer, "attention", heads, head, (Cut(f"{layer}.q", "out", 1),)))
        blocks.append(Block(f"{layer}.f", layer, "ffn", channels, channel, (Cut(f"{layer}.u", "out", 1),)))
    return Blueprint("toy", tuple(blocks))


def draw_scores(blueprint: Blueprint, seed: int) -> np.ndarray:
    """Scores with many ties."""
    return np.random.default_rng(seed).integers(0, 5, blueprint.units).astype(np.float32)


@given(sizes, sparsities, sparsities)
def test_counts_fall_as_sparsity_rises_and_keep_one(size: tuple[int, int, int, int], one: float, other: float) -> None:
    low, high = sorted((one, other))
    before, after = kept_units(*size, low), kept_units(*size, high)
    assert all(b >= a >= 1 for b, a in zip(before, after, strict=True))


@given(sizes, sparsities)
def test_counts_never_pass_the_budget(size: tuple[int, int, int, int], sparsity: float) -> None:
    heads, head, channels, channel = size
    kept_heads, kept_channels = kept_units(*size, sparsity)
    gone = (heads - kept_heads) * head + (channels - kept_channels) * channel
    assert gone <= sparsity * (heads * head + channels * channel) * (1 + 1e-6) + 1e-6


@given(st.integers(2, 16), st.data())
def test_whole_heads_are_met_exactly(heads: int, data: st.DataObject) -> None:
    gone = data.draw(st.integers(0, heads - 1))
    assert kept_units(heads, 64, 12 * heads, 5, gone / heads) == (heads - gone, 12 * (heads - gone))


@given(blueprints(), st.integers(0, 99), sparsities, sparsities, scopes)
def test_select_is_nested_bounded_and_repeatable(blueprint, seed, one, other, scope) -> None:
    low, high = sorted((one, other))
    scores = draw_scores(blueprint, seed)
    first = select(blueprint.dense(), scores, low, scope)
    second = select(first, draw_scores(blueprint, seed + 1), high, scope)
    assert first.sparsity <= low + 1e-6
    assert second.sparsity <= high + 1e-6
    assert second.within(first)
    assert select(first, scores, low, scope) is first
    assert select(second, scores, 0.0, scope) is second


@given(blueprints(), st.integers(0, 99), sparsities)
def test_the_lowest_scores_go_within_a_layer(blueprint, seed, sparsity) -> None:
    scores = draw_scores(blueprint, seed)
    structure = select(blueprint.dense(), scores, sparsity, "layer")
    for index in range(len(blueprint.blocks)):
        keep, own = structure.keep[blueprint.span(index)], scores[blueprint.span(index)]
        if not keep.all():
            assert own[~keep].max() <= np.sort(own[keep])[:1].max()
