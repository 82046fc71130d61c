"""Seeds of random draws, derived from the run's seed and the purpose of the draw; there is no global state."""

import hashlib
import json
from operator import index

import numpy as np


def derive(run_seed: int, *keys: int | str) -> int:
    """A seed in [0, 2**31) for one purpose, such as ``derive(seed, "device", round, device)``.

    Equal arguments give the same seed on every machine and in every process; unequal ones give unrelated seeds
    (``1`` and ``"1"`` differ, and so do ``("a", "b")`` and ``("ab",)``). Integers may be numpy's.
    """
    path = [index(run_seed), *(key if isinstance(key, str) else index(key) for key in keys)]
    entropy = int.from_bytes(hashlib.sha256(json.dumps(path).encode()).digest())
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] & 0x7FFF_FFFF)
