from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from round_records import report

from slimfed.clients.update import Workload
from slimfed.platform.fleet.clock import MeasuredClock, VirtualClock
from slimfed.platform.fleet.profiles import Fleet, Power, load_fleet
from slimfed.platform.job.sections import DisturbanceSpec, FleetSpec
from slimfed.strategies.protocols import Clock

STEADY = load_fleet(FleetSpec(profile="uniform", devices=3), seed=1)
MIXED = load_fleet(FleetSpec(devices=16), seed=1)


def test_both_are_clocks() -> None:
    clocks: list[Clock] = [VirtualClock(STEADY, 1), MeasuredClock()]
    assert all(clock.completion(report(1), 10, 10).seconds > 0 for clock in clocks)


def test_compute_is_the_longer_of_arithmetic_and_traffic() -> None:
    clock, device = VirtualClock(STEADY, 1), STEADY.devices[0]
    arithmetic = clock.completion(report(0, workload=Workload(device.rate * 2, device.bandwidth, 1)), 0, 0)
    traffic = clock.completion(report(0, workload=Workload(device.rate * 2, device.bandwidth * 5, 1)), 0, 0)
    assert arithmetic.compute_seconds == pytest.approx(2)
    assert traffic.compute_seconds == pytest.approx(5)


def test_links_carry_bits_after_a_latency() -> None:
    completion = VirtualClock(STEADY, 1).completion(report(0), 2_500_000, 1_250_000)
    assert completion.download_seconds == pytest.approx(0.02 + 1)
    assert completion.upload_seconds == pytest.approx(0.02 + 1)
    total = completion.download_seconds + completion.compute_seconds + completion.upload_seconds
    assert completion.seconds == pytest.approx(total)


def test_what_does_not_fit_the_memory_fails_without_time_spent() -> None:
    memory = STEADY.devices[0].memory_bytes
    clock = VirtualClock(STEADY, 1)
    assert not clock.completion(report(0, workload=Workload(1e9, 1e9, memory)), 0, 0).out_of_memory
    failed = clock.completion(report(0, workload=Workload(1e9, 1e9, memory + 1)), 0, 0)
    assert failed.out_of_memory
    assert (failed.compute_seconds, failed.upload_seconds) == (0.0, 0.0)


@settings(max_examples=25)
@given(st.permutations([(device, round) for device in range(6) for round in range(1, 5)]), st.integers(0, 2**31 - 1))
def test_times_do_not_depend_on_the_order_of_questions(order: list[tuple[int, int]], seed: int) -> None:
    def times(pairs: list[tuple[int, int]]) -> dict:
        clock = VirtualClock(replace(MIXED, dropout=0.3), seed)
        return {(d, r): clock.completion(report(d, r), 1000, 1000) for d, r in pairs}

    assert times(order) == times(sorted(order))


def test_draws_differ_between_devices_rounds_and_seeds() -> None:
    times = {
        VirtualClock(MIXED, seed).completion(report(device, round), 10**6, 10**6).seconds
        for seed in (1, 2)
        for device in range(16)
        for round in range(1, 6)
    }
    assert len(times) == 2 * 16 * 5


@given(st.floats(1.0, 10.0), st.integers(0, 15), st.integers(1, 50))
def test_more_work_never_takes_less(factor: float, device: int, round: int) -> None:
    clock, work = VirtualClock(MIXED, 3), Workload(1e10, 1e9, 1)
    more = Workload(work.flops * factor, work.traffic_bytes * factor, 1)
    before, after = (clock.completion_of(device, round, each, 0, 0).seconds for each in (work, more))
    assert after >= before


def test_dropouts_come_as_often_as_asked() -> None:
    clock = VirtualClock(replace(STEADY, dropout=0.25), 5)
    lost = [clock.completion(report(0, round), 0, 0).dropped for round in range(1, 2001)]
    assert 0.2 < np.mean(lost) < 0.3
    assert not any(VirtualClock(STEADY, 5).completion(report(0, round), 0, 0).dropped for round in range(1, 200))


def test_jitter_has_median_one() -> None:
    profile = replace(STEADY.devices[0], compute_jitter=0.3)
    clock = VirtualClock(Fleet("one", (profile,)), 5)
    steady = VirtualClock(STEADY, 5).completion(report(0), 0, 0).compute_seconds
    drawn = [clock.completion(report(0, round), 0, 0).compute_seconds / steady for round in range(1, 2001)]
    assert np.median(drawn) == pytest.approx(1.0, abs=0.03)
    assert np.std(np.log(drawn)) == pytest.approx(0.3, abs=0.03)


