"""What a run will cost, before it starts: by class of devices from the profiles, and on this computer as measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.data.batching import tokenise
from slimfed.clients.data.split import TextSplit
from slimfed.clients.processors import processor_count
from slimfed.clients.seeds import derive
from slimfed.clients.training.calibration import StepCost
from slimfed.platform.fleet.clock import VirtualClock
from slimfed.platform.fleet.device_costs import DeviceCosts
from slimfed.platform.job.job import Job
from slimfed.platform.launch.engine_choice import measured_step, seconds_a_device
from slimfed.platform.launch.expected_course import expected_course
from slimfed.platform.launch.preflight import Inspected
from slimfed.strategies.aggregation import AGGREGATIONS
from slimfed.strategies.bandits import BANDITS
from slimfed.strategies.first_adapter import first_adapter
from slimfed.strategies.schedule import sparsity_after, step_bounds

_MOST_DEVICES = 200
"""Of a larger fleet so many devices are computed, evenly chosen."""

_SAMPLE_TEXTS = 500
# A pass forward takes about half of a step on a frozen base.
_FORWARD = 0.5


@dataclass(frozen=True)
class ClassEstimate:
    """The devices of one class. Medians over its devices; bytes are of one device in one round.

    ``examples``: the fewest and the most training texts of a device. ``needed_bytes``: memory for training the dense
    model with the longest texts. ``starts_at``: sparsity at which training fits, 0 if the dense model does; None if the
    devices lose every round for want of memory. ``first_seconds`` and ``last_seconds``: of a round of the dense model
    (or at ``starts_at``) and of the last round; None with ``starts_at``.
    """

    profile: str
    devices: int
    examples: tuple[int, int]
    memory_bytes: float
    needed_bytes: float
    starts_at: float | None
    first_seconds: float | None
    last_seconds: float | None
    bytes_down: int
    bytes_up: int


@dataclass(frozen=True)
class Estimate:
    """``virtual_seconds``: of all rounds, each as long as its slowest device. ``bytes``: of all messages.

    ``wall_seconds``: on this computer, without the start; None if a GPU computes, whose speed is not measured.
    ``participants``: devices that take part in a round, mean over the rounds; all figures are of these alone.
    ``parameters``: of the model before pruning, and at the target sparsity. ``held_bytes``: those of the weights of
    the base before pruning, as devices hold them, and as they would without ``model.quantization``.
    """

    classes: tuple[ClassEstimate, ...]
    virtual_seconds: float
    bytes: float
    wall_seconds: float | None
    parameters: tuple[int, int]
    participants: float
    held_bytes: tuple[int, int]


def estimate(inspected: Inspected) -> Estimate:
    """The costs of an inspected job whose fleet is simulated."""
    job, fleet = inspected.checked.job, inspected.checked.fleet
    costs = _device_costs(inspected)
    path = expected_sparsities(job)
    starts = {device: _starts_at(job, costs, device) for device in _chosen(len(fleet.devices))}
    course = expected_course(job, fleet, lambda devices, n: _round_seconds(job, costs, path, starts, devices, n))
    return Estimate(
        tuple(_of_class(inspected, costs, path, starts, name) for name in fleet.counts()),
        course.seconds,
        float(sum(n * sum(_message_bytes(job, costs, path, at)) for at, n in enumerate(course.participants, 1))),
        _wall_seconds(inspected, path, course.participants),
        (costs.parameters(), costs.parameters(path[-1])),
        sum(course.participants) / len(path),
        costs.held_bytes(),
    )


def expected_sparsities(job: Job) -> list[float]:
    """Sparsity after every round, if each device takes the middle of the steps that it may choose from."""
    sparsity, path = 0.0, []
    pruning, rounds = job.task_spec().pruning, job.training.rounds
    prunes = ADAPTERS[job.method.adapter].prunes(Adapter({}, {}))
    for number in range(1, rounds + 1):
        if prunes:
            low, high = step_bounds(
                pruning, sparsity, job.method.target_sparsity, number, rounds, job.bandit.pruning_step
            )
            sparsity = min(job.method.target_sparsity, sparsity_after(sparsity, (low + high) / 2))
        path.append(sparsity)
    return path


def _device_costs(inspected: Inspected) -> DeviceCosts:
    job = inspected.checked.job
    base, blueprint = inspected.base, inspected.blueprint
    adapter = first_adapter(base, blueprint, job.method.adapter, max(job.bandit.ranks), job.seed)
    clock = VirtualClock(inspected.checked.fleet, job.seed, job.disturbance)
    return DeviceCosts(clock, job.task_spec(), base, blueprint, adapter)


def _chosen(devices: int) -> list[int]:
    """Devices that stand for all, evenly chosen; profiles are interleaved, so every class is among them."""
    return list(range(0, devices, max(1, -(-devices // _MOST_DEVICES))))


def _thinned(devices: Sequence[int]) -> Sequence[int]:
    """Of many devices so many that can be computed, evenly chosen."""
    return [devices[place] for place in _chosen(len(devices))]


def _starts_at(job: Job, costs: DeviceCosts, device: int) -> float | None:
    """See ``ClassEstimate.starts_at``; the rule is that of ``strategies/memory_fit.py``."""
    rank = max(job.bandit.ranks)
    adapter, aggregation = ADAPTERS[job.method.adapter], AGGREGATIONS[job.method.aggregation]
    cuts = job.method.target_sparsity > 0 and job.pruning.fit_memory and adapter.prunes(Adapter({}, {}))
    if cuts and not aggregation.needs_equal_structures:
        return costs.sparsity_to_fit(device, rank)
    return 0.0 if costs.peak_bytes(0.0, rank) <= costs.clock.fleet.devices[device].memory_bytes else None


def _seconds(job: Job, costs: DeviceCosts, path: Sequence[float], start: float, device: int, number: int) -> float:
    """Completion seconds of a device in round ``number``."""
    before, after = (max(start, each) for each in (path[number - 2] if number > 1 else 0.0, path[number - 1]))
    completion = costs.completion(device, number, before, after, _rank(job), _local_steps(job))
    return completion.seconds


def _round_seconds(
    job: Job,
    costs: DeviceCosts,
    path: Sequence[float],
    starts: dict[int, float | None],
    devices: Sequence[int],
    number: int,
) -> float:
    """A round lasts as long as the slowest of its ``devices``. ``starts`` gets those of devices that it lacks."""
    times = []
    for device in _thinned(devices):
        if device not in starts:
            starts[device] = _starts_at(job, costs, device)
        start = starts[device]
        if start is not None:
            times.append(_seconds(job, costs, path, start, device, number))
    return max(times, default=0.0)


def _message_bytes(job: Job, costs: DeviceCosts, path: Sequence[float], number: int) -> tuple[int, int]:
    """Bytes to a device and from it in round ``number``."""
    before, after = path[number - 2] if number > 1 else 0.0, path[number - 1]
    rank = _rank(job)
    return costs.message_bytes(before, rank), costs.message_bytes(after, rank)


def _of_class(
    inspected: Inspected, costs: DeviceCosts, path: Sequence[float], starts: Mapping[int, float | None], name: str
) -> ClassEstimate:
    job, fleet = inspected.checked.job, inspected.checked.fleet
    every = [each.device for each in fleet.devices if each.profile == name]
    chosen = [device for device in every if device in starts] or every[:1]
    start = starts[chosen[0]] if chosen[0] in starts else _starts_at(job, costs, chosen[0])
    examples = [inspected.checked.examples[device] for device in every]
    down, up = _message_bytes(job, costs, path, 1)

    def usual(number: int) -> float | None:
        if start is None:
            return None
        return median(_seconds(job, costs, path, start, device, number) for device in chosen)

    return ClassEstimate(
        profile=name,
        devices=len(every),
        examples=(min(examples), max(examples)),
        memory_bytes=fleet.devices[every[0]].memory_bytes,
        needed_bytes=costs.peak_bytes(0.0, max(job.bandit.ranks)),
        starts_at=start,
        first_seconds=usual(1),
        last_seconds=usual(len(path)),
        bytes_down=down,
        bytes_up=up,
    )


def _wall_seconds(inspected: Inspected, path: Sequence[float], participants: Sequence[int]) -> float | None:
    """Training and evaluation on this computer, by the measured step and the length of the texts.

    ``participants``: devices of each round.
    """
    job, sizing, text = inspected.checked.job, inspected.checked.sizing, inspected.text
    step = inspected.step or measured_step(job, inspected.base, inspected.blueprint)
    if step is None:
        return None
    share = _mean_length(inspected) / job.data.max_length
    own = StepCost(step.fixed, step.own * share)
    size = job.task_spec().cohort_size
    steps = _local_steps(job) * sum(participants)
    training = steps * seconds_a_device(own, job, size) / sizing.workers
    row = _FORWARD * own.own / job.training.batch_size
    evaluated = sum(1 for number in range(1, len(path)) if number % job.evaluation.every == 0)
    sampled = min(job.evaluation.examples or len(text.judge), len(text.judge))
    of_devices = min(job.evaluation.device_examples or len(text.judge), len(text.judge))
    models = evaluated * min(job.evaluation.devices, job.fleet.participants) + participants[-1]
    rows = (evaluated + 1) * sampled + len(text.judge)
    return training + row * (rows / processor_count() + models * of_devices / sizing.workers)


def _mean_length(inspected: Inspected) -> float:
    """Tokens of a training text, at most ``max_length``: the mean of a seeded sample."""
    job, train = inspected.checked.job, inspected.text.train
    draw = np.random.default_rng(derive(job.seed, "lengths of texts"))
    rows = draw.permutation(len(train))[:_SAMPLE_TEXTS].tolist()
    sample = TextSplit(
        [train.text[row] for row in rows], None if train.prompt is None else [train.prompt[row] for row in rows]
    )
    return float(tokenise(sample, inspected.base.tokenizer, job.data.max_length).lengths.mean())


def _rank(job: Job) -> int:
    """The largest rank, where the agent gives each device all ranks that it has time for; else the middle one."""
    agent = BANDITS[job.bandit.name]
    pacing = agent.usual_pacing if job.bandit.pacing == "auto" else job.bandit.pacing
    if agent.constant_rank and not job.bandit.spread_ranks:
        return job.bandit.fixed_rank or max(job.bandit.ranks)
    return max(job.bandit.ranks) if pacing == "fill" else _middle(job.bandit.ranks)


def _middle(values: Sequence[int]) -> int:
    return sorted(values)[len(values) // 2]


def _local_steps(job: Job) -> int:
    return _middle(job.bandit.local_steps) if job.bandit.local_steps else job.training.local_steps
