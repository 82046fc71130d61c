"""Oort: devices whose text still teaches most and that are not too slow, with a share of devices never asked."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from slimfed.strategies.selection.base import SELECTORS, Answer, Call, Kept, Selector
from slimfed.strategies.selection.memory import DeviceMemory

# The published defaults: exploration falls from 0.9 by a factor a round; a slow device's utility by the square of its
# delay; utilities are clipped at a quantile; of the best, those above a share of the cut-off are drawn.
_FIRST_EXPLORATION, _DECAY = 0.9, 0.98
_PENALTY = 2.0
_CLIP = 0.95
_CUT_OFF = 0.95
_UNCERTAINTY = 0.1
# The pacer: the preferred duration is a percentile of known times, and grows when the utility of as many rounds sinks.
_FIRST_PERCENTILE, _STEP, _WINDOW = 30.0, 5.0, 20


@SELECTORS.register("oort")
class Oort(Selector):
    """Guided participant selection (Lai et al., Oort, OSDI 2021, algorithm 1).

    With B the texts of a device, L its loss, R the round, l the last round that asked it, t its last time and T the
    preferred duration::

        utility = clip(|B| L) scaled to [0, 1] + sqrt(0.1 ln R / l), times (T / t)^2 where t > T

    The best by utility are drawn in proportion to it from all that reach 95% of the cut-off; the share e of the places
    is for devices that were never asked, e = max(``fleet.exploration``, 0.9 * 0.98^(R - 1)). T is the 30th percentile
    of the known times, and 5 percentiles more whenever 20 rounds brought less utility than the 20 before.

    [The formulas are from memory; uncertainty term, penalty, cut-off and scaling were checked against published copies
    of its code, the paper itself was not at hand.] Deviations: |B| times the root mean square of the losses of single
    texts is |B| times their mean, since a device tells no more; new devices are drawn uniformly, since nothing is known
    of their speed; no device is left out for having been asked often.
    """

    independent_of_text = False
    probes = True

    def __init__(self, spec: Any, seed: int, devices: int) -> None:
        super().__init__(spec, seed, devices)
        self._memory = DeviceMemory.new(devices)
        self._gains: list[float] = []

    def select(self, call: Call) -> np.ndarray:
        """New devices for the share of exploration, and the best of the others."""
        draw, memory = self.draw(call.number), self._memory
        is_known = np.isfinite(memory.loss[call.candidates])
        known, new = call.candidates[is_known], call.candidates[~is_known]
        places = memory.places(self.exploration(call.number), call.count, draw)
        explored = min(len(new), max(places, call.count - len(known)))
        best = self._best(known, call.count - explored, call.number, draw)
        return np.concatenate([best, memory.longest_unasked(new, explored, draw)])

    def exploration(self, number: int) -> float:
        """The share of places for devices without answer in round ``number``."""
        return max(self.spec.exploration, _FIRST_EXPLORATION * _DECAY ** (number - 1))

    def utilities(self, devices: np.ndarray, number: int) -> np.ndarray:
        """The utility of ``devices`` that have answered, float64 [devices], above 0."""
        memory = self._memory
        learning = memory.examples[devices] * memory.loss[devices]
        learning = np.minimum(learning, np.quantile(learning, _CLIP))
        spread = float(np.ptp(learning))
        scaled = (learning - learning.min()) / spread if spread > 0 else np.ones(len(devices))
        uncertain = np.sqrt(_UNCERTAINTY * math.log(max(number, 2)) / memory.asked[devices])
        times, preferred = memory.seconds[devices], self.preferred_seconds
        late = np.where(times > preferred, (preferred / np.maximum(times, 1e-9)) ** _PENALTY, 1.0)
        return (scaled + uncertain) * late

    @property
    def preferred_seconds(self) -> float:
        """T, the percentile of the known times that the pacer has reached."""
        times = self._memory.seconds[np.isfinite(self._memory.seconds)]
        windows = [math.fsum(self._gains[at : at + _WINDOW]) for at in range(0, len(self._gains), _WINDOW)]
        whole = windows[: len(self._gains) // _WINDOW]
        sunk = sum(after < before for before, after in pairwise(whole))
        percentile = min(100.0, _FIRST_PERCENTILE + _STEP * sunk)
        return float(np.percentile(times, percentile)) if times.size else math.inf

    def _best(self, known: np.ndarray, count: int, number: int, draw: np.random.Generator) -> np.ndarray:
        if count == 0:
            return known[:0]
        utilities = self.utilities(known, number)
        cut_off = _CUT_OFF * float(np.sort(utilities)[-count])
        chosen = utilities >= cut_off
        shares = utilities[chosen] / utilities[chosen].sum()
        return draw.choice(known[chosen], count, replace=False, p=shares)

    def observe(self, number: int, answers: Sequence[Answer]) -> None:
        """Remember losses and times, and how much utility the round brought."""
        self._memory.learn(number, answers)
        self._gains.append(math.fsum(a.examples * a.loss for a in answers if a.accepted and math.isfinite(a.loss)))

    def pack(self) -> Kept:
        """What is remembered of the devices, and the utility of each round."""
        return self._memory.tensors() | {"gains": np.array(self._gains, dtype=np.float64)}, {}

    def load(self, tensors: Mapping[str, np.ndarray], rest: Mapping[str, Any]) -> None:
        """Take that state."""
        self._memory = DeviceMemory.of(tensors, self.devices)
        self._gains = tensors["gains"].tolist()
