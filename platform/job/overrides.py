"""TOML files and ``--set`` arguments as nested mappings."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from slimfed.clients.errors import InputError

_PATH = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_PLAIN = (bool, int, float, str, list, dict)


_LARGEST_BYTES = 2**20


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The file's contents. Raises ``InputError`` naming ``what`` and the place if it cannot be read or parsed."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise InputError(f"{what} {str(path)!r}: is larger than {_LARGEST_BYTES >> 20} MiB, which no {what} is")
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors write a byte-order mark
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{what} {str(path)!r}: there is no such file") from None
    except OSError as error:
        raise InputError(f"{what} {str(path)!r}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        line = bytes(error.object).count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{what} {str(path)!r}: line {line} is not UTF-8 text, which TOML is; save it as UTF-8"
        ) from None
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        reason = "is nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f"{what} {str(path)!r}: is not valid TOML: {reason}") from None


def parse_sets(arguments: Iterable[str]) -> dict[str, Any]:
    """``["training.rounds=5", "name=demo"]`` -> ``{"training": {"rounds": 5}, "name": "demo"}``; the last one wins.

    A value is TOML, or else plain text. Raises ``InputError`` for an argument that is not ``path.to.field=value``.
    """
    result: dict[str, Any] = {}
    for argument in arguments:
        path, equals, text = argument.partition("=")
        path = path.strip()
        if not equals or not _PATH.fullmatch(path):
            raise InputError(f"--set {argument!r}: must read field=value, such as training.rounds=5")
        result = merge(result, _nested(path.split("."), parse_value(text.strip())))
    return result


def parse_value(text: str) -> Any:
    """A TOML value (number, boolean, list, inline table, quoted text), or ``text`` itself if it is none."""
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = document["value"]
    return value if len(document) == 1 and isinstance(value, _PLAIN) else text


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings as one: tables are merged field by field, everything else is taken from ``above``."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def _nested(path: list[str], value: Any) -> dict[str, Any]:
    return {path[0]: _nested(path[1:], value) if len(path) > 1 else value}
