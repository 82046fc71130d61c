"""The sections of the job file that the server and the launcher read; those that a device reads are on floor 1."""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, field_validator, model_validator

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.importance import IMPORTANCE
from slimfed.clients.registry import Registry
from slimfed.clients.spec import (
    AdapterOptions,
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
from slimfed.strategies.aggregation import AGGREGATIONS
from slimfed.strategies.bandits.spec import BanditSpec
from slimfed.strategies.server.spec import ServerSpec


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


class FleetSpec(Section):
    """Which devices take part, and what their time is made of."""

    profile: str = Field("jetson-80", description="name of a built-in fleet, or a TOML file of profiles")
    devices: int = Field(80, ge=1, description="number of devices; repeats the profile's mix proportionally")
    dropout: Fraction = Field(0.0, description="probability that a device's update is lost in a round")
    jitter: bool = Field(True, description="false: no jitter, no change of power modes, no spread of links")
    clock: Literal["virtual", "measured"] = Field(
        "virtual", description="virtual: times from the profile; measured: seconds that the node took (real devices)"
    )


class DisturbanceSpec(Section):
    """What makes life harder for a simulated fleet than its profile says, to see what a method bears.

    Dropouts are ``fleet.dropout``. The virtual clock implements all of it; on real devices nothing is disturbed.
    """

    stragglers: float = Field(0.0, ge=0.0, le=1.0, description="share of the devices that straggle, a seeded choice")
    straggler_factor: float = Field(4.0, ge=1.0, description="how many times as long a straggler computes, every round")
    bandwidth_factor: float = Field(1.0, gt=0.0, le=1.0, description="what is left of every link's speed for a while")
    bandwidth_from: int = Field(1, ge=1, description="first round with that bandwidth")
    bandwidth_until: int | None = Field(None, ge=1, description="last round with that bandwidth; default: the run's")

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
        """True if anything is disturbed at all."""
        return self.stragglers > 0 or self.bandwidth_factor < 1

    def bandwidth(self, round: int) -> float:
        """What is left of the links' speed in a round."""
        last = math.inf if self.bandwidth_until is None else self.bandwidth_until
        return self.bandwidth_factor if self.bandwidth_from <= round <= last else 1.0


class MethodSpec(Section):
    """What is done. ``name`` is a preset that fills in the rest; every field can be set by itself."""

    name: Annotated[str, _known(PRESETS)] = Field("fedspine", description="name in the preset registry")
    adapter: Annotated[str, _known(ADAPTERS)] = Field(
        "lora", description="name in the adapter registry: what a device trains beside the frozen base"
    )
    target_sparsity: Fraction = Field(0.5, description="share of the prunable parameters to remove; 0: no pruning")
    importance: Annotated[str, _known(IMPORTANCE)] = Field(
        "lora-gradient", description="name in the importance registry"
    )
    aggregation: Annotated[str, _known(AGGREGATIONS)] = Field(
        "coverage", description="name in the aggregation registry"
    )


class EvaluationSpec(Section):
    """What is measured on the test split. The last round measures everything."""

    every: int = Field(1, ge=1, description="rounds from one evaluation to the next")
    devices: int = Field(8, ge=0, description="devices whose own models are evaluated: a seeded sample, all in the end")
    device_examples: int = Field(
        500, ge=0, description="test examples for that, a seeded sample; 0: all. The global model always gets all"
    )
    generate: GenerationSpec = GenerationSpec()


class DeadlineSpec(Section):
    """How long to wait, how much may be missing, and how large a message may be."""

    reply_seconds: float = Field(600.0, gt=0, description="wall seconds to wait for nodes and for their replies")
    straggler_seconds: float | None = Field(
        None, gt=0, description="a device whose completion time is longer loses the round; default: no limit"
    )
    store_seconds: float = Field(
        60.0, ge=0, description="how long to try again when the store fails, as while its server restarts"
    )
    quorum: float = Field(0.5, ge=0.0, le=1.0, description="share of the devices whose updates must be usable")
    retries: int = Field(2, ge=0, description="repetitions of a round that missed the quorum, before the run fails")
    message_mb: float = Field(
        1000.0,
        gt=0,
        description="MB for each device in a message, either way; a larger one costs its devices the round",
    )


class EngineSpec(Section):
    """How devices are computed. What is left "auto" is chosen from a short measurement when a run is made."""

    name: Literal["auto", "cohort", "sequential"] = Field(
        "auto",
        description="cohort: devices share passes over the base; sequential: one after another, each through PEFT",
    )
    workers: AutoCount = Field("auto", description="processes; auto: one per processor core or GPU, if memory allows")
    cohort_size: AutoCount = Field("auto", description="devices in one pass; auto: as launch cost and memory ask for")
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="precision of the passes; auto: bf16 if the processor multiplies it faster, else fp32"
    )
    deterministic: bool = Field(
        False, description="on a GPU: only kernels that add up in one order, so that a run repeats to the bit; slower"
    )
    cluster: str = Field(
        "",
        description="HOST:PORT of a Ray cluster that is there already, of several machines (docs/cluster.md), with "
        "workers on all of them together; empty: this machine alone",
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
    """Where runs are recorded."""

    url: str = Field("sqlite", description="sqlite (a file in the home), sqlite:///PATH or postgresql+psycopg://...")


class JobSections(Section):
    """All sections of a job file, each valid by itself."""

    name: str = Field("job", min_length=1, max_length=200, description="shown in lists")
    seed: int = Field(0, ge=0, lt=2**31, description="every random draw of the run derives from it")
    model: ModelSpec = ModelSpec()
    data: DataSpec = DataSpec()
    fleet: FleetSpec = FleetSpec()
    disturbance: DisturbanceSpec = DisturbanceSpec()
    method: MethodSpec = MethodSpec()
    adapter: AdapterOptions = AdapterOptions()
    pruning: PruningOptions = PruningOptions()
    bandit: BanditSpec = BanditSpec()
    training: TrainingSpec = TrainingSpec()
    server: ServerSpec = ServerSpec()
    privacy: PrivacySpec = PrivacySpec()
    messages: MessageSpec = MessageSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    deadlines: DeadlineSpec = DeadlineSpec()
    engine: EngineSpec = EngineSpec()
    store: StoreSpec = StoreSpec()
