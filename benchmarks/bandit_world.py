"""Virtual time of agents for equal progress on 80 Jetsons, without training.

    python benchmarks/bandit_world.py [--agents s-ucb random fixed oracle] [--seeds 5] [--rounds 20]

Real are the strategy's planning and rewards, the agents, the clock of `jetson-80` and the cost model over MiniLM's
shapes (random weights). Assumed is how a device learns: in a round its loss falls by a share of

    0.06 * (rank / 16)^0.15 * (1 - step / 2) * lognormal(0.3)

so that a small rank learns a little less and pruning costs some of the gain. Progress is the mean of that share over
the fleet. The output is the virtual time in which each agent's fleet makes the progress of all rounds of `fixed`,
relative to `fixed`; below 1 is faster. All agents face the same jitter and power modes.
"""

import argparse
import json
from functools import cache
from statistics import mean, stdev
from typing import Any

import numpy as np
from transformers import BertConfig, BertForSequenceClassification

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.models.cost import Dimensions, training_workload
from slimfed.clients.models.dimensions import measure
from slimfed.clients.models.discovery import discover
from slimfed.clients.pruning.selection import select
from slimfed.clients.seeds import derive
from slimfed.clients.structure import Blueprint, Structure
from slimfed.clients.update import Assignment, Report, Workload
from slimfed.platform.fleet.clock import VirtualClock
from slimfed.platform.fleet.profiles import load_fleet
from slimfed.platform.job.job import Job, load_job
from slimfed.strategies.aggregation import initial_adapter
from slimfed.strategies.checks.reply_validation import RoundOutcome
from slimfed.strategies.coordinates.places import device_bytes
from slimfed.strategies.planning import plan_round
from slimfed.strategies.protocols import Completion, DeviceRecord
from slimfed.strategies.reward import reward_devices
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.settings import StrategySettings

_LENGTH = 32


class World:
    """MiniLM's shapes, and what rounds on it cost."""

    def __init__(self) -> None:
        config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
        self.model = BertForSequenceClassification(config)
        self.blueprint: Blueprint = discover(self.model)
        shapes = {name: tuple(self.model.get_submodule(name).weight.shape) for name in self.blueprint.modules}
        self.adapter: Adapter = initial_adapter(shapes, 16, {}, 0)

    @cache  # noqa: B019 - one world a process
    def work(self, sparsity: float, rank: int, steps: int, job: Job) -> Workload:
        """Work of so many steps."""
        size = self.size(sparsity)
        load = ADAPTERS["lora"].load(size, rank, self.adapter)
        return training_workload(size, load, steps, job.training.batch_size, _LENGTH)

    @cache  # noqa: B019
    def bytes(self, sparsity: float, rank: int) -> int:
        """Bytes of the adapter, one way."""
        return device_bytes(self.adapter, self.cut(self.blueprint.dense(), sparsity), rank)

    @cache  # noqa: B019
    def size(self, sparsity: float) -> Dimensions:
        """Sizes of the model at this sparsity."""
        return measure(self.model, self.blueprint, self.cut(self.blueprint.dense(), sparsity))

    def cut(self, start: Structure, sparsity: float) -> Structure:
        """Any structure of that sparsity."""
        return select(start, np.zeros(self.blueprint.units), sparsity, "layer")


class Forecast:
    """The clock's times in advance, for the oracle."""

    def __init__(self, world: World, job: Job, clock: VirtualClock) -> None:
        self.world, self.job, self.clock = world, job, clock

    def seconds(self, device: int, round: int, before: float, after: float, rank: int, local_steps: int) -> float:
        """Completion time of a round."""
        return _completion(self.world, self.job, self.clock, device, round, _near(before), _near(after), rank).seconds

    def sparsity_to_fit(self, device: int, rank: int) -> float:
        """All devices hold the dense model."""
        return 0.0


def _near(sparsity: float) -> float:
    return round(float(sparsity), 2)


