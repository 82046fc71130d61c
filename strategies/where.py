"""``fleet.where``: which devices may be asked, as a small expression over what is known of a device.

Grammar, with numbers as in ``8`` or ``0.5`` and texts in quotes::

    filter     = both ("or" both)*
    both       = one ("and" one)*
    one        = "not" one | "(" filter ")" | comparison
    comparison = FIELD ("==" | "!=" | "<" | "<=" | ">" | ">=") VALUE | TEXT ["not"] "in" "tags"

Nothing is evaluated as Python.
"""

import difflib
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Fact = float | str | tuple[str, ...]
Facts = Mapping[str, Fact]
"""What is known of a device, by the fields of :data:`FIELDS`."""

FIELDS: dict[str, type] = {
    "device": float,
    "class": str,
    "gflops": float,
    "memory_gib": float,
    "bandwidth_gb_s": float,
    "down_mbit_s": float,
    "up_mbit_s": float,
    "latency_ms": float,
    "cores": float,
    "tags": tuple,
}
"""Fields of a filter and their types: numbers, texts, and tags."""

SIMULATED = tuple(field for field in FIELDS if field != "cores")
"""Fields that are known of simulated devices, by their profile."""

REAL = ("device", "memory_gib", "cores", "tags")
"""Fields that a real node tells of itself."""

_LONGEST = 500
_DEEPEST = 50
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.])|(?P<word>[A-Za-z_]\w*)"
    r"|(?P<text>\"[^\"]*\"|'[^']*')|(?P<sign>==|!=|<=|>=|<|>|\(|\)))"
)

Holds = Callable[[Facts], bool]


@dataclass(frozen=True)
class Where:
    """A filter of devices. ``fields``: those that it names."""

    text: str
    fields: frozenset[str]
    _holds: Holds

    def admits(self, facts: Facts) -> bool:
        """True if a device of these ``facts`` may be asked; a comparison of a field that it does not tell is false."""
        return self._holds(facts)


def parse_where(text: str) -> Where:
    """The filter that ``text`` writes. Raises ``ValueError`` with the place, the cause and what is valid there."""
    if len(text) > _LONGEST:
        raise ValueError(f"has {len(text)} characters, at most {_LONGEST} are read")
    parser = _Parser(_tokens(text))
    holds = parser.filter()
    if parser.next is not None:
        raise ValueError(f"{parser.shown} is not expected there; join comparisons by and, or")
    return Where(text, frozenset(parser.fields), holds)


def _tokens(text: str) -> list[tuple[str, str]]:
    """Kind and text of each token."""
    found, at = [], 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"cannot be read at {text[at:].strip()[:20]!r}; comparisons are like memory_gib >= 8")
        found.append((str(match.lastgroup), match[str(match.lastgroup)]))
        at = match.end()
    return found


class _Parser:
    """Reads tokens from the first to the last; ``fields`` are those that were named so far."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self.fields: set[str] = set()

    @property
    def next(self) -> tuple[str, str] | None:
        """The next token; None at the end."""
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    @property
    def shown(self) -> str:
        """The next token for an error."""
        return "the end" if self.next is None else repr(self.next[1])

    def _take(self, *texts: str) -> str | None:
        """The next token, if it is one of ``texts`` and not in quotes."""
        token = self.next
        if token is None or token[0] in ("text", "number") or token[1] not in texts:
            return None
        self._at += 1
        return token[1]

    def filter(self) -> Holds:
        parts = [self._both()]
        while self._take("or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else lambda facts: any(part(facts) for part in parts)

    def _both(self) -> Holds:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else lambda facts: all(part(facts) for part in parts)

    def _one(self) -> Holds:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError(f"has more than {_DEEPEST} brackets or nots within each other")
        try:
            if self._take("not"):
                inner = self._one()
                return lambda facts: not inner(facts)
            if self._take("("):
                inner = self.filter()
                if not self._take(")"):
                    raise ValueError(f"a bracket is not closed before {self.shown}")
                return inner
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Holds:
        token = self.next
        if token is not None and token[0] == "text":
            return self._tagged(_unquoted(token[1]))
        if token is None or token[0] != "word":
            raise ValueError(f"a field is missing before {self.shown}; fields are {', '.join(FIELDS)}")
        field = token[1]
        if field not in FIELDS:
            near = difflib.get_close_matches(field, FIELDS, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise ValueError(f"{field!r} is no field{hint} Fields are {', '.join(FIELDS)}")
        if FIELDS[field] is tuple:
            raise ValueError(f'{field} is a list: ask for one of them, as in "charging" in {field}')
        self._at += 1
        sign = self._take(*_COMPARE)
        if sign is None:
            raise ValueError(f"{field}: needs one of {' '.join(_COMPARE)}, not {self.shown}")
        return self._compared(field, sign)

    def _compared(self, field: str, sign: str) -> Holds:
        token, wanted = self.next, FIELDS[field]
        if token is None or token[0] != ("number" if wanted is float else "text"):
            kind = "a number" if wanted is float else "a text in quotes"
            raise ValueError(f"{field} {sign}: is compared with {kind}, not {self.shown}")
        if wanted is str and sign not in ("==", "!="):
            raise ValueError(f"{field} {sign}: a text is compared by == or !=")
        self._at += 1
        self.fields.add(field)
        value: float | str = float(token[1]) if wanted is float else _unquoted(token[1])
        compare = _COMPARE[sign]
        return lambda facts: field in facts and compare(facts[field], value)

    def _tagged(self, tag: str) -> Holds:
        self._at += 1
        without = self._take("not") is not None
        if not self._take("in") or not self._take("tags"):
            raise ValueError(f"{tag!r}: a text is asked for as in {tag!r} in tags, not {self.shown}")
        self.fields.add("tags")
        return lambda facts: (tag in _tags(facts)) is not without


def _tags(facts: Facts) -> tuple[str, ...]:
    found = facts.get("tags", ())
    return found if isinstance(found, tuple) else ()


def _unquoted(text: str) -> str:
    return text[1:-1]
