import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfed.clients.data.partition import partition
from slimfed.clients.data.split import TextSplit
from slimfed.clients.data.text import TextData
from slimfed.clients.errors import InputError
from slimfed.clients.spec import PartitionSpec

KINDS = ("iid", "dirichlet", "shards", "natural")


def text(rows: int, classes: int = 4, owners: int = 10, seed: int = 0) -> TextData:
    draw = np.random.default_rng(seed)
    owner = [f"o{n % owners}" for n in range(rows)]
    split = TextSplit([f"t{n}" for n in range(rows)], None, draw.integers(0, classes, rows), owner)
    return TextData(split, split, tuple(map(str, range(classes))))


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    rows=st.integers(20, 200),
    devices=st.integers(1, 10),
    alpha=st.sampled_from([0.01, 0.3, 10.0]),
    each=st.integers(1, 2),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_row_goes_to_one_device_and_none_is_empty(
    kind: str, rows: int, devices: int, alpha: float, each: int, seed: int
) -> None:
    data = text(rows, seed=seed % 7)
    spec = PartitionSpec(kind=kind, alpha=alpha, shards_per_device=each)
    parts = partition(data, spec, devices, seed)
    assert len(parts) == devices
    assert min(len(part) for part in parts) >= 1
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(rows))
    again = partition(data, spec, devices, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "shards"])
def test_the_seed_matters(kind: str) -> None:
    first, second = (partition(text(400), PartitionSpec(kind=kind), 8, seed) for seed in (1, 2))
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_iid_parts_are_equal_in_size_and_mixed() -> None:
    parts = partition(text(1003), PartitionSpec(), 10, 3)
    assert {len(part) for part in parts} == {100, 101}
    assert all(len(set(text(1003).train.label[part])) == 4 for part in parts)


def test_a_small_alpha_makes_devices_unlike() -> None:
    data = text(4000)

    def largest_share(alpha: float) -> float:
        parts = partition(data, PartitionSpec(kind="dirichlet", alpha=alpha), 20, 3)
        return float(np.mean([np.bincount(data.train.label[part]).max() / len(part) for part in parts]))

    assert largest_share(100.0) < 0.35
    assert largest_share(0.1) > 0.6


def test_shards_hold_few_classes() -> None:
    data = text(1000)
    parts = partition(data, PartitionSpec(kind="shards", shards_per_device=1), 20, 3)
    assert max(len(set(data.train.label[part])) for part in parts) <= 2


def test_natural_keeps_owners_whole() -> None:
    data = text(100, owners=10)
    for devices in (10, 4):
        parts = partition(data, PartitionSpec(kind="natural"), devices, 3)
        owners = [{data.train.owner[row] for row in part} for part in parts]
        assert sum(map(len, owners)) == 10


@pytest.mark.parametrize(
    ("spec", "devices", "words"),
    [
        (PartitionSpec(), 101, "fleet.devices = 101 is more than the 100 training examples"),
        (PartitionSpec(kind="natural", column="user"), 11, "fleet.devices = 11 is more than the 10 owners"),
        (PartitionSpec(kind="shards", shards_per_device=30), 4, "data.partition.shards_per_device = 30"),
    ],
)
def test_what_cannot_be_divided(spec: PartitionSpec, devices: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        partition(text(100), spec, devices, 0)


def test_causal_text_has_no_classes_to_divide_by() -> None:
    split = TextSplit(["a", "b"])
    with pytest.raises(InputError, match="valid are iid and natural"):
        partition(TextData(split, split, None), PartitionSpec(kind="dirichlet"), 2, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_devices(kind: str) -> None:
    parts = partition(text(30_000, owners=10_000), PartitionSpec(kind=kind), 10_000, 0)
    assert len(parts) == 10_000
    assert min(map(len, parts)) >= 1
