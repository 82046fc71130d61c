"""The sections of the job file that the server and the launcher read, and all sections together.

The sections that a device reads are in ``clients/spec.py``.
"""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, field_validator, model_validator

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.importance import IMPORTANCE
from slimfed.clients.plain_text import clean
from slimfed.clients.registry import Registry
from slimfed.clients.spec import (
    AdapterOptions,
    CalibrationSpec,
    DataSpec,
    Fraction,
    GenerationSpec,
    MessageSpec,
    ModelSpec,
    PrivacySpec,
    PruningOptions,
    Section,
    TrainingSpec,
)
from slimfed.platform.job.presets import PRESETS
from slimfed.platform.trackers import TRACKERS
from slimfed.strategies.aggregation import AGGREGATIONS
from slimfed.strategies.bandits.spec import BanditSpec
from slimfed.strategies.selection import SELECTORS, Participation
from slimfed.strategies.server.spec import ServerSpec
from slimfed.strategies.where import parse_where


def _known(registry: Registry[Any]) -> AfterValidator:
    """A check that a field names a method that can be used."""

    def check(name: str) -> str:
        problem = registry.problem(name)
        if problem is not None:
            raise ValueError(problem)
        return name

    return AfterValidator(check)


def _auto_or_count(value: Any) -> int | str:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError('must be "auto" or a whole number of at least 1')


AutoCount = Annotated[int | Literal["auto"], PlainValidator(_auto_or_count)]


def _plain(name: str) -> str:
    """A name without characters that are not printed. Raises ``ValueError`` if none is left."""
    plain = clean(name, 200)
    if not plain:
        raise ValueError("has no character that can be shown")
    return plain


RunName = Annotated[str, AfterValidator(_plain)]


def _amount(value: Any) -> float | int | str:
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    if isinstance(value, float) and 0 < value <= 1:
        return "all" if value == 1 else value
    raise ValueError(
        'must be "all", a share above 0 and below 1 such as 0.1, or a whole number of devices (1 means one device, 1.0 '
        "all)"
    )


Amount = Annotated[float | int | Literal["all"], PlainValidator(_amount)]


def _readable(text: str) -> str:
    if text:
        parse_where(text)
    return text


def _availability(given: str) -> str:
    if given not in ("always", "daily") and not given.endswith(".csv"):
        raise ValueError("must be always, daily, or a CSV file with the columns device, from and until")
    return given


class FleetSpec(Section):
    """The devices, who takes part in a round, and how their time is measured."""

    profile: str = Field("jetson-80", description="name of a built-in fleet, or a TOML file of profiles")
    devices: int = Field(80, ge=1, description="number of devices; the profile's mix is repeated proportionally")
    participation: Amount = Field(
        "all",
        description="devices that take part in a round: a share of those that where admits, such as 0.1, a whole "
        "number, or all. With fewer available the round goes on with those",
    )
    selection: Annotated[str, _known(SELECTORS)] = Field(
        "random", description="name of a selection, by which these devices are chosen"
    )
    exploration: float = Field(
        0.2,
        ge=0.0,
        le=1.0,
        description="fast-first: share of the places for devices that were not asked for longest; oort: least share "
        "for devices that have never answered",
    )
    candidates: float = Field(
        2.0,
        ge=1.0,
        description="power-of-choice: devices that are drawn, as a multiple of those that are chosen of them",
    )
    availability: Annotated[str, AfterValidator(_availability)] = Field(
        "always",
        description="when simulated devices are available: always; daily: eight hours a day from an evening hour of "
        "their own; or a CSV file with the columns device, from, until in virtual seconds. A device that is available "
        "when a round begins finishes it; if none is, the clock moves on to the next opening",
    )
    where: Annotated[str, AfterValidator(_readable)] = Field(
        "",
        description="devices that may be asked at all, by what their profile or their node tells, as in memory_gib >= "
        '8 and "lab" in tags; empty: all',
    )
    dropout: Fraction = Field(0.0, description="probability that a device's update is lost in a round")
    jitter: bool = Field(True, description="false: no random variation of computing, links and power modes")
    clock: Literal["virtual", "measured"] = Field(
        "virtual", description="virtual: times from the profile; measured: wall seconds (real devices)"
    )

    @property
    def wanted(self) -> Participation:
        """How many devices a round asks, and by which selection."""
        return Participation(self.participation, self.selection, self.exploration, self.candidates)

    @property
    def participants(self) -> int:
        """Devices that a round asks at most, as if all were available and ``where`` admitted all."""
        return min(self.devices, self.wanted.count(self.devices))


