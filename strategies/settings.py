"""The settings of the strategy."""

from dataclasses import dataclass, field

from slimfed.clients.spec import TaskSpec
from slimfed.strategies.bandits import BANDITS
from slimfed.strategies.bandits.spec import BanditSpec
from slimfed.strategies.selection import SELECTORS, Participation
from slimfed.strategies.server.spec import ServerSpec


@dataclass(frozen=True)
class StrategySettings:
    """The fields of a job that the strategy needs. Sparsities are shares of the prunable parameters.

    ``aggregation``: name in the registry. ``evaluate_devices`` of the devices' own models are measured every
    ``evaluate_every`` rounds, all of them in the last. ``evaluate_examples``: test examples for the global model before
    the last round, a sample; 0: all. ``nodes``: number of nodes that the run waits for before it
    starts. ``reply_seconds``: deadline for a node's reply. ``straggler_seconds``: deadline for a device's completion by
    the clock; None: no deadline. A round with fewer than ``quorum`` (share of the devices that it asked) usable updates
    is repeated up to ``retries`` times. ``real``: every node hosts one device, and is asked for its number.
    ``participation``: how many devices a round asks, and which. ``filtered``: some devices may not be asked at all.
    """

    task: TaskSpec
    bandit: BanditSpec
    aggregation: str
    target_sparsity: float
    evaluate_every: int
    evaluate_devices: int
    nodes: int
    reply_seconds: float
    straggler_seconds: float | None
    quorum: float
    retries: int
    real: bool = False
    evaluate_examples: int = 0
    server: ServerSpec = field(default_factory=ServerSpec)
    participation: Participation = field(default_factory=Participation)
    filtered: bool = False

    @property
    def probes(self) -> bool:
        """True if the agent or the selection learns from losses, so that devices must measure them for it."""
        selects = not self.participation.everyone and SELECTORS[self.participation.selection].probes
        return selects or (self._learns and BANDITS[self.bandit.name].probes)

    @property
    def compares(self) -> bool:
        """True if the agent learns from the agreement of updates with each other."""
        return self._learns and BANDITS[self.bandit.name].compares

    @property
    def _learns(self) -> bool:
        return BANDITS[self.bandit.name].learns and self.bandit.control != "still"
