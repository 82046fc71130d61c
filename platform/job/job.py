"""The job file: everything a run needs, checked once, before anything starts."""

import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, PlainValidator, field_validator, model_validator

from slimfed.clients.spec import (
    AdapterOptions,
    AdapterSpec,
    DataSpec,
    Fraction,
    GenerationSpec,
    MessageSpec,
    ModelSpec,
    PrivacySpec,
    PruningOptions,
    PruningSpec,
    Section,
    TaskSpec,
    TrainingSpec,
)
from slimfed.platform.job.field_errors import validate
from slimfed.platform.job.overrides import merge, parse_sets, read_toml
from slimfed.platform.job.presets import PRESETS
from slimfed.strategies.aggregation import AGGREGATIONS, EQUAL_STRUCTURES, NO_DIRECTION, PLAIN_FACTORS, SUMS
from slimfed.strategies.bandits import BANDITS, BanditSpec
from slimfed.strategies.server.spec import ServerSpec
from slimfed.strategies.settings import StrategySettings


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

    name: str = Field("fedspine", description="name in the preset registry")
    adapter: str = Field(
        "lora", description="name in the adapter registry: what a device trains beside the frozen base"
    )
    target_sparsity: Fraction = Field(0.5, description="share of the prunable parameters to remove; 0: no pruning")
    importance: str = Field("lora-gradient", description="name in the importance registry")
    aggregation: str = Field("coverage", description="name in the aggregation registry")

    @field_validator("importance")
    @classmethod
    def _importance_is_known(cls, name: str) -> str:
        if name != cls.model_fields["importance"].default:
            # Only here, because it brings torch, and seconds with it, into commands that never compute.
            from slimfed.clients.importance import IMPORTANCE

            _known(name, IMPORTANCE)
        return name

    @field_validator("adapter")
    @classmethod
    def _adapter_is_known(cls, name: str) -> str:
        if name != cls.model_fields["adapter"].default:
            # Only here, as above.
            from slimfed.clients.adapters import ADAPTERS

            _known(name, ADAPTERS)
        return name

    @field_validator("aggregation")
    @classmethod
    def _aggregation_is_known(cls, name: str) -> str:
        return _known(name, AGGREGATIONS)


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


