"""``fleet`` and ``methods``: the profiles and methods that a job file can name."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from slimfed.platform.cli.options import Json
from slimfed.platform.cli.output import print_json, print_table


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


def _first_of_each(entries: dict[str, list[dict[str, str]]]) -> Iterator[tuple[str, dict[str, str]]]:
    """Every entry with its field; the field is empty for all but its first entry."""
    for field, rows in entries.items():
        for index, row in enumerate(rows):
            yield ("" if index else field), row
