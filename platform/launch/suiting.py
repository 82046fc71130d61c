"""Values that suit foreign text and its model, for the fields of a job that nobody gave.

The defaults of the job file are those of the built-in text, a small task for a small model. A run keeps the values that
were chosen when it was created.
"""

import json
import math
from functools import lru_cache

from slimfed.clients.data.text import load_data
from slimfed.clients.errors import InputError
from slimfed.clients.models.location import model_folder
from slimfed.clients.spec import DataSpec, ModelSpec
from slimfed.platform.job.job import Job

BUILTIN = "builtin:"

_PASSES = 3
_FEWEST_ROUNDS, _MOST_ROUNDS = 20, 100
# Rounds in which structure is removed: enough for small steps, while most of the run recovers from them.
_PRUNING_ROUNDS = 6
# MiniLM-L6, 384 wide, learns well with this rate (docs/your-data.md); the reach of a step grows with the width.
_RATE, _WIDTH = 3e-3, 384
_LEAST_RATE, _LARGEST_RATE = 5e-4, 5e-3


def suit(job: Job, rows: int, *, real: bool = False) -> tuple[Job, tuple[str, ...]]:
    """The job with values for rounds, learning rate and the window of pruning where nobody gave any; a line for each.

    ``rows``: training texts. ``real``: devices have their own text, whose size is not known. A job of the built-in text
    stays as it is.
    """
    if job.data.path.startswith(BUILTIN):
        return job, ()
    lines: list[str] = []
    width = model_width(job.model)
    if not real and "rounds" not in job.training.model_fields_set:
        rounds, why = _rounds(job, rows)
        job = job.model_copy(update={"training": job.training.model_copy(update={"rounds": rounds})})
        lines.append(f"training.rounds = {rounds}: not given; {why}")
    if "learning_rate" not in job.training.model_fields_set and width is not None:
        rate = _learning_rate(width)
        job = job.model_copy(update={"training": job.training.model_copy(update={"learning_rate": rate})})
        lines.append(f"training.learning_rate = {rate:g}: not given; for a model {width} wide")
    if "until" not in job.pruning.model_fields_set and job.method.target_sparsity > 0:
        until, last = _until(job.training.rounds)
        job = job.model_copy(update={"pruning": job.pruning.model_copy(update={"until": until})})
        lines.append(
            f"pruning.until = {until:g}: not given; the target is reached in round {last} of {job.training.rounds}"
        )
    return job, tuple(lines)


def _rounds(job: Job, rows: int) -> tuple[int, str]:
    """Rounds in which the fleet goes over its text a few times, and the reason."""
    each = job.fleet.participants * job.training.local_steps * job.training.batch_size
    rounds = min(max(math.ceil(_PASSES * rows / each), _FEWEST_ROUNDS), _MOST_ROUNDS)
    return rounds, (
        f"{rounds * each / rows:.1f} passes over {rows:,} training texts (at least {_PASSES} passes and "
        f"{_FEWEST_ROUNDS} rounds, at most {_MOST_ROUNDS} rounds)"
    )


def _learning_rate(width: int) -> float:
    """One significant digit."""
    rate = min(max(_RATE * math.sqrt(_WIDTH / width), _LEAST_RATE), _LARGEST_RATE)
    return float(f"{rate:.0e}")


def _until(rounds: int) -> tuple[float, int]:
    """``pruning.until``, and the round in which it ends."""
    until = round(min(max(_PRUNING_ROUNDS / rounds, 0.05), 0.6), 2)
    return until, math.ceil(until * rounds - 1e-9)


def suited(job: Job) -> Job:
    """The same for a job whose text has not been loaded yet; the job itself if that is not possible."""
    if job.data.path.startswith(BUILTIN):
        return job
    try:
        return suit(job, _rows(job.data, job.model.task, job.seed))[0]
    except InputError:
        return job  # the check of the job says why


def model_width(model: ModelSpec) -> int | None:
    """Width of the residual stream, by the model's configuration file; None if there is none here."""
    folder = model_folder(model)
    try:
        config = json.loads((folder / "config.json").read_bytes()) if folder is not None else {}
    except (OSError, ValueError):
        return None
    found = next((config[name] for name in ("hidden_size", "n_embd", "dim") if name in config), None)
    return found if isinstance(found, int) and found > 0 else None


def stranger(job: Job) -> tuple[str, ...]:
    """A line if a built-in model meets foreign text."""
    if not job.model.path.startswith(BUILTIN) or job.data.path.startswith(BUILTIN):
        return ()
    return (
        f"model.path = {job.model.path!r}: a small model that knows household talk only; on other text it shows that a "
        "job runs, not what a pre-trained model would reach",
    )


@lru_cache(maxsize=32)
def _rows(data: DataSpec, task: str, seed: int) -> int:
    return len(load_data(data, "classification" if task == "classification" else "causal-lm", seed).train)
