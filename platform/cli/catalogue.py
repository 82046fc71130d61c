"""``fleet`` and ``methods``: what a job file can name."""

from typing import Annotated, Any

import typer

from slimfed.platform.cli.output import print_json, print_table

Json = Annotated[bool, typer.Option("--json", help="print JSON")]


def fleet(
    profile: Annotated[
        str | None, typer.Argument(help="a built-in fleet or a TOML file; none: list the fleets")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the device classes of a fleet profile, or list the built-in fleets."""
    from slimfed.platform.fleet.profiles import load_profile, profile_names

    if profile is None:
        rows = [{"profile": name, "description": load_profile(name).description} for name in profile_names()]
        if as_json:
            print_json(rows)
        else:
            print_table("Fleets", {"profile": "profile", "description": "description"}, rows)
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
    """List the methods and the parts that a job file can name."""
    from slimfed.clients.adapters import ADAPTERS
    from slimfed.clients.importance import IMPORTANCE
    from slimfed.platform.job.presets import PRESETS
    from slimfed.strategies.aggregation import AGGREGATIONS
    from slimfed.strategies.bandits import BANDITS
    from slimfed.strategies.server import SERVER_OPTIMIZERS

    presets = [{"name": p.name, "summary": p.summary, "source": p.source} for p in PRESETS.values()]
    parts = {
        "method.adapter": list(ADAPTERS),
        "bandit.name": list(BANDITS),
        "method.aggregation": list(AGGREGATIONS),
        "server.optimizer": list(SERVER_OPTIMIZERS),
        "method.importance": list(IMPORTANCE),
    }
    if as_json:
        print_json({"methods": presets, "parts": parts})
        return
    print_table("Methods", {"name": "method.name", "summary": "what it does", "source": "source"}, presets)
    rows = [{"field": field, "values": ", ".join(values)} for field, values in parts.items()]
    print_table("Parts", {"field": "field", "values": "values"}, rows)
