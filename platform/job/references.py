"""The jobs that a run is judged by: its devices alone, and central training; both without pruning."""

import math
from typing import Any, Literal, get_args

from slimfed.platform.job.job import Job, job_to_dict, parse_job
from slimfed.platform.job.overrides import merge

Reference = Literal["local", "central"]
"""local: every device trains alone, on its own text. central: one server trains on all text."""

REFERENCES: tuple[Reference, ...] = get_args(Reference)

_NAMES = {"local": "devices alone", "central": "central training"}
# Central training goes over the text as often as the fleet does, but not more often than this.
_MOST_EPOCHS = 5

# Plain LoRA of the largest rank on a server's memory: nothing is pruned, dropped, disturbed, rounded, private or late,
# and all take part.
_PLAIN: dict[str, Any] = {
    "method": {"adapter": "lora", "aggregation": "coverage", "target_sparsity": 0.0},
    "bandit": {"name": "fixed", "control": "none", "pacing": "auto", "spread_ranks": False, "fixed_rank": None},
    "pruning": {"schedule": "bandit", "structure": "own", "events": 1},
    "adapter": {"keep_ranks": 1.0, "tail_penalty": 0.0},
    "fleet": {
        "profile": "server",
        "dropout": 0.0,
        "jitter": False,
        "participation": "all",
        "availability": "always",
        "where": "",
    },
    "disturbance": {"stragglers": 0.0, "bandwidth_factor": 1.0},
    "training": {"recovery": "plain", "kl": 0.0, "teacher": "base", "proximal": 0.0},
    "server": {"optimizer": "none", "mode": "sync"},
    "privacy": {"kind": "none"},
    "messages": {"precision": "fp32"},
    "deadlines": {"straggler_seconds": None},
    "engine": {"name": "auto", "workers": "auto", "cohort_size": "auto"},
}


def reference_job(job: Job, reference: Reference, examples: int) -> Job:
    """The job of a run of reference. ``job``: that of the run; ``examples``: its training texts.

    local: one round of as many steps as a device takes in the whole run, after which each device's own model is
    measured. central: as many rounds, with all text on one device, in steps enough for as many passes over the text as
    the fleet makes, at most 5. The learning rate of both is the run's over the root of the number of devices.
    """
    # Alone, a device has sqrt(N) times the noise of a mean over N: it does not bear the rate of averaged updates.
    rate = job.training.learning_rate / math.sqrt(job.fleet.devices)
    changes = merge(_PLAIN, {"training": {"learning_rate": rate}})
    changes = merge(changes, {"name": f"{job.name}: {_NAMES[reference]}"[:200], "bandit": {"ranks": _ranks(job)}})
    changes = merge(changes, {"bandit": {"local_steps": [], "fixed_local_steps": None, "fixed_step": None}})
    special = _local(job) if reference == "local" else _central(job, examples)
    return parse_job(merge(merge(job_to_dict(job), changes), special))


def _ranks(job: Job) -> list[int]:
    return [max(job.bandit.ranks)]


def _steps(job: Job) -> int:
    """Steps of a device in a round: the middle one of its choices."""
    choices = sorted(job.bandit.local_steps)
    return choices[len(choices) // 2] if choices else job.training.local_steps


def _local(job: Job) -> dict[str, Any]:
    rounds = job.training.rounds
    return {
        "training": {"rounds": 1, "local_steps": rounds * _steps(job)},
        "evaluation": {"every": 1, "generate": {"examples": 0}},
        "deadlines": {"reply_seconds": rounds * job.deadlines.reply_seconds},
    }


def _central(job: Job, examples: int) -> dict[str, Any]:
    rounds, alone = job.training.rounds, job.training.rounds * _steps(job)
    passes = math.ceil(_MOST_EPOCHS * examples / job.training.batch_size)
    steps = max(alone, min(alone * job.fleet.devices, passes))
    return {
        "fleet": {"devices": 1},
        "data": {"partition": {"kind": "iid"}},
        "training": {"local_steps": math.ceil(steps / rounds)},
        "evaluation": {"devices": 0},
        "deadlines": {"reply_seconds": job.deadlines.reply_seconds * max(1, steps // alone)},
    }
