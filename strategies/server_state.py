"""The server's state between rounds, from which a run continues to the bit."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np

from slimfed.clients.adapter import Adapter, Delta, Factors
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.seeds import derive
from slimfed.clients.spec import Precision
from slimfed.clients.structure import Blueprint, Structure
from slimfed.strategies.bandits import BanditSpec, FleetAgent, IndependentAgents, make_agent, unpack_agent
from slimfed.strategies.bandits.control import Shuffle
from slimfed.strategies.late_updates import in_flight
from slimfed.strategies.late_updates.in_flight import InFlight
from slimfed.strategies.selection import Selector, unpack_selector
from slimfed.strategies.selection.base import pack_selector
from slimfed.strategies.speed_model import Pace

# Weight of earlier scores when a round's scores are added, since old scores belong to an older adapter.
_SCORE_MEMORY = 0.5
_NO_PACE = (math.nan,) * 3
_DELTA = ("values", "indices", "levels")


@dataclass
class DeviceState:
    """The server's state of one device: its structure, and what is known of it.

    ``pace``: its observed speed; None before its first accepted update. ``rank``: the largest that it still
    trains; None while it has given up none. ``memory``: rounding error of a simulated device's last
    update; None if nothing was rounded.
    """

    structure: Structure
    pace: Pace | None = None
    rank: int | None = None
    memory: "Memory | None" = None


@dataclass(frozen=True)
class Memory:
    """The rounding error of a device's last update: an adapter in the shape of ``structure`` and ``rank``."""

    structure: Structure
    rank: int
    adapter: Adapter


