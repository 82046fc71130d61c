"""The ``[server]`` section of the job file."""

from typing import Literal

from pydantic import Field

from slimfed.clients.spec import Section

Mode = Literal["sync", "deadline", "buffered"]
"""What closes a round: the last update of the devices that it asked, a time, or a number of updates."""

Staleness = Literal["polynomial", "constant"]
"""How much of a late update counts, by the rounds that it is late."""


class ServerSpec(Section):
    """When a round closes, how late updates count, and the server optimiser.

    Flower's optimisers use the change of a round's aggregate as a pseudo-gradient.
    """

    mode: Mode = Field(
        "sync",
        description="what closes a round: sync: the last of the devices that it asked; deadline: a time; buffered: a "
        "number of updates. An update that comes later counts in a later round (docs/late-updates.md)",
    )
    close_seconds: float | None = Field(
        None,
        gt=0,
        description="deadline: virtual seconds after which a round closes; default: the deadline that the agent plans "
        "the round by, or, of an agent that plans none, the time by which close_share of the devices are expected",
    )
    close_share: float = Field(
        0.8,
        gt=0.0,
        le=1.0,
        description="deadline: share of the asked devices whose updates are expected by then, by their observed speeds",
    )
    buffer: int = Field(10, ge=1, description="buffered: updates that close a round")
    staleness: Staleness = Field(
        "polynomial",
        description="factor on the change of an update that comes s rounds late: polynomial: 1 / sqrt(1 + s); "
        "constant: 1",
    )
    max_staleness: int | None = Field(
        None, ge=1, description="most rounds that an update may come late and still count; default: no limit"
    )
    optimizer: str = Field(
        "none", description="name in the registry of server optimisers; none: the aggregate is used as it is"
    )
    learning_rate: float | None = Field(
        None, gt=0, description="learning rate of the server; default: fedavgm 1.0, fedadam 0.01"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="fedavgm: factor on the momentum of the last step")
    beta_1: float = Field(0.9, ge=0, lt=1, description="fedadam: decay of the first moment")
    beta_2: float = Field(0.99, ge=0, lt=1, description="fedadam: decay of the second moment")
    tau: float = Field(1e-3, gt=0, description="fedadam: constant added to the root of the second moment")

    @property
    def waits_for_all(self) -> bool:
        """True if no update outlives the round that asked for it."""
        return self.mode == "sync"

    def too_stale(self, rounds: int) -> bool:
        """True if an update that comes so many ``rounds`` late no longer counts."""
        return self.max_staleness is not None and rounds > self.max_staleness