class Job(Section):
    """One job file, with every field filled in."""

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

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, document: Any) -> Any:
        """Lay the method's preset under what the user gave."""
        if not isinstance(document, Mapping):
            return document
        method = document.get("method", {})
        name = method.get("name", MethodSpec.model_fields["name"].default) if isinstance(method, Mapping) else None
        if not isinstance(name, str) or name not in PRESETS:
            return document
        return merge(PRESETS[name].fields, document)

    @model_validator(mode="after")
    def _names_are_known(self) -> "Job":
        for path, name, registry in (
            ("method.name", self.method.name, PRESETS),
            ("bandit.name", self.bandit.name, BANDITS),
        ):
            if name not in registry:
                raise ValueError(f"{path} = {name!r}: must be one of {_names(registry)}")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> "Job":
        """What would fail in the first rounds is refused before anything starts."""
        prunes_alone = self.method.target_sparsity > 0 and self.pruning.structure == "own"
        if self.method.aggregation in EQUAL_STRUCTURES and prunes_alone:
            raise ValueError(
                f"method.aggregation = {self.method.aggregation!r}: needs equal structures, but devices prune on their "
                "own; set pruning.structure = 'shared', or method.target_sparsity = 0, or aggregate by 'coverage'"
            )
        if self.method.aggregation in EQUAL_STRUCTURES and not self._one_rank():
            raise ValueError(
                f"method.aggregation = {self.method.aggregation!r}: needs equal ranks; give bandit.ranks one value, "
                "set bandit.name = 'fixed' (and adapter.keep_ranks = 1), or aggregate by 'coverage'"
            )
        if self.method.aggregation in PLAIN_FACTORS and self.method.adapter != "lora":
            raise ValueError(
                f"method.aggregation = {self.method.aggregation!r}: knows LoRA's two factors alone, and not what "
                f"method.adapter = {self.method.adapter!r} trains; use 'coverage'"
            )
        if self.method.adapter in ("sparse", "pat") and self.pruning.structure == "shared":
            raise ValueError(
                f"pruning.structure = 'shared': the server cannot cut heads and channels while method.adapter = "
                f"{self.method.adapter!r} is choosing entries or width for it; use structure = 'own'"
            )
        if self.method.adapter == "pat" and self.training.rounds < 2:
            raise ValueError(
                "training.rounds = 1: method.adapter = 'pat' decides the width before the last round; use 2"
            )
        if self.method.adapter == "pat" and self.training.recovery == "squarehead":
            raise ValueError(
                "training.recovery = 'squarehead': compares hidden states of one width, which method.adapter = 'pat' "
                "takes parts of away; use recovery = 'plain', or another adapter"
            )
        if self.adapter.keep_ranks < 1 and (self.method.adapter != "lora" or self.bandit.name != "fixed"):
            raise ValueError(
                f"adapter.keep_ranks = {self.adapter.keep_ranks:g}: devices give up ranks of LoRA that are theirs to "
                f"keep, which does not go with method.adapter = {self.method.adapter!r} and bandit.name = "
                f"{self.bandit.name!r}; use 'lora' and 'fixed', or set keep_ranks = 1 and tail_penalty = 0"
            )
        if self.bandit.name == "oracle" and self.fleet.clock == "measured":
            raise ValueError("bandit.name = 'oracle': it reads the profiles, which real devices (fleet.clock) have not")
        return self

    @model_validator(mode="after")
    def _server_has_a_direction(self) -> "Job":
        """A server optimiser needs factors of which the round's change is a pseudo-gradient."""
        if self.server.optimizer == "none":
            return self
        # Only here, because it brings Flower's strategies, and a part of a second, into commands that never aggregate.
        from slimfed.strategies.server import SERVER_OPTIMIZERS

        if self.server.optimizer not in SERVER_OPTIMIZERS:
            raise ValueError(
                f"server.optimizer = {self.server.optimizer!r}: must be one of {_names(SERVER_OPTIMIZERS)}"
            )
        if self.method.aggregation in NO_DIRECTION:
            raise ValueError(
                f"server.optimizer = {self.server.optimizer!r}: method.aggregation = {self.method.aggregation!r} "
                "writes factors anew, or a part of the change into the base, so that their change is no gradient; "
                "aggregate by 'coverage', or use optimizer = 'none'"
            )
        if self.method.adapter != "lora":
            raise ValueError(
                f"server.optimizer = {self.server.optimizer!r}: momentum would reopen the gates, masks and entries "
                f"that method.adapter = {self.method.adapter!r} has decided; use 'lora', or optimizer = 'none'"
            )
        return self

    @model_validator(mode="after")
    def _rounding_adds_up(self) -> "Job":
        """Error feedback needs sums of what is sent: what is not a sum, or is decided by zeros, cannot make it good."""
        start = f"messages.precision = {self.messages.precision!r}: "
        if self.messages.precision == "fp32":
            return self
        if self.method.adapter != "lora":
            raise ValueError(
                f"{start}rounding would move the gates, masks and entries that method.adapter = "
                f"{self.method.adapter!r} decides by; use 'lora', or precision = 'fp32'"
            )
        if self.method.aggregation not in SUMS:
            raise ValueError(
                f"{start}what rounding takes away of one round is added to the next, which method.aggregation = "
                f"{self.method.aggregation!r} does not sum up; use one of {', '.join(SUMS)}, or precision = 'fp32'"
            )
        if self.privacy.kind != "none":
            raise ValueError(
                f"{start}privacy.kind = {self.privacy.kind!r} clips what would make the rounding good; "
                "use precision = 'fp32'"
            )
        return self

    def _one_rank(self) -> bool:
        same = self.bandit.name in ("fixed", "e-ucb") and not self.bandit.spread_ranks
        return (same or len(self.bandit.ranks) == 1) and self.adapter.keep_ranks == 1

    @property
    def dtype(self) -> Literal["fp32", "bf16"]:
        """The precision that the engine computes in."""
        return "fp32" if self.engine.dtype == "auto" else self.engine.dtype

    def task_spec(self) -> TaskSpec:
        """What the nodes are told. A run's job leaves nothing open in ``engine`` (``launch/engine_choice.py``)."""
        engine = self.engine
        return TaskSpec(
            seed=self.seed,
            devices=self.fleet.devices,
            model=self.model,
            data=self.data,
            adapter=AdapterSpec(
                name=self.method.adapter,
                target_sparsity=self.method.target_sparsity,
                least_rank=min(self.bandit.ranks),
                **self.adapter.model_dump(),
            ),
            pruning=PruningSpec(importance=self.method.importance, **self.pruning.model_dump()),
            training=self.training,
            privacy=self.privacy,
            message_mb=self.deadlines.message_mb,
            messages=self.messages,
            engine="cohort" if engine.name == "auto" else engine.name,
            cohort_size=1 if engine.cohort_size == "auto" else engine.cohort_size,
            device_examples=self.evaluation.device_examples,
            generate=self.evaluation.generate,
            dtype=self.dtype,
            deterministic=engine.deterministic,
        )

    def strategy_settings(self, task: TaskSpec, nodes: int, *, real: bool = False) -> StrategySettings:
        """What the strategy is told; ``nodes`` is how many Flower nodes serve the fleet.

        ``real``: each of them hosts one device of its own.
        """
        return StrategySettings(
            task=task,
            bandit=self.bandit,
            aggregation=self.method.aggregation,
            target_sparsity=self.method.target_sparsity,
            evaluate_every=self.evaluation.every,
            evaluate_devices=self.evaluation.devices,
            nodes=nodes,
            reply_seconds=self.deadlines.reply_seconds,
            straggler_seconds=self.deadlines.straggler_seconds,
            quorum=self.deadlines.quorum,
            retries=self.deadlines.retries,
            real=real,
            server=self.server,
        )