@dataclass
class Fleet:
    """The global adapter (all coordinates, largest rank), the devices, their agent, the fleet's scores and the clock.

    ``round`` is the last finished one; ``score_sum`` is float32 [units], the discounted sum of the devices' scores
    (0 from a device that has removed the unit), and ``score_weight`` the discounted number of devices in it.
    ``server_memory``: state of the server optimiser. ``precision``: of adapters in messages. ``memory``: rounding error
    of the global adapter when it was last sent; None if nothing was rounded. ``shuffle``: permutes what the agent is
    told (``bandit.control``); None if it is told the truth. ``selector``: chooses the devices of each round; None if
    every round asks all that it can have. ``asked``: int64 [devices], rounds that asked each device; None while all
    took part in all rounds. ``in_flight``: updates of devices that are still at work, ascending by device.
    ``measured``: float64 [1 + blocks], what ``pruning.allocation`` measured on text; None while it has measured
    nothing.
    """

    blueprint: Blueprint
    adapter: Adapter
    devices: list[DeviceState]
    agent: FleetAgent
    structure: Structure
    score_sum: np.ndarray
    score_weight: float = 0.0
    round: int = 0
    virtual_clock: float = 0.0
    clipping_norm: float | None = None
    server_memory: dict[str, np.ndarray] = field(default_factory=dict)
    precision: Precision = "fp32"
    memory: Adapter | None = None
    shuffle: Shuffle | None = None
    selector: Selector | None = None
    asked: np.ndarray | None = None
    in_flight: tuple[InFlight, ...] = ()
    measured: np.ndarray | None = None

    @staticmethod
    def new(
        blueprint: Blueprint,
        adapter: Adapter,
        devices: int,
        bandit: BanditSpec,
        seed: int,
        scores: np.ndarray | None = None,
        start: Structure | None = None,
        selector: Selector | None = None,
        measured: np.ndarray | None = None,
    ) -> "Fleet":
        """A fleet before its first round: every device has the structure ``start``; None: the dense one.

        ``scores``: float32 [units], importance that was computed without any data. ``measured``: what the server has
        measured for the layers' shares.
        """
        first = start or blueprint.dense()
        states = [DeviceState(first) for _ in range(devices)]
        known = np.zeros(blueprint.units, dtype=np.float32) if scores is None else scores
        return Fleet(
            blueprint,
            adapter,
            states,
            make_agent(bandit, seed, devices),
            first,
            known,
            score_weight=0.0 if scores is None else 1.0,
            shuffle=Shuffle(derive(seed, "shuffle")) if bandit.control == "shuffled" else None,
            selector=selector,
            measured=measured,
        )

    @property
    def scores(self) -> np.ndarray:
        """Mean importance over the fleet, float32 [units]; zeros before anything was scored."""
        return (self.score_sum / max(self.score_weight, 1e-12)).astype(np.float32)

    @property
    def sparsity(self) -> float:
        """Mean sparsity of the devices."""
        return float(np.mean([device.structure.sparsity for device in self.devices]))

    def count_asked(self, devices: Sequence[int]) -> None:
        """Count a round that asks these ``devices``, before it is the last finished one."""
        if self.asked is None and len(devices) < len(self.devices):
            self.asked = np.full(len(self.devices), self.round, dtype=np.int64)
        if self.asked is not None:
            self.asked[list(devices)] += 1

    @property
    def most_asked(self) -> int:
        """How many rounds have asked the device that was asked most often."""
        return self.round if self.asked is None else int(self.asked.max())

    def learn_scores(self, total: np.ndarray, count: int) -> None:
        """Update the mean scores with one round's: their sum ``total``, float64 [units], of ``count`` devices."""
        if count:
            # Scores of the few devices that still prune must not outweigh the earlier scores of all devices.
            memory = 1 - (1 - _SCORE_MEMORY) * count / len(self.devices)
            self.score_sum = (memory * self.score_sum + total).astype(np.float32)
            self.score_weight = memory * self.score_weight + count

    def learn_shares(self, measured: np.ndarray | None) -> None:
        """Keep what devices ``measured`` for the layers' shares; the first round in which any did decides."""
        if self.measured is None:
            self.measured = measured

    def know_scores(self, scores: np.ndarray) -> None:
        """Replace the mean scores by ``scores``, float32 [units], which depend on no device's answer."""
        self.score_sum, self.score_weight = scores, 1.0

    def checkpoint(self) -> tuple[dict[str, np.ndarray], dict]:
        """Tensors and a JSON-able state that together restore this fleet exactly."""
        tensors = {f"{part}/{name}": t for name, f in self.adapter.factors.items() for part, t in f.parts().items()}
        tensors |= {f"head/{name}": value for name, value in self.adapter.head.items()}
        tensors |= {f"extra/{name}": value for name, value in self.adapter.extra.items()}
        for name, delta in self.adapter.deltas.items():
            tensors |= {f"{part}/{name}": getattr(delta, part) for part in _DELTA}
        tensors |= {f"residual/{name}": value for name, value in self.adapter.residual.items()}
        tensors |= {f"server/{name}": value for name, value in self.server_memory.items()}
        if self.memory is not None:
            tensors["memory"] = self.memory.vector
        remembering = {n: device.memory for n, device in enumerate(self.devices) if device.memory is not None}
        for n, memory in remembering.items():
            tensors |= {f"memory/{n}": memory.adapter.vector, f"memory-structure/{n}": memory.structure.pack()}
        tensors["structures"] = np.stack([device.structure.pack() for device in self.devices])
        tensors["structure"] = self.structure.pack()
        tensors["scores"] = self.score_sum
        kept, agent = self.agent.pack()
        tensors |= {f"bandits/{name}": tensor for name, tensor in kept.items()}
        if self.shuffle is not None:
            tensors["shuffle"] = self.shuffle.past
        tensors["ranks"] = np.array([device.rank or 0 for device in self.devices], dtype=np.int32)
        tensors["paces"] = np.array(
            [astuple(device.pace) if device.pace else _NO_PACE for device in self.devices], dtype=np.float64
        )
        state: dict[str, Any] = {
            "round": self.round,
            "virtual_clock": self.virtual_clock,
            "score_weight": self.score_weight,
            "clipping_norm": self.clipping_norm,
            "modules": list(self.adapter.factors),
            "head": list(self.adapter.head),
            "residual": list(self.adapter.residual),
            "deltas": {name: list(delta.shape) for name, delta in self.adapter.deltas.items()},
            "extra": list(self.adapter.extra),
            "memory_ranks": {str(n): memory.rank for n, memory in remembering.items()},
            "bandits": agent,
            "shuffle": None if self.shuffle is None else self.shuffle.rng.bit_generator.state,
        }
        if self.asked is not None:
            tensors["asked"] = self.asked.copy()
        if self.measured is not None:
            tensors["measured"] = self.measured
        if self.selector is not None:
            own, state["selection"] = pack_selector(self.selector)
            tensors |= {f"selection/{name}": tensor for name, tensor in own.items()}
        if self.in_flight:
            flying, state["in_flight"] = in_flight.pack(self.in_flight)
            tensors |= flying
        return tensors, state

    @staticmethod
    def restore(blueprint: Blueprint, tensors: dict[str, np.ndarray], state: dict) -> "Fleet":
        """Inverse of :meth:`checkpoint`. Raises ``KeyError`` or ``ValueError`` if the parts do not fit."""
        factors = {
            name: Factors(tensors[f"a/{name}"], tensors[f"b/{name}"], tensors.get(f"gate/{name}"))
            for name in state["modules"]
        }
        head, residual, extra = (
            {name: tensors[f"{part}/{name}"] for name in state[part]} for part in ("head", "residual", "extra")
        )
        deltas = {
            name: Delta((rows, columns), *(tensors[f"{part}/{name}"] for part in _DELTA))
            for name, (rows, columns) in state["deltas"].items()
        }
        adapter = Adapter(factors, head, residual, deltas, extra)
        devices = [
            DeviceState(Structure.unpack(blueprint, bits), pace, rank)
            for bits, (pace, rank) in zip(tensors["structures"], _known(tensors, state), strict=True)
        ]
        for n, rank in state.get("memory_ranks", {}).items():
            structure = Structure.unpack(blueprint, tensors[f"memory-structure/{n}"])
            shapes = narrow(adapter, blueprint.dense(), structure, rank)
            devices[int(n)].memory = Memory(structure, rank, shapes.with_vector(tensors[f"memory/{n}"]))
        return Fleet(
            blueprint,
            adapter,
            devices,
            _agent(tensors, state),
            Structure.unpack(blueprint, tensors["structure"]),
            tensors["scores"],
            score_weight=state["score_weight"],
            round=state["round"],
            virtual_clock=state["virtual_clock"],
            clipping_norm=state.get("clipping_norm"),
            server_memory={n.removeprefix("server/"): t for n, t in tensors.items() if n.startswith("server/")},
            memory=adapter.with_vector(tensors["memory"]) if "memory" in tensors else None,
            shuffle=_shuffle(tensors, state),
            selector=_selector(tensors, state),
            asked=tensors.get("asked"),
            in_flight=in_flight.unpack(blueprint, adapter, tensors, state.get("in_flight", ())),
            measured=tensors.get("measured"),
        )


