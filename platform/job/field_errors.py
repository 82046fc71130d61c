"""Validation of a nested mapping by a pydantic model, with one line for each wrong field."""

import difflib
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from slimfed.clients.errors import InputError

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[int | str, ...]

_WANTED = {
    "int": "must be a whole number",
    "float": "must be a number",
    "finite_number": "must be a finite number",
    "string": "must be text",
    "bool": "must be true or false",
    "list": "must be a list",
    "tuple": "must be a list",
    "dict": "must be a table",
    "model": "must be a table",
}


def validate(model: type[Model], document: Mapping[str, Any], where: str = "") -> Model:
    """``document`` as ``model``. Raises ``InputError`` with one line per wrong field; ``where`` precedes each line."""
    lines = [f"{path} = {value}: must be a finite number" for path, value in _leaves(document) if _endless(value)]
    try:
        result = model.model_validate(document)
    except ValidationError as error:
        known = {line.partition(" = ")[0] for line in lines}
        lines += [_line(model, each) for each in _deepest(error.errors()) if _dotted(each["loc"]) not in known]
    else:
        read = dict(_leaves(result.model_dump()))
        lines += [
            f"{path} = {str(value).lower()}: must be a number"
            for path, value in _leaves(document)
            if isinstance(value, bool) and not isinstance(read.get(path, value), bool)
        ]
    if lines:
        raise InputError("\n".join(where + line for line in dict.fromkeys(lines)))
    return result


def field_paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every field of a model and of the models within it, as dotted paths."""
    paths: list[str] = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            paths += field_paths(inner, f"{prefix}{name}.")
        else:
            paths.append(prefix + name)
    return paths


def _deepest(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """The errors without those that follow from an error further inside."""
    places = [each["loc"] for each in errors]
    return [each for each in errors if not any(_within(place, each["loc"]) for place in places)]


def _within(inner: Location, outer: Location) -> bool:
    return len(inner) > len(outer) > 0 and inner[: len(outer)] == outer


def _line(model: type[BaseModel], details: ErrorDetails) -> str:
    location = details["loc"]
    path = _dotted(location)
    if details["type"] == "extra_forbidden":
        return f"{path}{_shown(details['input'])}: {_unknown(model, location)}"
    if details["type"] == "missing":
        return f"{path}: is missing"
    value = "" if not location or isinstance(details["input"], Mapping) else _shown(details["input"])
    return f"{path}{value}: {_problem(details)}".removeprefix(": ")


def _problem(details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    match kind:
        case "greater_than_equal":
            return f"must be at least {context['ge']:g}"
        case "greater_than":
            return f"must be above {context['gt']:g}"
        case "less_than_equal":
            return f"must be at most {context['le']:g}"
        case "less_than":
            return f"must be below {context['lt']:g}"
        case "literal_error":
            return f"must be one of {context['expected']}"
        case "too_short":
            return f"needs at least {context['min_length']} value(s)"
        case "too_long":
            return f"takes at most {context['max_length']} value(s)"
        case "string_too_short" | "string_too_long":
            return details["msg"].replace("String should have", "must have")
        case "value_error":
            return str(context["error"])
    return next((text for start, text in _WANTED.items() if kind.startswith(start)), details["msg"])


def _unknown(model: type[BaseModel], location: Location) -> str:
    """Names the nearest valid field: in the same section first, then anywhere."""
    name, section = str(location[-1]), _section(model, location[:-1])
    siblings = list(_fields(section)) if section else []
    near = difflib.get_close_matches(name, siblings, n=1)
    if near:
        return f"unknown field; did you mean {_dotted((*location[:-1], near[0]))}?"
    everywhere = field_paths(model)
    twins = [path for path in everywhere if path.rpartition(".")[2] == name]
    if twins:
        return f"unknown field; did you mean {twins[0]}?"
    return f"unknown field; valid here: {', '.join(siblings)}"


def _section(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    for part in location:
        field = _fields(current).get(str(part)) if current else None
        inner = _model_in(field.annotation) if field else None
        current = inner or (current if isinstance(part, int) else None)
    return current


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields by the names that a file uses."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation such as ``Spec`` or ``tuple[Spec, ...]`` holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in getattr(annotation, "__args__", ()) if (found := _model_in(part))), None)


def _leaves(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is neither table nor list, with its path."""
    if isinstance(document, Mapping):
        for key, value in document.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(document, list | tuple):
        for index, value in enumerate(document):
            yield from _leaves(value, f"{path}[{index}]")
    else:
        yield path, document


def _endless(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _dotted(location: Location) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def _shown(value: Any) -> str:
    """`` = VALUE`` for scalars and short lists, nothing for tables."""
    if isinstance(value, Mapping | BaseModel):
        return ""
    if isinstance(value, bool):
        return f" = {str(value).lower()}"
    text = repr(list(value) if isinstance(value, tuple) else value)
    return f" = {text if len(text) <= 80 else text[:77] + '...'}"
