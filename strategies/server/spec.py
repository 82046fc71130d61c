"""The ``[server]`` section of the job file."""

from pydantic import Field

from slimfed.clients.spec import Section


class ServerSpec(Section):
    """What the server makes of a round's aggregate: its change is a pseudo-gradient for Flower's optimisers."""

    optimizer: str = Field("none", description="name in the registry of server optimisers; none: the aggregate counts")
    learning_rate: float | None = Field(None, gt=0, description="server's rate; default: fedavgm 1.0, fedadam 0.01")
    momentum: float = Field(0.9, ge=0, lt=1, description="fedavgm: what the last step still counts")
    beta_1: float = Field(0.9, ge=0, lt=1, description="fedadam: decay of the first moment")
    beta_2: float = Field(0.99, ge=0, lt=1, description="fedadam: decay of the second moment")
    tau: float = Field(1e-3, gt=0, description="fedadam: added to the root of the second moment; adaptivity")
