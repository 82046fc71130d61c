"""Which simulated devices may be asked: those whose profile fits ``fleet.where``."""

from slimfed.clients.errors import InputError
from slimfed.platform.fleet.profiles import DeviceProfile, Fleet
from slimfed.strategies.where import Facts, parse_where


def facts(profile: DeviceProfile) -> Facts:
    """What a filter can ask of a simulated device (``strategies.where.SIMULATED``), links with their own spread."""
    return {
        "device": float(profile.device),
        "class": profile.profile,
        "gflops": profile.rate / 1e9,
        "memory_gib": profile.memory_bytes / 2**30,
        "bandwidth_gb_s": profile.bandwidth / 1e9,
        "down_mbit_s": profile.down_bits_per_second / 1e6,
        "up_mbit_s": profile.up_bits_per_second / 1e6,
        "latency_ms": profile.latency_seconds * 1e3,
        "tags": profile.tags,
    }


def admitted(fleet: Fleet, where: str) -> tuple[int, ...] | None:
    """The devices that ``where`` admits, ascending; None if it is empty. Raises ``InputError`` if it admits none."""
    if not where:
        return None
    wanted = parse_where(where)
    found = tuple(profile.device for profile in fleet.devices if wanted.admits(facts(profile)))
    if not found:
        raise InputError(
            f"fleet.where = {where!r}: fits none of the {len(fleet.devices)} devices of {fleet.profile!r}; `slimfed "
            "fleet` shows their figures"
        )
    return found
