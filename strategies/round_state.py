"""Values that all rounds of a run share, and values that the steps of one round pass on. All are read-only."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from slimfed.clients.adapter import Adapter
from slimfed.clients.structure import Structure
from slimfed.strategies.accumulation import Collector
from slimfed.strategies.checks.reply_validation import RoundOutcome
from slimfed.strategies.planning import Plan
from slimfed.strategies.progress import RunProgress
from slimfed.strategies.protocols import Availability, Clock, Evaluator, Forecast, Recorder
from slimfed.strategies.roster import Roster
from slimfed.strategies.server import ServerOptimizer
from slimfed.strategies.settings import StrategySettings


@dataclass(frozen=True)
class RunContext:
    """The parts of a run that are the same in all rounds.

    ``forecast``: None unless the clock is virtual. ``roster``: which real node hosts which device; None if devices are
    simulated, so that any node can serve any device. ``examples``: training texts of every device, if the server has
    divided the text; None if only the devices know them. ``progress`` is told what is under way. ``admitted``: the
    simulated devices that may be asked; None: all. ``availability``: when they are available; None: always.
    """

    settings: StrategySettings
    clock: Clock
    recorder: Recorder
    evaluator: Evaluator
    forecast: Forecast | None
    optimizer: ServerOptimizer
    roster: Roster | None
    examples: Mapping[int, int] | None = None
    progress: RunProgress = field(default_factory=RunProgress)
    admitted: Collection[int] | None = None
    availability: Availability | None = None


@dataclass(frozen=True)
class RoundedAdapter:
    """The global adapter as it is sent, before it is narrowed to each device.

    ``adapter``: rounded to ``messages.precision``, all coordinates at the largest rank. ``rounding_error``: the
    difference by rounding, in the same shapes, to be added to the adapter of the next round before rounding; None in
    fp32.
    """

    adapter: Adapter
    rounding_error: Adapter | None


@dataclass(frozen=True)
class RoundPlan:
    """A round before anything is sent. ``number`` is 1-based.

    ``plans`` has one for every device that takes part, in device order. ``shared``: the structure of all
    devices; None if they have their own.
    """

    number: int
    plans: tuple[Plan, ...]
    sent: RoundedAdapter
    shared: Structure | None = None


@dataclass(frozen=True)
class Attempt:
    """The result of sending a round once.

    ``collected``: all accepted updates: their sums (``RoundAccumulator``) if the round waits for all of them, else they
    themselves (``HeldUpdates``). ``nodes``: number of devices given to each node that replied, by node id.
    ``node_phases``: seconds by phase, summed over the nodes. ``disclosures``: under local privacy, number of
    disclosures about every device in this run, this attempt included; else 0.
    """

    outcome: RoundOutcome
    collected: Collector
    nodes: Mapping[int, int]
    node_phases: Mapping[str, float]
    disclosures: int
