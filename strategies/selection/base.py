"""The interface of a selection, which chooses the devices that a round asks."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from slimfed.clients.registry import Registry
from slimfed.clients.seeds import derive
from slimfed.strategies.selection.participation import Participation

Kept = tuple[dict[str, np.ndarray], dict[str, Any]]
"""Tensors and a JSON-able rest."""


@dataclass(frozen=True)
class Call:
    """What a selection is asked in round ``number`` (1-based): to choose ``count`` of ``candidates``.

    ``candidates``: the available devices, int64, ascending, more than ``count``. ``examples``: training texts of each,
    float64, as far as the server knows them; NaN elsewhere.
    """

    number: int
    candidates: np.ndarray
    count: int
    examples: np.ndarray


@dataclass(frozen=True)
class Answer:
    """What came of asking a device: if its update was ``accepted``, the ``loss`` (mean, nats) of the adapter that it
    was sent on its own text, its number of ``examples``, and its completion ``seconds``; else NaN, 0 and NaN."""

    device: int
    accepted: bool
    loss: float
    examples: int
    seconds: float


class Selector(ABC):
    """Chooses the devices of each round. The strategy makes one for a run, and in every round calls :meth:`select` once
    (unless all available devices are asked) and, when the round has ended, :meth:`observe` once.

    Every draw comes from :meth:`draw`, so that it depends on the run's seed and the round alone; what a selection knows
    beside these is in its checkpoint (:meth:`pack`). It is the same for every engine and for real devices. A new one is
    one file here, whose class is registered with :data:`SELECTORS`, or an entry point ``slimfed.selections`` of another
    package.

    No selection of slimfed draws each device by itself with a fixed probability (Poisson sampling), so that accounts of
    privacy claim no amplification by sampling (``strategies/privacy.py``).
    """

    independent_of_text: ClassVar[bool] = True
    """False if choices depend on losses or times, which tell of a device's text; privacy requires True."""

    probes: ClassVar[bool] = False
    """True if it learns from the loss before training, which then counts as the devices' work."""

    def __init__(self, spec: Participation, seed: int, devices: int) -> None:
        """``seed``: the run's; ``devices``: number of devices of the fleet."""
        self.spec = spec
        self.seed = seed
        self.devices = devices

    @abstractmethod
    def select(self, call: Call) -> np.ndarray:
        """``call.count`` different devices of ``call.candidates``, in any order."""

    def observe(self, number: int, answers: Sequence[Answer]) -> None:  # noqa: B027  # optional, as is load
        """What came of the devices whose work ended in round ``number``; called once a round, in ascending order."""

    def pack(self) -> Kept:
        """The state from which :meth:`load` continues to the bit; called at every checkpoint."""
        return {}, {}

    def load(self, tensors: Mapping[str, np.ndarray], rest: Mapping[str, Any]) -> None:  # noqa: B027
        """Take the state that :meth:`pack` gave. Raises ``ValueError`` or ``KeyError`` if it does not fit."""

    def draw(self, number: int) -> np.random.Generator:
        """The generator of round ``number``."""
        return np.random.default_rng(derive(self.seed, "selection", number))


SELECTORS = Registry[type[Selector]](
    "fleet.selection", "slimfed.selections", Selector, package="slimfed.strategies.selection", classes=True
)
"""Selections by name, as classes."""


def make_selector(spec: Participation, seed: int, devices: int) -> Selector | None:
    """The new selection of a run; None if every round asks everyone. Raises ``InputError`` for an unknown name."""
    return None if spec.everyone else SELECTORS[spec.selection](spec, seed, devices)


def pack_selector(selector: Selector) -> Kept:
    """The selection with its state, for :func:`unpack_selector`."""
    tensors, rest = selector.pack()
    return tensors, {"spec": asdict(selector.spec), "seed": selector.seed, "state": rest}


def unpack_selector(tensors: Mapping[str, np.ndarray], rest: Mapping[str, Any], devices: int) -> Selector:
    """The selection that gave these ``tensors`` and ``rest``, ready to continue to the bit."""
    spec = Participation(**rest["spec"])
    selector = SELECTORS[spec.selection](spec, rest["seed"], devices)
    selector.load(tensors, rest["state"])
    return selector
