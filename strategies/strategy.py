"""FedSlim: the rounds of ``round_loop.py`` as a Flower strategy."""

from collections.abc import Collection, Iterable, Mapping
from typing import NoReturn

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from slimfed.strategies.planning import evaluated_examples, writes
from slimfed.strategies.progress import RunProgress
from slimfed.strategies.protocols import Availability, Baseline, Clock, Evaluator, Forecast, Recorder
from slimfed.strategies.roster import Roster
from slimfed.strategies.round_loop import run_round
from slimfed.strategies.round_state import RunContext
from slimfed.strategies.server import SERVER_OPTIMIZERS
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.settings import StrategySettings
from slimfed.strategies.transport import wait_for_nodes
from slimfed.strategies.where import Where


class FedSlim(Strategy):
    """Federated tuning and pruning of unequal devices.

    Make one for a run and call :meth:`start` once, with the Grid of a Flower ServerApp. ``fleet`` is changed by every
    round. The loop begins after the fleet's last finished round, so that a restored fleet continues where it stopped.
    """

    def __init__(
        self,
        settings: StrategySettings,
        fleet: Fleet,
        clock: Clock,
        recorder: Recorder,
        evaluator: Evaluator,
        forecast: Forecast | None = None,
        examples: Mapping[int, int] | None = None,
        progress: RunProgress | None = None,
        *,
        where: Where | None = None,
        admitted: Collection[int] | None = None,
        availability: Availability | None = None,
    ) -> None:
        """``forecast``: times of arms for agents that foresee (``Bandit.foresees``); not needed by other agents.

        ``examples``: training texts by device, if the server knows them. ``progress`` is told what is under way.
        Of real devices those that ``where`` admits are asked (None: all), of simulated ones those of ``admitted`` when
        they are available (None: always).
        """
        fleet.precision = settings.task.messages.precision
        optimizer = SERVER_OPTIMIZERS[settings.server.optimizer](settings.server)
        roster = Roster(len(fleet.devices), where=where) if settings.real else None
        self.fleet = fleet
        self.context = RunContext(
            settings,
            clock,
            recorder,
            evaluator,
            forecast,
            optimizer,
            roster,
            examples,
            progress or RunProgress(),
            admitted,
            availability,
        )

    def start(  # type: ignore[override]  # the fleet holds the arrays, the settings the rest
        self, grid: Grid, first_round: int | None = None
    ) -> Result:
        """Run all rounds from ``first_round`` (default: the one after the fleet's last) to the last of the job.

        The result holds loss and accuracy of the global model, by round. Raises ``QuorumError``,
        ``NobodyAvailableError``, ``TimeoutError`` (no nodes) or ``StopRequestedError``; the records are then those of
        the last finished round.
        """
        settings, recorder = self.context.settings, self.context.recorder
        self.context.progress.enter("waiting")
        wait_for_nodes(grid, settings.nodes, settings.reply_seconds, recorder.stop_requested)
        if self.fleet.round == 0:
            self._begin()
        result = Result()
        for number in range(first_round or self.fleet.round + 1, settings.task.training.rounds + 1):
            evaluation = run_round(self.context, self.fleet, number, grid).evaluation
            if evaluation is not None:
                measures = MetricRecord({"loss": evaluation.loss, "accuracy": evaluation.accuracy})
                result.evaluate_metrics_serverapp[number] = measures
        return result

    def _begin(self) -> None:
        """Record round 0, which takes no virtual time: the untuned model, and the most frequent class."""
        self.context.progress.enter("evaluating")
        evaluator, examples = self.context.evaluator, evaluated_examples(self.context.settings, 0)
        writing = writes(self.context.settings, 0)
        untuned = evaluator.evaluate(self.fleet.adapter, self.fleet.structure, examples, write=writing)
        self.context.recorder.begin(Baseline(untuned, evaluator.majority(examples)))

    def summary(self) -> None:
        """Print nothing: the job and its method are in the store."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Raise ``NotImplementedError``: :meth:`start` makes each message when it is to be sent."""
        _only_start("configure_train")

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Raise ``NotImplementedError``: :meth:`start` checks and adds up each reply when it comes."""
        _only_start("aggregate_train")

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """No messages: a device evaluates its own model right after training."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """None: evaluations are part of the updates."""
        return None


def _only_start(method: str) -> NoReturn:
    raise NotImplementedError(f"FedSlim.{method} does not stand alone: call FedSlim.start(grid), which runs the rounds")
