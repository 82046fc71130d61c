"""The job: all settings of a run, checked before anything starts."""

import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import ValidationError, model_validator

from slimfed.clients.data.readers.files import ENDINGS
from slimfed.clients.spec import AdapterSpec, PruningOptions, PruningSpec, TaskSpec, TrainingSpec
from slimfed.platform.job import compatibility
from slimfed.platform.job.field_errors import validate
from slimfed.platform.job.overrides import merge, parse_sets, read_toml
from slimfed.platform.job.presets import PRESETS
from slimfed.platform.job.sections import JobSections, MethodSpec
from slimfed.strategies.bandits import BANDITS
from slimfed.strategies.bandits.spec import BanditSpec
from slimfed.strategies.settings import StrategySettings


class Job(JobSections):
    """One job with every field filled in and compatible sections."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, document: Any) -> Any:
        """Use the method's preset as defaults for the user's fields, and put numbers for automatic local steps."""
        return _with_local_steps(cls._with_preset(document))

    @classmethod
    def _with_preset(cls, document: Any) -> Any:
        if not isinstance(document, Mapping):
            return document
        method = document.get("method", {})
        name = method.get("name", MethodSpec.model_fields["name"].default) if isinstance(method, Mapping) else None
        if not isinstance(name, str) or name not in PRESETS:
            return document
        preset = PRESETS[name]
        whole = merge(preset.fields, document)
        for table in preset.yielding:
            with_table = merge(merge(preset.fields, table), whole)
            if _problems(with_table) <= _problems(whole):
                whole = with_table
        return whole

    @model_validator(mode="after")
    def _sections_fit(self) -> "Job":
        """Refuse incompatible sections."""
        problems = compatibility.problems(self)
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def dtype(self) -> Literal["fp32", "bf16"]:
        """The precision that the engine computes in."""
        return "fp32" if self.engine.dtype == "auto" else self.engine.dtype

    @property
    def scaling(self) -> float:
        """What B A is multiplied by. With rsLoRA alpha / sqrt(r) for the largest rank r of the run."""
        return self.adapter.scaling * (math.sqrt(max(self.bandit.ranks)) if self.adapter.rslora else 1.0)

    def task_spec(self) -> TaskSpec:
        """The specification for the nodes. A run's job has no "auto" in ``engine`` (``launch/engine_choice.py``)."""
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
                **self.adapter.model_dump() | {"scaling": self.scaling},
            ),
            pruning=PruningSpec(
                importance=self.method.importance,
                target_sparsity=self.method.target_sparsity,
                **self.pruning.model_dump(),
            ),
            training=self.training,
            calibration=self.calibration,
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
        """The settings of the strategy; ``nodes``: number of Flower nodes of the fleet.

        ``real``: each node hosts one device.
        """
        return StrategySettings(
            task=task,
            bandit=self.bandit,
            aggregation=self.method.aggregation,
            target_sparsity=self.method.target_sparsity,
            evaluate_every=self.evaluation.every,
            evaluate_devices=self.evaluation.devices,
            evaluate_examples=self.evaluation.examples,
            nodes=nodes,
            reply_seconds=self.deadlines.reply_seconds,
            straggler_seconds=self.deadlines.straggler_seconds,
            quorum=self.deadlines.quorum,
            retries=self.deadlines.retries,
            real=real,
            server=self.server,
            participation=self.fleet.wanted,
            filtered=bool(self.fleet.where),
        )


def _problems(document: Any) -> int:
    """How many problems a job of these fields has."""
    try:
        sections = JobSections.model_validate(_with_local_steps(document))
    except ValidationError as error:
        return error.error_count()
    return len(compatibility.problems(sections) + compatibility.problems_of_run(sections))


