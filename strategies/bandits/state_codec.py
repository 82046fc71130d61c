"""The agents of a whole fleet as a few tensors, since the pulls of thousands of agents are too large for JSON."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from slimfed.strategies.bandits.base import Bandit
from slimfed.strategies.bandits.spec import BanditSpec

_WORD = 2**64
_OWN = ("spec", "rng", "pulls")


def pack(agents: Iterable[Bandit]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and a JSON-able rest that together hold every agent's ``state()``, one after another.

    ``rng``: uint64 [agents, 6], the PCG64 of each. ``pulls``: float64 [pulls of all, columns], with ``pull-counts``
    int64 [agents] as the number of pulls of each agent. The rest has the names of the integer columns, the
    specification, and for each agent the other values that this kind of agent keeps. Raises ``ValueError`` unless they
    have one specification.
    """
    generators: list[list[int]] = []
    counts: list[int] = []
    pulls: list[np.ndarray] = []
    whole: list[int] = []
    spec: dict[str, Any] = {}
    others: dict[str, list[Any]] = {}
    for agent in agents:
        state = agent.state()
        generators.append(_words(state["rng"]))
        rows = state.get("pulls", [])
        whole = whole or [place for place, value in enumerate(rows[0] if rows else ()) if isinstance(value, int)]
        counts.append(len(rows))
        if rows:
            pulls.append(np.array(rows, dtype=np.float64))
        spec = spec or state["spec"]
        if state["spec"] != spec:
            raise ValueError("the agents of a fleet have one specification")
        for name in state.keys() - set(_OWN):
            others.setdefault(name, []).append(state[name])
    tensors = {
        "rng": np.array(generators, dtype=np.uint64).reshape(-1, 6),
        "pulls": np.concatenate(pulls) if pulls else np.zeros((0, 0)),
        "pull-counts": np.array(counts, dtype=np.int64),
    }
    return tensors, {"spec": spec, "whole": whole, "others": others}


def unpack(tensors: Mapping[str, np.ndarray], rest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The states that were given to :func:`pack`, in order. Raises ``ValueError`` if the parts do not fit together."""
    spec = BanditSpec.model_validate(rest["spec"])
    counts = tensors["pull-counts"]
    ends = np.cumsum(counts)
    if len(tensors["rng"]) != len(counts) or (ends[-1] if len(ends) else 0) != len(tensors["pulls"]):
        raise ValueError(f"{len(tensors['pulls'])} pulls of {len(tensors['rng'])} agents are not those that were kept")
    for index, (words, end, count) in enumerate(zip(tensors["rng"].tolist(), ends, counts, strict=True)):
        rows = tensors["pulls"][end - count : end].tolist()
        yield {
            "spec": spec,
            "rng": _generator(words),
            "pulls": [[int(v) if place in rest["whole"] else v for place, v in enumerate(row)] for row in rows],
        } | {name: values[index] for name, values in rest["others"].items()}


def _words(state: Mapping[str, Any]) -> list[int]:
    """A PCG64 as six words of 64 bits. Raises ``ValueError`` for another generator."""
    if state["bit_generator"] != "PCG64":
        raise ValueError(f"agents draw from a PCG64, not from a {state['bit_generator']}")
    inner = state["state"]
    wide = [word for name in ("state", "inc") for word in divmod(inner[name], _WORD)]
    return [*wide, state["has_uint32"], state["uinteger"]]


def _generator(words: list[int]) -> dict[str, Any]:
    """Inverse of :func:`_words`."""
    high, low, inc_high, inc_low, has, last = words
    inner = {"state": high * _WORD + low, "inc": inc_high * _WORD + inc_low}
    return {"bit_generator": "PCG64", "state": inner, "has_uint32": has, "uinteger": last}
