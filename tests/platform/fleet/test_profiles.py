import tomllib
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from slimfed.clients.errors import InputError
from slimfed.platform.fleet.profiles import (
    PROFILES,
    DeviceClass,
    Power,
    apportion,
    interleave,
    load_fleet,
    load_profile,
)
from slimfed.platform.job.sections import FleetSpec

CLASS = {
    "name": "box",
    "fp32_gflops": 100.0,
    "fp16_gflops": 200.0,
    "efficiency": 0.5,
    "memory_gib": 2.0,
    "bandwidth_gb_s": 10.0,
    "down_mbit_s": 8.0,
    "up_mbit_s": 4.0,
    "latency_ms": 10.0,
}
NOT_NUMBERS = {"name", "sources"}


def profile_file(folder: Path, *classes: dict) -> str:
    path = folder / "mine.toml"
    path.write_text(tomli_w.dumps({"class": list(classes)}))
    return str(path)


def test_the_demo_fleet_is_fedspine_s() -> None:
    counts = load_fleet(FleetSpec(profile="jetson-80", devices=80), seed=1).counts()
    assert counts == {"jetson-tx2": 30, "jetson-xavier-nx": 40, "jetson-agx-xavier": 10}


@pytest.mark.parametrize("name", PROFILES)
def test_every_number_of_a_built_in_profile_has_a_source(name: str) -> None:
    text = tomllib.loads((Path(__file__).parents[3] / "platform" / "fleet" / "builtin" / f"{name}.toml").read_text())
    for written in text["class"]:
        assert set(written["sources"]) == set(written) - NOT_NUMBERS
        assert all(source.strip() for source in written["sources"].values())
    assert load_profile(name).description


@pytest.mark.parametrize(
    ("profile", "kind", "low", "high"),
    [("phones-mixed", "jetson-nano", 11, 14), ("phones-mixed", "snapdragon-778g", 160, 180)],
)
def test_efficiency_meets_what_edgeflowertune_measured(profile: str, kind: str, low: float, high: float) -> None:
    """Gemma-3-270M, LoRA, batch 8, length 64: forward and backward through 268 M weights for each of 512 tokens."""
    flops = 2 * 2 * 268e6 * 8 * 64
    (found,) = [each for each in load_profile(profile).classes if each.name == kind]
    assert low < flops / (found.fp32_gflops * 1e9 * found.efficiency) < high


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(1, 500))
def test_apportioning_is_fair(shares: list[int], total: int) -> None:
    counts = apportion(shares, total)
    assert sum(counts) == total
    for share, count in zip(shares, counts, strict=True):
        assert abs(count - total * share / sum(shares)) < 1
    assert apportion(shares, sum(shares)) == shares


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_every_prefix_is_mixed(counts: list[int]) -> None:
    order = interleave(counts)
    assert [order.count(kind) for kind in range(len(counts))] == counts
    for length in range(len(order) + 1):
        for kind, count in enumerate(counts):
            assert abs(order[:length].count(kind) - count * length / max(len(order), 1)) <= len(counts)


def test_units_are_si(tmp_path: Path) -> None:
    fleet = load_fleet(FleetSpec(profile=profile_file(tmp_path, CLASS), devices=2, dropout=0.1), seed=3)
    device = fleet.devices[1]
    assert (device.device, device.profile, device.rate, device.memory_bytes) == (1, "box", 50e9, 2 * 2**30)
    assert (device.down_bits_per_second, device.up_bits_per_second, device.latency_seconds) == (8e6, 4e6, 0.01)
    assert fleet.dropout == 0.1
    half = profile_file(tmp_path, {**CLASS, "precision": "fp16"})
    assert load_fleet(FleetSpec(profile=half, devices=1), seed=3).devices[0].rate == 100e9


def test_links_differ_by_seed_and_not_without_jitter() -> None:
    def speeds(seed: int, jitter: bool) -> list[float]:
        return [d.up_bits_per_second for d in load_fleet(FleetSpec(devices=20, jitter=jitter), seed).devices]

    assert speeds(1, True) == speeds(1, True)
    assert speeds(1, True) != speeds(2, True)
    assert set(speeds(1, False)) == {10e6}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"efficiency": 1.5}, r"class\[0\].efficiency = 1.5: must be at most 1"),
        ({"memory_gb": 1}, r"class\[0\].memory_gb = 1: unknown field; did you mean class\[0\].memory_gib\?$"),
        ({"precision": "fp8"}, r"class\[0\].precision = 'fp8': must be one of 'fp32' or 'fp16'"),
        ({"modes": [{"name": "a", "speed": 1.0, "probability": 0.5}]}, "must sum to 1, they sum to 0.5"),
        ({"sources": {"colour": "x"}}, "there is no field 'colour'"),
        ({"up_mbit_s": float("inf")}, r"class\[0\].up_mbit_s = inf: must be a finite number"),
    ],
)
def test_own_profiles_are_checked(tmp_path: Path, change: dict, text: str) -> None:
    with pytest.raises(InputError, match=text) as refusal:
        load_profile(profile_file(tmp_path, {**CLASS, **change}))
    assert "mine.toml" in str(refusal.value)


def test_own_profiles_need_every_number_and_names_that_differ(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"class\[0\].up_mbit_s: is missing"):
        load_profile(profile_file(tmp_path, {k: v for k, v in CLASS.items() if k != "up_mbit_s"}))
    with pytest.raises(InputError, match="two classes have the name 'box'"):
        load_profile(profile_file(tmp_path, CLASS, CLASS))
    with pytest.raises(InputError, match="needs at least 1"):
        load_profile(profile_file(tmp_path))


def test_an_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"fleet\.profile = 'jetson-8': must be one of 'jetson-80', 'phones-mixed'"):
        load_profile("jetson-8")
    with pytest.raises(InputError, match="there is no such file"):
        load_profile("nowhere.toml")


def test_defaults_are_a_steady_device() -> None:
    device = DeviceClass(**CLASS)
    assert (device.compute_jitter, device.link_jitter, device.modes[0].speed) == (0.0, 0.0, 1.0)


def test_watts_are_given_together_or_not_at_all(tmp_path: Path) -> None:
    watts = {"idle_watts": 1.0, "compute_watts": 9.0, "transmit_watts": 3.0}
    fleet = load_fleet(FleetSpec(profile=profile_file(tmp_path, CLASS | watts), devices=1), seed=1)
    assert fleet.devices[0].power == Power(1.0, 9.0, 3.0)
    assert load_fleet(FleetSpec(profile=profile_file(tmp_path, CLASS), devices=1), seed=1).devices[0].power is None
    with pytest.raises(InputError, match="transmit_watts is missing"):
        load_profile(profile_file(tmp_path, CLASS | {"idle_watts": 1.0, "compute_watts": 9.0}))
    modes = [{"name": "full", "speed": 1.0, "probability": 1.0, "watts": 4.0}]
    with pytest.raises(InputError, match="idle_watts is missing"):
        load_profile(profile_file(tmp_path, CLASS | {"modes": modes}))
