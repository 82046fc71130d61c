"""Fleets: which device has which hardware. Profiles are TOML files: in ``builtin/``, of plug-ins, or the user's own."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from slimfed.clients.messages.tags import LONGEST_TAG, MOST_TAGS, is_tag
from slimfed.clients.registry import Registry
from slimfed.clients.spec import Section
from slimfed.platform.job.field_errors import validate
from slimfed.platform.job.overrides import read_toml

if TYPE_CHECKING:
    from slimfed.platform.job.sections import FleetSpec

_BUILT_IN = Path(__file__).parent / "builtin"

Positive = Annotated[float, Field(gt=0)]


def _tag(value: str) -> str:
    if not is_tag(value):
        raise ValueError(f"must be a word of at most {LONGEST_TAG} letters, digits and - _ .")
    return value


Tag = Annotated[str, AfterValidator(_tag)]


class PowerMode(Section):
    """A power mode: compute runs at ``speed`` times the full one, and the mode is drawn with ``probability``.

    ``watts``: power of the device while it computes in this mode; default: that of the class.
    """

    name: str
    speed: float = Field(gt=0)
    probability: float = Field(ge=0, le=1)
    watts: Positive | None = None


class DeviceClass(Section):
    """One kind of device. Units are in the names; ``sources`` gives the source of a field's value.

    ``efficiency``: share of the peak that training reaches. ``memory_gib``: memory for training. The jitters are the
    sigma of a lognormal factor with median 1 drawn every round; ``link_spread`` is that of a factor drawn once for each
    device. A power mode is kept for ``mode_rounds`` rounds. The watts are those of the whole device while it waits,
    computes at full power, and uses its link; without them its energy is unknown. ``tags``: words that
    ``fleet.where`` of a job can ask for.
    """

    name: str = Field(min_length=1, max_length=60)
    count: int = Field(1, ge=1)
    precision: Literal["fp32", "fp16"] = "fp32"
    fp32_gflops: Positive
    fp16_gflops: Positive
    efficiency: float = Field(gt=0, le=1)
    memory_gib: Positive
    bandwidth_gb_s: Positive
    down_mbit_s: Positive
    up_mbit_s: Positive
    latency_ms: float = Field(ge=0)
    compute_jitter: float = Field(0.0, ge=0, le=2)
    link_jitter: float = Field(0.0, ge=0, le=2)
    link_spread: float = Field(0.0, ge=0, le=2)
    idle_watts: Positive | None = None
    compute_watts: Positive | None = None
    transmit_watts: Positive | None = None
    mode_rounds: int = Field(1, ge=1)
    modes: tuple[PowerMode, ...] = (PowerMode(name="full", speed=1.0, probability=1.0),)
    tags: tuple[Tag, ...] = Field((), max_length=MOST_TAGS)
    sources: dict[str, str] = Field({})

    @field_validator("modes")
    @classmethod
    def _probabilities_sum_to_one(cls, modes: tuple[PowerMode, ...]) -> tuple[PowerMode, ...]:
        total = sum(mode.probability for mode in modes)
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            raise ValueError(f"the probabilities of the modes must sum to 1, they sum to {total:g}")
        return modes

    @field_validator("sources")
    @classmethod
    def _sources_name_fields(cls, sources: dict[str, str]) -> dict[str, str]:
        strangers = [name for name in sources if name not in cls.model_fields]
        if strangers:
            raise ValueError(f"there is no field {strangers[0]!r}; valid: {', '.join(cls.model_fields)}")
        return sources

    @model_validator(mode="after")
    def _watts_are_complete(self) -> "DeviceClass":
        watts = {name: getattr(self, name) for name in ("idle_watts", "compute_watts", "transmit_watts")}
        missing = [name for name, value in watts.items() if value is None]
        if missing and (len(missing) < len(watts) or any(mode.watts for mode in self.modes)):
            raise ValueError(f"{missing[0]} is missing: give all of {', '.join(watts)}, or no watts at all")
        return self


class FleetProfile(Section):
    """A mix of device classes. The file writes each class as one ``[[class]]`` table."""

    description: str = ""
    classes: tuple[DeviceClass, ...] = Field(alias="class", min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> "FleetProfile":
        names = [each.name for each in self.classes]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"two classes have the name {twice[0]!r}; every class needs its own")
        return self


@dataclass(frozen=True)
class Power:
    """Power of one device in watts: waiting, computing at full power, using its link."""

    idle: float
    compute: float
    transmit: float


@dataclass(frozen=True)
class DeviceProfile:
    """The hardware of one device in SI units; ``rate`` is the FLOP/s that training reaches at full power.

    ``power`` is None if the profile has no watts.
    """

    device: int
    profile: str
    rate: float
    memory_bytes: float
    bandwidth: float
    down_bits_per_second: float
    up_bits_per_second: float
    latency_seconds: float
    compute_jitter: float
    link_jitter: float
    mode_rounds: int
    modes: tuple[PowerMode, ...]
    power: Power | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fleet:
    """All devices of a run, by device id. ``dropout``: probability that a device's update is lost in a round."""

    profile: str
    devices: tuple[DeviceProfile, ...]
    dropout: float = 0.0

    def counts(self) -> dict[str, int]:
        """Devices of each class."""
        names = [device.profile for device in self.devices]
        return {name: names.count(name) for name in dict.fromkeys(names)}


