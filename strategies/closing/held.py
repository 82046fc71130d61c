"""Updates that are kept until it is known when their round closes."""

from dataclasses import dataclass, field

from slimfed.clients.update import Update


@dataclass
class HeldUpdates:
    """All accepted updates of a round, which are counted now or stay in flight: unlike sums, their memory grows."""

    updates: list[Update] = field(default_factory=list)

    def add(self, update: Update) -> None:
        """Keep one accepted update."""
        self.updates.append(update)

    def merge(self, other: "HeldUpdates") -> None:
        """Keep the updates of another one, too."""
        self.updates += other.updates