class DisturbanceSpec(Section):
    """Disturbances of a simulated fleet, to test the robustness of a method.

    The virtual clock applies them; real devices are not disturbed. Dropouts are set by ``fleet.dropout``.
    """

    stragglers: float = Field(
        0.0, ge=0.0, le=1.0, description="share of the devices that are stragglers, chosen by the seed"
    )
    straggler_factor: float = Field(
        4.0, ge=1.0, description="factor on the computing time of a straggler in every round"
    )
    bandwidth_factor: float = Field(
        1.0,
        gt=0.0,
        le=1000.0,
        description="factor on the speed of every link, from bandwidth_from to bandwidth_until; above 1: faster links",
    )
    bandwidth_from: int = Field(1, ge=1, description="first round with bandwidth_factor")
    bandwidth_until: int | None = Field(
        None, ge=1, description="last round with bandwidth_factor; default: the last round of the run"
    )

    @model_validator(mode="after")
    def _span_is_in_order(self) -> "DisturbanceSpec":
        if self.bandwidth_until is not None and self.bandwidth_until < self.bandwidth_from:
            raise ValueError(
                f"disturbance.bandwidth_until = {self.bandwidth_until}: must not be before "
                f"disturbance.bandwidth_from ({self.bandwidth_from})"
            )
        return self

    @property
    def active(self) -> bool:
        """True if stragglers or bandwidth are disturbed."""
        return self.stragglers > 0 or self.bandwidth_factor != 1

    def bandwidth(self, round: int) -> float:
        """Factor on the speed of every link in ``round``, above 0."""
        last = math.inf if self.bandwidth_until is None else self.bandwidth_until
        return self.bandwidth_factor if self.bandwidth_from <= round <= last else 1.0


class MethodSpec(Section):
    """The method. ``name`` is a preset, which sets defaults of other fields; every field can be set in the job."""

    name: Annotated[str, _known(PRESETS)] = Field(
        "slimfed", description="name of a preset; `slimfed methods` lists them"
    )
    adapter: Annotated[str, _known(ADAPTERS)] = Field(
        "lora", description="name of an adapter: the parameters that a device trains beside the frozen base"
    )
    target_sparsity: Fraction = Field(0.5, description="share of the prunable parameters to remove; 0: no pruning")
    importance: Annotated[str, _known(IMPORTANCE)] = Field(
        "lora-gradient", description="name of an importance criterion, by which units are scored"
    )
    aggregation: Annotated[str, _known(AGGREGATIONS)] = Field(
        "coverage", description="name of an aggregation, by which updates are averaged"
    )


class EvaluationSpec(Section):
    """What is measured on the test split. After the last round everything is measured."""

    every: int = Field(1, ge=1, description="rounds from one evaluation to the next")
    examples: int = Field(
        0,
        ge=0,
        description="test examples for the global model before the last round, a seeded sample, the same in every "
        "round and proportional by label: figures of these rounds are estimates; 0: all. After the last round: all",
    )
    devices: int = Field(
        8, ge=0, description="devices whose own models are evaluated, a seeded sample; after the last round: all"
    )
    device_examples: int = Field(
        500,
        ge=0,
        description="test examples for devices' own models, a seeded sample, in every round; 0: all",
    )
    generate: GenerationSpec = GenerationSpec()