def play(world: World, job: Job) -> tuple[list[float], list[float]]:
    """Progress and virtual time after each round."""
    settings: StrategySettings = job.strategy_settings(job.task_spec(), 1)
    clock = VirtualClock(load_fleet(job.fleet, job.seed), job.seed)
    fleet = Fleet.new(world.blueprint, world.adapter, job.fleet.devices, job.bandit, job.seed)
    forecast, progress, times = Forecast(world, job, clock), [0.0], [0.0]
    for number in range(1, job.training.rounds + 1):
        plans = plan_round(fleet, settings, number, forecast)
        records = tuple(_record(world, job, clock, plan.assignment, plan.arm.pruning_step) for plan in plans)
        reward_devices(RoundOutcome(records, ()), fleet, plans, settings, plans[0].assignment.round)
        for record in records:
            fleet.devices[record.assignment.device].structure = record.report.structure
        progress.append(progress[-1] + mean(r.report.loss_before - r.report.loss_after for r in records))
        times.append(times[-1] + max(record.completion.seconds for record in records))
    return progress, times


def _record(world: World, job: Job, clock: VirtualClock, given: Assignment, step: float) -> DeviceRecord:
    structure = world.cut(given.structure, given.sparsity)
    noise = np.random.default_rng(derive(job.seed, "loss", given.round, given.device)).standard_normal()
    learnt = 0.06 * (given.rank / 16) ** 0.15 * (1 - step / 2) * np.exp(0.3 * noise)
    report = Report(
        device=given.device, round=given.round, rank=given.rank, effective_rank=float(given.rank), structure=structure,
        loss_before=1.0, loss_after=1.0 - learnt, importance=learnt * given.rank**0.5,
        examples=1, seconds=1.0, measured_memory_bytes=0, evaluation=None,
        workload=world.work(_near(structure.sparsity), given.rank, job.training.local_steps, job),
    )  # fmt: skip
    start, end = _near(given.structure.sparsity), _near(structure.sparsity)
    completion = _completion(world, job, clock, given.device, given.round, start, end, given.rank)
    down, up = world.bytes(start, given.rank), world.bytes(end, given.rank)
    return DeviceRecord(given, "done", completion, report, None, down, up)


def _completion(
    world: World, job: Job, clock: VirtualClock, device: int, round: int, start: float, end: float, rank: int
) -> Completion:
    steps = job.training.local_steps
    work = world.work(start, rank, steps - steps // 2, job) + world.work(end, rank, steps // 2, job)
    return clock.completion_of(device, round, work, world.bytes(start, rank), world.bytes(end, rank))


def time_to(progress: list[float], times: list[float], goal: float) -> float:
    """Virtual time at which ``goal`` is reached, between rounds linearly; beyond the last at its pace."""
    if progress[-1] < goal:
        return times[-1] + (goal - progress[-1]) * (times[-1] - times[-2]) / (progress[-1] - progress[-2])
    return float(np.interp(goal, progress, times))


def main() -> None:
    """Play all agents on all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", nargs="+", default=["s-ucb", "e-ucb", "thompson", "random", "oracle"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--set", action="append", default=[], dest="sets")
    options = parser.parse_args()
    world, ratios = World(), {agent: [] for agent in options.agents}
    for seed in range(1, options.seeds + 1):
        sets = [f"seed={seed}", f"training.rounds={options.rounds}", "training.local_steps=20", *options.sets]
        job = load_job(None, sets)
        fixed = play(world, job.model_copy(update={"bandit": replace_name(job, "fixed")}))
        for agent in options.agents:
            course = play(world, job.model_copy(update={"bandit": replace_name(job, agent)}))
            ratios[agent].append(time_to(*course, fixed[0][-1]) / fixed[1][-1])
    spread = {a: (round(mean(v), 3), round(stdev(v), 3) if len(v) > 1 else None) for a, v in ratios.items()}
    print(json.dumps({"relative to fixed: mean, deviation": spread}))


def replace_name(job: Job, agent: str) -> Any:
    """The job's bandit section with another agent."""
    return job.bandit.model_copy(update={"name": agent})


if __name__ == "__main__":
    main()
