"""The Flower strategy: FedSpine's round over a fleet of unequal devices (arXiv 2501.02438, reconstructed)."""

import math
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.errors import SlimfedError
from slimfed.clients.messages.quantization import compensated
from slimfed.clients.messages.records import decode_phases, encode_orders
from slimfed.clients.messages.size_limit import oversize
from slimfed.clients.pruning.selection import select
from slimfed.clients.seeds import derive
from slimfed.clients.stopwatch import Stopwatch
from slimfed.clients.update import Evaluation, Report, Update
from slimfed.strategies.accumulation import Harvest, Sieve
from slimfed.strategies.aggregation import AGGREGATIONS, Frame
from slimfed.strategies.aggregation.error import aggregation_error
from slimfed.strategies.dispatch import deal_freely, deal_to_hosts, orders, parcels
from slimfed.strategies.planning import Plan, evaluates, plan_round
from slimfed.strategies.privacy import add_noise, clip, spent
from slimfed.strategies.protocols import Clock, DeviceRecord, Evaluator, Event, Forecast, Recorder, RoundRecord
from slimfed.strategies.rewarding import reward_devices
from slimfed.strategies.roster import Roster
from slimfed.strategies.schedule import sparsity_after
from slimfed.strategies.server import SERVER_OPTIMIZERS, moved
from slimfed.strategies.server_state import Fleet, Memory
from slimfed.strategies.settings import StrategySettings
from slimfed.strategies.transport import Answer, converse, wait_for_nodes
from slimfed.strategies.verdicts import NOBODY, Judge, Verdict

# The aggregation's error is measured on so many devices.
_SAMPLE = 100
_QUORUM_REMEDY = "read the causes; a new run may need a lower deadlines.quorum or fleet.dropout, or longer deadlines"


class QuorumError(SlimfedError, RuntimeError):
    """Too few devices sent a usable update, however often the round was repeated."""