def _agent(tensors: dict[str, np.ndarray], state: dict[str, Any]) -> FleetAgent:
    """The fleet's agent; in checkpoints of the first versions, every device's in JSON."""
    if isinstance(state["bandits"], list):
        return IndependentAgents.restored(state["bandits"])
    kept = {n.removeprefix("bandits/"): tensor for n, tensor in tensors.items() if n.startswith("bandits/")}
    return unpack_agent(kept, state["bandits"], len(tensors["structures"]))


def _shuffle(tensors: dict[str, np.ndarray], state: dict[str, Any]) -> Shuffle | None:
    if not state.get("shuffle"):
        return None
    shuffle = Shuffle(0, tensors["shuffle"])
    shuffle.rng.bit_generator.state = state["shuffle"]
    return shuffle


def _selector(tensors: dict[str, np.ndarray], state: dict[str, Any]) -> Selector | None:
    if not state.get("selection"):
        return None
    own = {name.removeprefix("selection/"): t for name, t in tensors.items() if name.startswith("selection/")}
    return unpack_selector(own, state["selection"], len(tensors["structures"]))


def _known(tensors: dict[str, np.ndarray], state: dict[str, Any]) -> Iterator[tuple[Pace | None, int | None]]:
    """Every device's pace and rank."""
    if isinstance(state["bandits"], list):  # checkpoints of the first versions: JSON only
        paces = (pace and Pace(*pace) for pace in state["paces"])
        yield from zip(paces, state.get("ranks", [None] * len(state["bandits"])), strict=True)
        return
    for pace, rank in zip(tensors["paces"].tolist(), tensors["ranks"].tolist(), strict=True):
        yield None if math.isnan(pace[0]) else Pace(*pace), rank or None
