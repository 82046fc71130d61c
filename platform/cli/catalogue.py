"""``fleet``, ``methods`` and ``families``: the profiles, methods and types of models that a job file can name."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from slimfed.platform.cli.options import Json
from slimfed.platform.cli.output import print_json, print_table
from slimfed.platform.console import notes


def fleet(
    profile: Annotated[
        str | None, typer.Argument(help="name of a fleet, or a TOML file; default: list the fleets")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the device classes of a fleet profile, or list the built-in fleets."""
    from slimfed.platform.fleet.profiles import PROFILES, load_profile

    if profile is None:
        rows = [
            {"profile": each.name, "description": each.summary, "from": each.origin} for each in PROFILES.describe()
        ]
        if as_json:
            print_json(rows)
        else:
            columns = {"profile": "profile", "description": "description", "from": "from"}
            print_table("Fleets", columns, rows)
        return
    found = load_profile(profile)
    if as_json:
        print_json(found.model_dump(mode="json", by_alias=True))
        return
    columns = {
        "name": "class",
        "count": "devices>",
        "rate": "GFLOP/s>",
        "memory": "memory>",
        "bandwidth": "bandwidth>",
        "down": "down>",
        "up": "up>",
        "modes": "power modes",
        "power": "waiting / computing / sending",
    }
    if any(each.tags for each in found.classes):
        columns["tags"] = "tags"
    print_table(found.description or profile, columns, [_class_row(each.model_dump()) for each in found.classes])


def _class_row(each: dict[str, Any]) -> dict[str, str]:
    return {
        "name": each["name"],
        "count": str(each["count"]),
        "rate": f"{each[each['precision'] + '_gflops'] * each['efficiency']:.0f} ({each['precision']})",
        "memory": f"{each['memory_gib']:g} GiB",
        "bandwidth": f"{each['bandwidth_gb_s']:g} GB/s",
        "down": f"{each['down_mbit_s']:g} Mbit/s",
        "up": f"{each['up_mbit_s']:g} Mbit/s",
        "modes": ", ".join(f"{mode['name']} {mode['speed']:g}x" for mode in each["modes"]),
        "power": _watts(each),
        "tags": ", ".join(each["tags"]),
    }


def _watts(each: dict[str, Any]) -> str:
    if each["idle_watts"] is None:
        return "not known"
    return f"{each['idle_watts']:g} / {each['compute_watts']:g} / {each['transmit_watts']:g} W"


def methods(as_json: Json = False) -> None:
    """List presets, parts of methods and export formats, each with the package it comes from."""
    from slimfed.platform.job.presets import PRESETS
    from slimfed.platform.registries import REGISTRIES

    entries = {
        registry.field: [
            {"name": each.name, "summary": each.summary, "from": each.origin} for each in registry.describe()
        ]
        for registry in REGISTRIES
    }
    broken = [
        {"field": registry.field, "name": each.name, "from": each.origin, "error": each.error}
        for registry in REGISTRIES
        for each in registry.broken()
    ]
    presets = [each | {"source": PRESETS[each["name"]].source} for each in entries.pop(PRESETS.field)]
    if as_json:
        print_json({"methods": presets, "parts": entries, "broken": broken})
        return
    named = {"name": "method.name", "summary": "what it does", "source": "source", "from": "from"}
    print_table("Methods", named, presets)
    rows = [{"field": field} | each for field, each in _first_of_each(entries)]
    print_table("Parts", {"field": "field", "name": "name", "summary": "what it does", "from": "from"}, rows)
    if broken:
        columns = {"field": "field", "name": "name", "from": "from", "error": "error"}
        print_table("Plug-ins that cannot be used", columns, broken)


def families(as_json: Json = False) -> None:
    """List the types of models that can be pruned, with the modules that are cut, and those that cannot."""
    with notes().status("reading"):
        from slimfed.clients.export.files.gguf import TYPES
        from slimfed.clients.export.stock_config import FREE_HEADS
        from slimfed.clients.models.families import ENCODERS, FAMILIES, REFUSED

    rows: list[dict[str, Any]] = [
        {
            "type": name,
            "tasks": ["classification"] if name in ENCODERS else ["classification", "causal-lm"],
            "heads": list(dict.fromkeys((family.query, family.key, family.value, family.output))),
            "channels": [*family.up, family.down],
            "from_pretrained": "heads and channels" if name in FREE_HEADS else "channels",
            "gguf": name in TYPES,
        }
        for name, family in FAMILIES.items()
    ]
    if as_json:
        print_json({"families": rows, "refused": [{"type": name, "cause": cause} for name, cause in REFUSED.items()]})
        return
    shown = [{name: _cell(value) for name, value in row.items()} for row in rows]
    columns = {
        "type": "model type",
        "tasks": "tasks",
        "heads": "heads are cut from",
        "channels": "channels are cut from",
        "from_pretrained": "from_pretrained opens fewer",
        "gguf": "GGUF",
    }
    print_table("Model types that can be pruned", columns, shown)
    refused = [{"type": name, "cause": cause} for name, cause in REFUSED.items()]
    print_table("Model types that cannot", {"type": "model type", "cause": "cause"}, refused)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _first_of_each(entries: dict[str, list[dict[str, str]]]) -> Iterator[tuple[str, dict[str, str]]]:
    """Every entry with its field; the field is empty for all but its first entry."""
    for field, rows in entries.items():
        for index, row in enumerate(rows):
            yield ("" if index else field), row
