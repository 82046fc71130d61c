"""The ``[server]`` section of the job file."""

from pydantic import Field

from slimfed.clients.spec import Section


class ServerSpec(Section):
    """The server optimiser: Flower's optimisers use the change of a round's aggregate as a pseudo-gradient."""

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
