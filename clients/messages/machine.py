"""What a node says of its machine when it is asked whom it hosts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """``memory_gib``: all of its memory; ``cores``: processor cores that it may use; ``tags``: set by its owner."""

    memory_gib: float
    cores: int
    tags: tuple[str, ...] = ()