@dataclass(frozen=True)
class ProfileFile:
    """A TOML file that holds a fleet profile.

    A new profile is one file in ``builtin/``, or an entry point ``slimfed.profiles`` of another package that names an
    object of this class.
    """

    path: Path

    @property
    def summary(self) -> str:
        """The file's description. Raises ``InputError`` if the profile cannot be used."""
        return self.read(str(self.path)).description

    def read(self, name: str) -> FleetProfile:
        """The profile. Raises ``InputError`` that names the field at fault, and the profile by ``name``."""
        return validate(FleetProfile, read_toml(self.path, "fleet profile"), where=f"fleet profile {name!r}: ")


PROFILES = Registry[ProfileFile](
    "fleet.profile", "slimfed.profiles", ProfileFile, otherwise=", or a TOML file of profiles"
)
"""Fleet profiles by name."""

for _path in _BUILT_IN.glob("*.toml"):
    PROFILES.register(_path.stem)(ProfileFile(_path))


def load_profile(name: str) -> FleetProfile:
    """The profile called ``name``, or that of a TOML file. Raises ``InputError`` that names the field at fault."""
    file = ProfileFile(Path(name).expanduser()) if name.endswith(".toml") else PROFILES[name]
    return file.read(name)


def load_fleet(spec: "FleetSpec", seed: int) -> Fleet:
    """The devices of a run. The mix is repeated proportionally (largest remainder) and interleaved.

    Raises ``InputError`` if the profile cannot be used.
    """
    profile = load_profile(spec.profile)
    counts = apportion([each.count for each in profile.classes], spec.devices)
    order = interleave(counts)
    devices = tuple(
        _device(number, profile.classes[kind], seed, varied=spec.jitter) for number, kind in enumerate(order)
    )
    return Fleet(spec.profile, devices, spec.dropout)


def apportion(shares: list[int], total: int) -> list[int]:
    """``total`` divided in proportion to ``shares``: whole numbers, largest remainders first, ties to the first."""
    exact = [share * total for share in shares]
    whole, base = sum(shares), [value // sum(shares) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda index: (-(exact[index] % whole), index))
    for index in by_remainder[: total - sum(base)]:
        base[index] += 1
    return base


def interleave(counts: list[int]) -> list[int]:
    """Each class ``index`` repeated ``counts[index]`` times, arranged so that every prefix has about the same mix."""
    places = [((turn + 0.5) / count, kind) for kind, count in enumerate(counts) for turn in range(count)]
    return [kind for _, kind in sorted(places)]


def _device(number: int, kind: DeviceClass, seed: int, *, varied: bool) -> DeviceProfile:
    import numpy as np  # imported here, so that listing profiles is quick

    from slimfed.clients.seeds import derive

    spread = kind.link_spread if varied else 0.0
    link = math.exp(spread * np.random.default_rng(derive(seed, "link", number)).standard_normal())
    peak = kind.fp32_gflops if kind.precision == "fp32" else kind.fp16_gflops
    return DeviceProfile(
        device=number,
        profile=kind.name,
        rate=peak * 1e9 * kind.efficiency,
        memory_bytes=kind.memory_gib * 2**30,
        bandwidth=kind.bandwidth_gb_s * 1e9,
        down_bits_per_second=kind.down_mbit_s * 1e6 * link,
        up_bits_per_second=kind.up_mbit_s * 1e6 * link,
        latency_seconds=kind.latency_ms / 1e3,
        compute_jitter=kind.compute_jitter if varied else 0.0,
        link_jitter=kind.link_jitter if varied else 0.0,
        mode_rounds=kind.mode_rounds,
        modes=kind.modes if varied else (PowerMode(name="full", speed=1.0, probability=1.0),),
        power=_power(kind),
        tags=kind.tags,
    )


def _power(kind: DeviceClass) -> Power | None:
    if kind.idle_watts is None or kind.compute_watts is None or kind.transmit_watts is None:
        return None
    return Power(kind.idle_watts, kind.compute_watts, kind.transmit_watts)
