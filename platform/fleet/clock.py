"""The time of a device's round: computed from its profile (virtual), or measured (real devices)."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from slimfed.clients.seeds import derive
from slimfed.clients.update import Report, Workload
from slimfed.platform.fleet.profiles import DeviceProfile, Fleet, PowerMode
from slimfed.platform.job.sections import DisturbanceSpec
from slimfed.strategies.protocols import Completion

_CALM = DisturbanceSpec()


@dataclass(frozen=True)
class VirtualClock:
    """Completion times of a simulated fleet; implements ``strategies.protocols.Clock``.

    compute = max(FLOPs / rate, bytes moved / memory bandwidth) * jitter / speed of the power mode
    link = (latency + bits / link speed) * jitter
    energy = watts of the power mode * compute + watts of the link in use * link, then idle watts till the round's end
    Every draw comes from (seed, round, device) alone, so times do not depend on the order or number of questions.
    Stragglers compute longer, and a drop of bandwidth slows links, as the ``disturbance`` says.
    """

    fleet: Fleet
    seed: int
    disturbance: DisturbanceSpec = _CALM

    def completion(self, report: Report, bytes_down: int, bytes_up: int) -> Completion:
        """Completion of ``report.device`` in ``report.round``.

        A device that runs out of memory ends after its download; one that drops out ends after computing.
        """
        return self.completion_of(report.device, report.round, report.workload, bytes_down, bytes_up)

    def completion_of(self, device: int, round: int, workload: Workload, bytes_down: int, bytes_up: int) -> Completion:
        """Completion of a workload that was not computed, to predict a fleet's time."""
        profile = self.fleet.devices[device]
        draw = np.random.default_rng(derive(self.seed, "clock", round, device))
        compute_noise, down_noise, up_noise = (math.exp(sigma * draw.standard_normal()) for sigma in _sigmas(profile))
        dropped = bool(draw.random() < self.fleet.dropout)
        left = self.disturbance.bandwidth(round)
        download = _link_seconds(profile, bytes_down, left * profile.down_bits_per_second) * down_noise
        if workload.peak_memory_bytes > profile.memory_bytes:
            return _powered(Completion(download, 0.0, 0.0, out_of_memory=True), profile, None)
        mode = self.mode(device, round)
        compute = _compute_seconds(profile, workload) * compute_noise / mode.speed
        if device in self.stragglers:
            compute *= self.disturbance.straggler_factor
        if dropped:
            return _powered(Completion(download, compute, 0.0, dropped=True), profile, mode)
        upload = _link_seconds(profile, bytes_up, left * profile.up_bits_per_second) * up_noise
        return _powered(Completion(download, compute, upload), profile, mode)

    @cached_property
    def stragglers(self) -> frozenset[int]:
        """The devices that straggle in every round; a larger share only adds devices."""
        devices = len(self.fleet.devices)
        order = np.random.default_rng(derive(self.seed, "stragglers")).permutation(devices)
        return frozenset(order[: round(self.disturbance.stragglers * devices)].tolist())

    def mode(self, device: int, round: int) -> PowerMode:
        """The power mode of a device in a round; devices change at different rounds."""
        profile = self.fleet.devices[device]
        if len(profile.modes) == 1:
            return profile.modes[0]
        phase = derive(self.seed, "mode-phase", device) % profile.mode_rounds
        period = (round + phase) // profile.mode_rounds
        point = derive(self.seed, "mode", period, device) / 2**31
        bounds = np.cumsum([mode.probability for mode in profile.modes])
        return profile.modes[min(int(np.searchsorted(bounds, point, side="right")), len(profile.modes) - 1)]


@dataclass(frozen=True)
class MeasuredClock:
    """Real devices: the working seconds of the node, and the remaining seconds that the server waited.

    The server's clock measures the time, so a device cannot understate it, and differences between clocks have no
    effect. The link's time is divided in proportion to the bytes of both directions. Energy is not measured and None.
    """

    def completion(self, report: Report, bytes_down: int, bytes_up: int) -> Completion:
        """Completion of ``report.device`` in ``report.round``."""
        down = report.link_seconds * bytes_down / max(bytes_down + bytes_up, 1)
        return Completion(down, report.seconds, report.link_seconds - down)


def _sigmas(profile: DeviceProfile) -> tuple[float, float, float]:
    return profile.compute_jitter, profile.link_jitter, profile.link_jitter


def _compute_seconds(profile: DeviceProfile, workload: Workload) -> float:
    """At full power, without jitter: whichever of arithmetic and memory traffic takes longer."""
    return max(workload.flops / profile.rate, workload.traffic_bytes / profile.bandwidth)


def _powered(completion: Completion, profile: DeviceProfile, mode: PowerMode | None) -> Completion:
    """The completion with its energy, if the profile has the device's watts. ``mode``: None without computing."""
    power = profile.power
    if power is None:
        return completion
    computing = (mode.watts if mode else None) or power.compute
    linked = completion.download_seconds + completion.upload_seconds
    joules = computing * completion.compute_seconds + power.transmit * linked
    return replace(completion, joules=joules, waiting_watts=power.idle)


def _link_seconds(profile: DeviceProfile, count: int, bits_per_second: float) -> float:
    return profile.latency_seconds + 8 * count / bits_per_second