class FedSlim(Strategy):
    """Unequal devices prune and tune; the server aggregates what they share.

    The loop begins after the fleet's last finished round, so that a restored fleet continues where it stopped.
    """

    def __init__(
        self,
        settings: StrategySettings,
        fleet: Fleet,
        clock: Clock,
        recorder: Recorder,
        evaluator: Evaluator,
        forecast: Forecast | None = None,
    ) -> None:
        self.settings = settings
        self.fleet = fleet
        self.clock = clock
        self.recorder = recorder
        self.evaluator = evaluator
        self.forecast = forecast
        self._plans: tuple[Plan, ...] = ()
        self._shares: dict[int, list[Plan]] = {}
        self._served: dict[int, int] = {}
        self._verdict = Verdict((), ())
        self._harvest: Harvest | None = None
        self._error: float | None = None
        self._told = 0
        self._watch = Stopwatch()
        self._sent, self._unsent = fleet.adapter, fleet.memory
        fleet.precision = settings.task.messages.precision
        self._node_phases: dict[str, float] = {}
        self._optimizer = SERVER_OPTIMIZERS[settings.server.optimizer](settings.server)
        self._roster = Roster(len(fleet.devices)) if settings.real else None

    def summary(self) -> None:
        """Nothing to print: the job and its method are in the store."""

    def start(  # type: ignore[override]  # the fleet holds the arrays, the settings the rest
        self, grid: Grid, first_round: int | None = None
    ) -> Result:
        """Run all rounds from ``first_round`` (default: the one after the fleet's last) to the last of the job.

        Raises :class:`QuorumError`, ``TimeoutError`` (no nodes) or ``StopRequestedError``; what was recorded then
        stands as it did after the last finished round.
        """
        settings = self.settings
        wait_for_nodes(grid, settings.nodes, settings.reply_seconds, self.recorder.stop_requested)
        result = Result()
        for number in range(first_round or self.fleet.round + 1, settings.task.training.rounds + 1):
            record = self._round(number, grid)
            if record.evaluation is not None:
                result.evaluate_metrics_serverapp[number] = MetricRecord(
                    {"loss": record.evaluation.loss, "accuracy": record.evaluation.accuracy}
                )
        return result

    def _round(self, number: int, grid: Grid) -> RoundRecord:
        started, self._watch = time.monotonic(), Stopwatch()
        with self._watch.phase("plan"):
            self._plans = plan_round(self.fleet, self.settings, number, self.forecast)
            self._round_adapter()
        self._train(number, grid)
        if self.settings.task.privacy.kind == "central":
            self._told = self.recorder.spend(number - 1)
        with self._watch.phase("evaluate"):
            evaluation = self._evaluate(number)
        record = self._record(number, evaluation, started)
        self.recorder.record(record, *self.fleet.checkpoint())
        return record

    def _round_adapter(self) -> None:
        """What the devices are told of the global adapter, and what is left to tell; all of it in fp32."""
        self._sent, self._unsent, precision = self.fleet.adapter, None, self.fleet.precision
        if precision != "fp32":
            self._sent, self._unsent = compensated(self.fleet.adapter, self.fleet.memory, precision)

    def _train(self, number: int, grid: Grid) -> None:
        """Send the round, again if a quorum was missed, and learn from the attempt that reached it.

        The nodes are those that are there at each attempt. What the clock rules out (memory, dropouts, deadlines) it
        would rule out again: then nothing is repeated.
        """
        settings, needed = self.settings, self._needed
        for _attempt in range(settings.retries + 1):
            self._attempt(number, grid)
            if len(self._verdict.accepted) >= needed:
                with self._watch.phase("aggregate"):
                    self.aggregate_train(number, ())
                return
            cause = (
                f"{len(self._verdict.accepted)} of {len(self.fleet.devices)} updates were usable, {needed} are needed"
            )
            for event in (*self._verdict.events, Event(number, "quorum-missed", cause, _QUORUM_REMEDY)):
                self.recorder.event(event)
            if not any(record.status in ("failed", "rejected") for record in self._verdict.devices):
                break
        first = next((event.cause for event in self._verdict.events), "no node replied in time")
        raise QuorumError(f"round {number}: {cause}; first cause: {first}")

    def _cause_against(self, message: Message, plans: Sequence[Plan]) -> str | None:
        """Why a message to or from a node must not pass: it is too large for the devices that it is about."""
        return oversize(message.content, len(plans), self.settings.task.message_mb)

    def _attempt(self, number: int, grid: Grid) -> None:
        """Send the round and judge the replies as they come; what counts of them is added up at once."""
        self._deal(number, grid)
        self._served, self._node_phases = {}, {}
        settings, sieve = self.settings, Sieve(self._new_harvest(number))
        hearing = Judge(
            self.fleet,
            self._plans,
            self.clock,
            settings.straggler_seconds,
            sieve,
            settings.task.adapter,
            real=settings.real,
        )
        if settings.task.privacy.kind == "local":  # what a device has sent is known, whatever comes of the round
            self._told = self.recorder.spend(number - 1)
        shares = {
            node: parcels(plans, self.settings.task.cohort_size)
            for node, plans in self._shares.items()
            if node != NOBODY
        }
        stop, seconds = self.recorder.stop_requested, settings.reply_seconds
        answers = converse(grid, shares, self._message, seconds, stop, self._cause_against)
        while (answer := self._next(answers)) is not None:
            with self._watch.phase("judge"):
                hearing.hear(answer.reply, {plan.assignment.device for plan in answer.parcel}, answer.seconds)
                self._account(answer)
        with self._watch.phase("judge"):
            absent = {plan.assignment.device for plan in self._shares.get(NOBODY, ())}
            self._verdict, self._harvest = hearing.verdict(absent)

    def _next(self, answers: Iterator[Answer[Sequence[Plan]]]) -> Answer[Sequence[Plan]] | None:
        with self._watch.phase("wait"):
            return next(answers, None)

    def _account(self, answer: Answer[Sequence[Plan]]) -> None:
        """Which nodes served how many devices, and where their time went."""
        node = answer.reply.metadata.src_node_id
        self._served[node] = len(self._shares[node])
        if not answer.reply.has_error():
            for phase, seconds in decode_phases(answer.reply.content).items():
                self._node_phases[phase] = self._node_phases.get(phase, 0.0) + seconds

    def _new_harvest(self, number: int) -> Callable[[], Harvest]:
        """A maker of what the updates of a round go to.

        Kept as they are: those that the adapter's method or central privacy must see all of, else a seeded sample on
        which the aggregation's error is measured.
        """
        task, devices = self.settings.task, len(self.fleet.devices)
        everybody = self.fleet.adapter.undecided or task.privacy.kind == "central"
        draw = np.random.default_rng(derive(task.seed, "error", number))
        keep = set(draw.permutation(devices)[: devices if everybody else _SAMPLE].tolist())
        before, units, frame = self.fleet.adapter, self.fleet.blueprint.units, self._frame(number)
        return lambda: Harvest(AGGREGATIONS[self.settings.aggregation].start(before, frame), units, keep)

    def _frame(self, number: int) -> Frame:
        task = self.settings.task
        return Frame(task.adapter.scaling, derive(task.seed, "aggregate", number))

    @property
    def _needed(self) -> int:
        """Devices whose updates a round needs."""
        return max(1, math.ceil(self.settings.quorum * len(self.fleet.devices)))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """All messages of a round: devices' assignments, and the adapter narrowed to what they need.

        ``arrays`` and ``config`` are Flower's; the fleet and the settings hold what they would carry. A node gets one
        message, or several if it has very many devices. :meth:`start` makes each of them when it is to be sent.
        """
        self._deal(server_round, grid)
        for node, plans in self._shares.items():
            for parcel in parcels(plans, self.settings.task.cohort_size) if node != NOBODY else ():
                yield self._message(node, parcel)

    def _message(self, node: int, plans: Sequence[Plan]) -> Message:
        with self._watch.phase("encode"):
            number = str(plans[0].assignment.round)
            return Message(
                encode_orders(orders(plans, self.fleet, self.settings.task, self._sent)),
                node,
                "train",
                ttl=2 * self.settings.reply_seconds,
                group_id=number,
            )

    def _deal(self, number: int, grid: Grid) -> None:
        """Say which node serves which devices; every device its own, or those that are there all of them."""
        settings, roster, stop = self.settings, self._roster, self.recorder.stop_requested
        if roster is None:
            nodes = wait_for_nodes(grid, 1, settings.reply_seconds, stop)
            self._shares = deal_freely(self._plans, nodes, settings.task.cohort_size)
            return
        for event in roster.gather(grid, number, self._needed, settings.reply_seconds, stop):
            self.recorder.event(event)
        self._shares = deal_to_hosts(self._plans, roster.hosts)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Learn from the accepted updates: rewards, structures, adapter, scores, clock.

        ``replies`` have been judged already; the verdict, and what was added up, is what counts.
        """
        harvest, task = self._harvest, self.settings.task
        assert harvest is not None, "a round is judged before it is aggregated"
        with self._watch.phase("reward"):
            self._verdict = reward_devices(self._verdict, self.fleet, self._plans, self.settings)
        reports = [record.report for record in self._verdict.accepted if record.report is not None]
        before, rank, held = self.fleet.adapter, max(self.settings.bandit.ranks), harvest.kept()
        after = self._aggregate(before, harvest, self._frame(server_round))
        self._error = self._measure_error(before, after, held, len(reports), server_round)
        after, self.fleet.server_memory = moved(self._optimizer, before, after, self.fleet.server_memory, server_round)
        self.fleet.adapter = ADAPTERS[task.adapter.name].decide(before, after, held, task, rank, server_round)
        self.fleet.learn_scores(*harvest.scores())
        self._harvest = None
        self._settle_structures(reports)
        self._settle_ranks(reports)
        self._settle_memories(reports)
        self.fleet.virtual_clock += self._virtual_seconds()
        self.fleet.round = server_round
        return None, None

    def _measure_error(
        self, before: Adapter, after: Adapter, held: Sequence[Update], accepted: int, number: int
    ) -> float | None:
        """The aggregation's error, of the sample aggregated by itself if not all updates were kept."""
        if len(held) < accepted:
            after = AGGREGATIONS[self.settings.aggregation](before, held, self._frame(number))
        return aggregation_error(before, after, held, self.settings.task.adapter.scaling)

    def _settle_structures(self, updates: Sequence[Report]) -> None:
        """What the devices and the global model have from now on; a shared structure was decided before the round."""
        fleet, pruning = self.fleet, self.settings.task.pruning
        if pruning.structure == "shared":
            fleet.structure = self._plans[0].assignment.structure
            for device in fleet.devices:
                device.structure = fleet.structure
            return
        for update in updates:
            fleet.devices[update.device].structure = update.structure
        fleet.structure = select(fleet.blueprint.dense(), fleet.scores, fleet.sparsity, pruning.scope)

    def _settle_ranks(self, updates: Sequence[Report]) -> None:
        """Remember what devices have given up; a device whose update did not count is sent its old rank again."""
        assigned = {plan.assignment.device: plan.assignment.rank for plan in self._plans}
        for update in updates:
            if update.rank < assigned[update.device]:
                self.fleet.devices[update.device].rank = update.rank

    def _settle_memories(self, updates: Sequence[Report]) -> None:
        """What could not be told in this round is told in the next; what did not count is said again."""
        self.fleet.memory = self._unsent
        for update in updates:
            if update.memory is not None:
                self.fleet.devices[update.device].memory = Memory(update.structure, update.rank, update.memory)

    def _aggregate(self, before: Adapter, harvest: Harvest, frame: Frame) -> Adapter:
        """The next global adapter; under central privacy of clipped updates, and noisy.

        Its noise is drawn anew each time, and by nothing that a node knows: from the run's seed anybody could take it
        off again. So such a run alone is not the same to the bit when it is repeated.
        """
        aggregate, privacy = AGGREGATIONS[self.settings.aggregation], self.settings.task.privacy
        if privacy.kind != "central":
            return harvest.adapter()
        updates = harvest.kept()
        draw = np.random.default_rng(secrets.randbits(256))
        safe = clip(updates, before, privacy, self.fleet.clipping_norm or privacy.clipping_norm, draw)
        self.fleet.clipping_norm = safe.next_norm
        return add_noise(aggregate(before, safe.updates, frame), safe.updates, privacy, safe.norm, draw)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """No messages: a device measures its own model right after training, while it is there."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing to aggregate: measures come with the updates."""
        return None

    def _evaluate(self, number: int) -> Evaluation | None:
        if not evaluates(self.settings, number):
            return None
        return self.evaluator.evaluate(self.fleet.adapter, self.fleet.structure)

    def _virtual_seconds(self) -> float:
        """A round lasts as long as its slowest device, or until the deadline if the server waited for one in vain."""
        slowest = max(r.completion.seconds for r in self._verdict.accepted if r.completion is not None)
        deadline = self.settings.straggler_seconds
        if deadline is not None and any(record.status != "done" for record in self._verdict.devices):
            return max(slowest, deadline)
        return slowest

    def _record(self, number: int, evaluation: Evaluation | None, started: float) -> RoundRecord:
        seconds = self._virtual_seconds()
        records = tuple(_with_energy(record, seconds) for record in self._verdict.devices)
        updates = [record.report for record in self._verdict.accepted if record.report is not None]
        own = [update.evaluation.accuracy for update in updates if update.evaluation is not None]
        examples = np.array([update.examples for update in updates], dtype=np.float64)
        losses = np.array([update.loss_after for update in updates])
        removed = ADAPTERS[self.settings.task.adapter.name].removed(self.fleet.adapter, self.fleet.blueprint)
        return RoundRecord(
            round=number,
            devices=records,
            events=self._verdict.events,
            evaluation=evaluation,
            device_accuracy_mean=float(np.mean(own)) if own else None,
            sparsity=sparsity_after(self.fleet.sparsity, removed),
            global_sparsity=sparsity_after(self.fleet.structure.sparsity, removed),
            removed=removed,
            virtual_seconds=seconds,
            wall_seconds=time.monotonic() - started,
            bytes_down=sum(record.bytes_down for record in records),
            bytes_up=sum(record.bytes_up for record in records),
            train_loss=float((losses * examples).sum() / examples.sum()),
            joules=_energy(records),
            aggregation_error=self._error,
            epsilon=spent(self.settings.task.privacy, self._told),
            nodes=self._served,
            phases={"server": self._watch.seconds, "nodes": self._node_phases},
        )


def _energy(records: Sequence[DeviceRecord]) -> float | None:
    """Of all devices that the clock has a completion of; None rather than a part of the sum."""
    parts = [record.joules for record in records if record.completion is not None]
    known = [part for part in parts if part is not None]
    return math.fsum(known) if known and len(known) == len(parts) else None


def _with_energy(record: DeviceRecord, seconds: float) -> DeviceRecord:
    """The record of a device in a round that lasted ``seconds``, with the energy that this took."""
    return record if record.completion is None else replace(record, joules=record.completion.joules_in(seconds))
