"""The names of methods in the text of an error."""

from collections.abc import Callable
from typing import Any

from slimfed.clients.registry import Registry


def either(registry: Registry[Any], holds: Callable[[Any], bool], quote: str = "'") -> str:
    """The names of all methods of which ``holds`` is true, as "'a', 'b' or 'c'"."""
    *others, last = [f"{quote}{name}{quote}" for name, each in registry.items() if holds(each)]
    return f"{', '.join(others)} or {last}" if others else last