class DeadlineSpec(Section):
    """Limits on waiting, on missing updates, and on the size of messages."""

    reply_seconds: float = Field(600.0, gt=0, description="wall seconds to wait for nodes and for their replies")
    straggler_seconds: float | None = Field(
        None,
        gt=0,
        description="longest completion time of a device, which otherwise loses the round; default: no limit",
    )
    store_seconds: float = Field(
        60.0,
        ge=0,
        description="seconds for which a failed write to the store is repeated, for example while its server restarts",
    )
    quorum: float = Field(0.5, ge=0.0, le=1.0, description="share of the devices whose updates must be accepted")
    retries: int = Field(2, ge=0, description="repetitions of a round that missed the quorum, before the run fails")
    message_mb: float = Field(
        1000.0,
        gt=0,
        description="largest message in MB for each device, either way; the devices of a larger one lose the round",
    )


class EngineSpec(Section):
    """How the work of devices is computed. "auto" is resolved by a short measurement when a run is created."""

    name: Literal["auto", "cohort", "sequential"] = Field(
        "auto",
        description="cohort: devices share passes over the base; sequential: one device after another, through PEFT",
    )
    workers: AutoCount = Field(
        "auto", description="worker processes; auto: one for each processor core or GPU, if memory allows"
    )
    cohort_size: AutoCount = Field(
        "auto", description="devices in one pass; auto: by the fixed cost of a step and by memory"
    )
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="precision of the base; auto: bf16 if the processor multiplies it faster, else fp32"
    )
    deterministic: bool = Field(
        False, description="on a GPU: use deterministic kernels only, so that a run repeats to the bit; slower"
    )
    cluster: str = Field(
        "",
        description="HOST:PORT of a running Ray cluster (docs/cluster.md), whose machines run the workers; "
        "empty: this machine alone",
    )

    @field_validator("cluster")
    @classmethod
    def _host_and_port(cls, address: str) -> str:
        if not re.fullmatch(r"([^\s:]+:[0-9]{1,5})?", address):
            raise ValueError("must be HOST:PORT, as `ray start --head` prints it, or empty for this machine alone")
        return address

    @model_validator(mode="after")
    def _workers_of_a_cluster_are_counted(self) -> "EngineSpec":
        if self.cluster and self.workers == "auto":
            raise ValueError(
                "workers = 'auto': only this machine can be measured; with cluster give the number of workers on all "
                "machines together, at most one a processor core or GPU"
            )
        return self


class StoreSpec(Section):
    """The database that runs are recorded in."""

    url: str = Field("sqlite", description="sqlite (a file in the home), sqlite:///PATH or postgresql+psycopg://...")


class TrackingSpec(Section):
    """Tools that follow the run while it goes on (docs/tracking.md). The environment has their servers and keys."""

    to: tuple[Annotated[str, _known(TRACKERS)], ...] = Field(
        (), description="names of trackers: tensorboard, mlflow, wandb, or of a plug-in"
    )
    folder: str = Field(
        "",
        description="folder for what trackers write to this computer, each to a folder of its name; "
        "empty: `tracking` beside the runs",
    )
    project: str = Field(
        "slimfed",
        min_length=1,
        max_length=100,
        description="group of runs: W&B's project, MLflow's experiment, unless their own variables name one",
    )


class JobSections(Section):
    """All sections of a job file, each valid by itself."""

    name: RunName = Field("job", min_length=1, max_length=200, description="name of the run, shown in lists")
    seed: int = Field(0, ge=0, lt=2**31, description="every random draw of the run derives from it")
    model: ModelSpec = ModelSpec()
    data: DataSpec = DataSpec()
    fleet: FleetSpec = FleetSpec()
    disturbance: DisturbanceSpec = DisturbanceSpec()
    method: MethodSpec = MethodSpec()
    adapter: AdapterOptions = AdapterOptions()
    pruning: PruningOptions = PruningOptions()
    calibration: CalibrationSpec = CalibrationSpec()
    bandit: BanditSpec = BanditSpec()
    training: TrainingSpec = TrainingSpec()
    server: ServerSpec = ServerSpec()
    privacy: PrivacySpec = PrivacySpec()
    messages: MessageSpec = MessageSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    deadlines: DeadlineSpec = DeadlineSpec()
    engine: EngineSpec = EngineSpec()
    store: StoreSpec = StoreSpec()
    tracking: TrackingSpec = TrackingSpec()
