"""What the strategy is told by the job."""

from dataclasses import dataclass, field

from slimfed.clients.spec import TaskSpec
from slimfed.strategies.bandits.spec import BanditSpec
from slimfed.strategies.server.spec import ServerSpec


@dataclass(frozen=True)
class StrategySettings:
    """Sparsities are shares of the prunable parameters, times are seconds.

    ``evaluate_devices`` models of devices' own are measured every ``evaluate_every`` rounds, all of them in the last.
    A round with fewer than ``quorum`` (share of the devices) usable updates is repeated up to ``retries`` times.
    ``straggler_seconds`` is the deadline for a device's completion, ``reply_seconds`` the one for a node's reply.
    ``real``: every node hosts one device of its own, and is asked which.
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
    server: ServerSpec = field(default_factory=ServerSpec)
