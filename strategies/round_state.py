"""What a run's rounds share, and what the steps of one round hand to each other. All of it is read-only."""

from collections.abc import Mapping
from dataclasses import dataclass

from slimfed.clients.adapter import Adapter
from slimfed.strategies.accumulation import RoundAccumulator
from slimfed.strategies.planning import Plan
from slimfed.strategies.protocols import Clock, Evaluator, Forecast, Recorder
from slimfed.strategies.reply_validation import RoundOutcome
from slimfed.strategies.roster import Roster
from slimfed.strategies.server import ServerOptimizer
from slimfed.strategies.settings import StrategySettings


@dataclass(frozen=True)
class RunContext:
    """What is the same in all rounds of a run.

    ``forecast``: None unless the clock is virtual. ``roster``: which real node hosts which device; None if devices are
    simulated, so that any node can serve any device.
    """

    settings: StrategySettings
    clock: Clock
    recorder: Recorder
    evaluator: Evaluator
    forecast: Forecast | None
    optimizer: ServerOptimizer
    roster: Roster | None


@dataclass(frozen=True)
class RoundedAdapter:
    """The global adapter as it is sent, before it is narrowed to each device.

    ``adapter``: rounded to ``messages.precision``, all coordinates at the largest rank. ``rounding_error``: what the
    rounding took away, in the same shapes, to be added to the adapter of the next round before rounding; None in fp32.
    """

    adapter: Adapter
    rounding_error: Adapter | None


@dataclass(frozen=True)
class RoundPlan:
    """A round before anything is sent. ``number`` is 1-based; ``plans`` has one for every device, in device order."""

    number: int
    plans: tuple[Plan, ...]
    sent: RoundedAdapter


@dataclass(frozen=True)
class Attempt:
    """What came of sending a round once.

    ``accumulated``: all accepted updates. ``nodes``: number of devices given to each node that replied, by node id.
    ``node_phases``: seconds by phase, summed over the nodes. ``disclosures``: under local privacy, how often something
    was told of every device in this run, this attempt included; else 0.
    """

    outcome: RoundOutcome
    accumulated: RoundAccumulator
    nodes: Mapping[int, int]
    node_phases: Mapping[str, float]
    disclosures: int