def test_modes_last_and_come_as_often_as_the_profile_says() -> None:
    clock = VirtualClock(MIXED, 5)
    device = next(d for d in MIXED.devices if d.profile == "jetson-tx2")
    modes = [clock.mode(device.device, round).name for round in range(1, 20_001)]
    for mode in device.modes:
        assert modes.count(mode.name) / len(modes) == pytest.approx(mode.probability, abs=0.05)
    changes = sum(a != b for a, b in pairwise(modes))
    assert changes <= len(modes) / device.mode_rounds


def test_a_slower_mode_takes_longer() -> None:
    steady = STEADY.devices[0]
    half = steady.modes[0].model_copy(update={"speed": 0.5})
    clock = VirtualClock(Fleet("one", (replace(steady, modes=(half,)),)), 1)
    full = VirtualClock(STEADY, 1).completion(report(0), 0, 0).compute_seconds
    assert clock.completion(report(0), 0, 0).compute_seconds == pytest.approx(2 * full)


def test_no_jitter_is_no_variation() -> None:
    fleet = load_fleet(FleetSpec(devices=16, jitter=False), seed=1)
    clock = VirtualClock(fleet, 1)
    assert len({clock.completion(report(0, round), 1000, 1000) for round in range(1, 50)}) == 1


def test_measured_time_is_the_node_s() -> None:
    assert MeasuredClock().completion(report(0), 10**9, 10**9).seconds == 0.25


POWERED = replace(STEADY.devices[0], power=Power(idle=2.0, compute=10.0, transmit=4.0))


def test_energy_is_power_times_time() -> None:
    completion = VirtualClock(Fleet("one", (POWERED,)), 1).completion(report(0), 10**6, 10**6)
    linked = completion.download_seconds + completion.upload_seconds
    assert completion.joules == pytest.approx(10 * completion.compute_seconds + 4 * linked)
    assert completion.joules_in(completion.seconds) == completion.joules
    assert completion.joules_in(completion.seconds + 5) == pytest.approx((completion.joules or 0) + 2 * 5)


def test_a_power_mode_has_its_own_watts() -> None:
    saving = POWERED.modes[0].model_copy(update={"speed": 0.5, "watts": 3.0})
    completion = VirtualClock(Fleet("one", (replace(POWERED, modes=(saving,)),)), 1).completion(report(0), 0, 0)
    linked = completion.download_seconds + completion.upload_seconds
    assert completion.joules == pytest.approx(3 * completion.compute_seconds + 4 * linked)


def test_what_was_in_vain_costs_energy_too() -> None:
    lost = VirtualClock(Fleet("one", (POWERED,), dropout=0.999), 1).completion(report(0), 0, 0)
    assert lost.dropped
    assert (lost.joules or 0) > 10 * lost.compute_seconds
    large = Workload(1.0, 1.0, POWERED.memory_bytes + 1)
    full = VirtualClock(Fleet("one", (POWERED,)), 1).completion(report(0, workload=large), 0, 0)
    assert full.joules == pytest.approx(4 * full.download_seconds)


def test_energy_that_nobody_knows_is_not_made_up() -> None:
    for clock in (VirtualClock(Fleet("one", (replace(POWERED, power=None),)), 1), MeasuredClock()):
        assert clock.completion(report(0), 0, 0).joules_in(100.0) is None


def test_stragglers_are_a_seeded_share_and_compute_longer() -> None:
    def clock(share: float, seed: int = 1) -> VirtualClock:
        return VirtualClock(MIXED, seed, DisturbanceSpec(stragglers=share, straggler_factor=3.0))

    assert len(clock(0.25).stragglers) == 4
    assert clock(0.25).stragglers < clock(0.5).stragglers
    assert clock(0.25).stragglers != clock(0.25, seed=2).stragglers
    for device in range(16):
        calm, disturbed = (each.completion(report(device), 10, 10) for each in (clock(0.0), clock(0.25)))
        factor = 3.0 if device in clock(0.25).stragglers else 1.0
        assert disturbed.compute_seconds == pytest.approx(factor * calm.compute_seconds)
        assert (disturbed.download_seconds, disturbed.upload_seconds) == (calm.download_seconds, calm.upload_seconds)


def test_bandwidth_drops_in_its_span_of_rounds_alone() -> None:
    spec = DisturbanceSpec(bandwidth_factor=0.25, bandwidth_from=2, bandwidth_until=3)
    for number in (1, 2, 3, 4):
        calm = VirtualClock(STEADY, 1).completion(report(0, number), 10**6, 10**6)
        disturbed = VirtualClock(STEADY, 1, spec).completion(report(0, number), 10**6, 10**6)
        factor = 4 if number in (2, 3) else 1
        assert disturbed.upload_seconds - 0.02 == pytest.approx(factor * (calm.upload_seconds - 0.02))
        assert disturbed.download_seconds - 0.02 == pytest.approx(factor * (calm.download_seconds - 0.02))
        assert disturbed.compute_seconds == calm.compute_seconds