def _with_local_steps(document: Any) -> Any:
    """The document with numbers for ``bandit.local_steps = "auto"``."""
    if not isinstance(document, Mapping):
        return document
    bandit, training, pruning = (document.get(name, {}) for name in ("bandit", "training", "pruning"))
    if not isinstance(bandit, Mapping) or bandit.get("local_steps") != "auto":
        return document
    agent = BANDITS.get(bandit.get("name", BanditSpec.model_fields["name"].default))
    alone = agent is not None and not agent.chooses and bandit.get("fixed_local_steps") is None
    if alone or not (isinstance(training, Mapping) and isinstance(pruning, Mapping)):
        return merge(document, {"bandit": {"local_steps": []}})
    usual = training.get("local_steps", TrainingSpec.model_fields["local_steps"].default)
    events = pruning.get("events", PruningOptions.model_fields["events"].default)
    if not all(isinstance(number, int) and number > 0 for number in (usual, events)):
        return merge(document, {"bandit": {"local_steps": []}})  # those fields themselves are refused
    return merge(document, {"bandit": {"local_steps": automatic_local_steps(usual, events)}})


def automatic_local_steps(usual: int, events: int) -> list[int]:
    """What ``bandit.local_steps = "auto"`` means: half, once, twice and four times the ``usual`` number of steps.

    Each is larger than the number of prune ``events`` of a round.
    """
    return sorted({max(usual // 2, min(usual, events + 1)), usual, 2 * usual, 4 * usual})


def load_job(path: Path | str | None = None, sets: Iterable[str] = ()) -> Job:
    """The job in the TOML file ``path`` (none: the built-in demo), with ``sets`` such as ``training.rounds=5`` on top.

    Relative paths start at the job file's folder, those in ``sets`` at the working directory. Raises ``InputError``
    with one line per problem.
    """
    file = None if path is None else Path(path)
    below = demo_document() if file is None else located(read_toml(file, "job file"), file.absolute().parent)
    return parse_job(merge(below, located(parse_sets(sets), Path.cwd())))


def given_to_toml(job: Job) -> str:
    """The same without the fields that nobody gave, so that what suits its text can still be chosen for them."""
    return tomli_w.dumps(_without_none(given_fields(job)))


def load_run_job(path: Path) -> Job:
    """The job that a run was created with. A run of an older slimfed reads no validation file."""
    job = load_job(path)
    if job.data.validation != "auto":
        return job
    return job.model_copy(update={"data": job.data.model_copy(update={"validation": "off"})})


def parse_job(document: Mapping[str, Any]) -> Job:
    """A job from a nested mapping. Raises ``InputError`` with one line per problem."""
    return validate(Job, document)


def demo_document() -> dict[str, Any]:
    """The built-in job: 80 Jetsons learn smart-home commands."""
    return tomllib.loads((Path(__file__).parent / "demo.toml").read_text(encoding="utf-8"))


def job_to_toml(job: Job) -> str:
    """Every field of the job as a job file; :func:`load_job` reads it back as an equal job."""
    return tomli_w.dumps(_without_none(job.model_dump(mode="json")))


def job_to_dict(job: Job) -> dict[str, Any]:
    """Every field of the job as JSON values; :func:`parse_job` reads it back as an equal job."""
    return job.model_dump(mode="json")


def given_fields(job: Job) -> dict[str, Any]:
    """The fields of the job that a file, a preset or somebody gave, as JSON values; the others have their defaults."""
    return job.model_dump(mode="json", exclude_unset=True)


_PLACES = (
    ("model", "path"),
    ("model", "base"),
    ("data", "path"),
    ("fleet", "profile"),
    ("fleet", "availability"),
    ("training", "teacher"),
    ("tracking", "folder"),
)
_ENDING = {"profile": ".toml", "availability": ".csv"}


def located(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """``document`` with its relative paths made absolute.

    A model or data path may also be a hub id. It is a path if it looks like one (``./x``, ``../x``, ``~/x``), ends as a
    file of text does (``.csv``), or if there is such a file or folder. A profile is a path if it ends in ``.toml``,
    a trace of availability if it ends in ``.csv``.
    """
    result = dict(document)
    for section, field in _PLACES:
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
    if field == "folder":
        return True
    if field == "teacher":
        return False  # "base", or run:ID
    if field in _ENDING:
        return text.endswith(_ENDING[field])
    return text.endswith(ENDINGS) or (folder / text).exists()


def _without_none(value: Any) -> Any:
    """``document`` without fields that are None, as TOML has no null."""
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return value