def load_job(path: Path | str | None = None, sets: Iterable[str] = ()) -> Job:
    """The job in the TOML file ``path`` (none: the built-in demo), with ``sets`` such as ``training.rounds=5`` on top.

    Relative paths are meant from the job file's folder, those in ``sets`` from the working directory. Raises
    ``InputError`` with one line per problem.
    """
    file = None if path is None else Path(path)
    below = demo_document() if file is None else located(read_toml(file, "job file"), file.absolute().parent)
    return parse_job(merge(below, located(parse_sets(sets), Path.cwd())))


def parse_job(document: Mapping[str, Any]) -> Job:
    """A job from a nested mapping. Raises ``InputError`` with one line per problem."""
    return validate(Job, document)


def demo_document() -> dict[str, Any]:
    """The built-in job: 80 Jetsons learn what people say to the devices in their homes."""
    return tomllib.loads((Path(__file__).parent / "demo.toml").read_text(encoding="utf-8"))


def job_to_toml(job: Job) -> str:
    """Every field of the job as a job file; :func:`load_job` reads it back as an equal job."""
    return tomli_w.dumps(_without_none(job.model_dump(mode="json")))


def job_to_dict(job: Job) -> dict[str, Any]:
    """Every field of the job as JSON values; :func:`parse_job` reads it back as an equal job."""
    return job.model_dump(mode="json")


def located(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """``document`` with its relative paths made absolute.

    A model or data path may also be the id of something on a hub: it is a path if it looks like one (``./x``, ``../x``,
    ``~/x``) or if there is such a file or folder. A profile is a path if it ends in ``.toml``.
    """
    result = dict(document)
    for section, field in (("model", "path"), ("data", "path"), ("fleet", "profile")):
        table = result.get(section)
        text = table.get(field) if isinstance(table, dict) else None
        if isinstance(table, dict) and isinstance(text, str) and _is_path(text, folder, field):
            absolute = os.path.normpath(folder / Path(text).expanduser())
            result[section] = {**table, field: absolute}
    return result


def _is_path(text: str, folder: Path, field: str) -> bool:
    if text.startswith("builtin:") or not text:
        return False
    if text.startswith(("./", "../", "~", "/")) or text in (".", ".."):
        return True
    return text.endswith(".toml") if field == "profile" else (folder / text).exists()


def _without_none(value: Any) -> Any:
    """TOML has no null: a field that is None is left out, which means the same."""
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return value


def _known(name: str, registry: Mapping[str, Any]) -> str:
    if name not in registry:
        raise ValueError(f"must be one of {_names(registry)}")
    return name


def _names(registry: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in registry)
