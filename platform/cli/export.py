"""``export``: writing a run's models to folders."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from slimfed.clients.errors import InputError
from slimfed.platform.cli.options import Json, RunId
from slimfed.platform.cli.output import print_json, print_table
from slimfed.platform.console import notes
from slimfed.platform.format import percent, size


def export(
    run: RunId,
    device: Annotated[
        int | None, typer.Option(min=0, help="export the global model in the structure of this device")
    ] = None,
    globally: Annotated[bool, typer.Option("--global", help="export the global model (default)")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="export the global model, and the model of every device")
    ] = False,
    format: Annotated[
        str, typer.Option(help="export format; `slimfed methods` lists them", metavar="FORMAT")
    ] = "safetensors",
    dtype: Annotated[
        str | None, typer.Option(help="type of the weights: fp32, bf16 or fp16; default: the base's", metavar="TYPE")
    ] = None,
    quantization: Annotated[
        str | None,
        typer.Option(help="gguf: f32, f16, bf16, q8_0 or q4_k_m; default: the base's precision", metavar="TYPE"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="folder to create (with --all, the parent of one folder for each model); default: in the run's folder"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write pruned models of a run to folders, which need neither the run nor its store."""
    chosen = [device is not None, globally, everything]
    if sum(chosen) > 1:
        raise InputError("--device, --global and --all: give one of them")
    from slimfed.clients.export.formats.registry import FORMATS
    from slimfed.clients.export.weights import chosen_weights

    chosen_weights(format, FORMATS[format].weights, "fp32", dtype, quantization)  # before the run is opened
    if out is not None and not everything and out.exists():
        raise InputError(f"--out = {str(out)!r}: exists already; name another folder, or remove it")
    from slimfed.platform.export import GLOBAL, Exporter, card_figures
    from slimfed.platform.store.reader import Reader
    from slimfed.platform.stores import existing

    with existing() as store:
        found = Reader(store.engine).find_run(run)
    with notes().status("opening the run"):
        exporter = Exporter(found, card_figures(found))
    subjects = [GLOBAL, *exporter.devices()] if everything else [device]
    written = []
    for subject in subjects:
        name = "global" if subject is None else f"device-{subject}"
        with notes().status(f"writing {name} as {format}"):
            place = out / name if out and everything else out
            written.append(exporter.export(subject, format, place, dtype, quantization))
    if as_json:
        print_json([{**asdict(each), "folder": str(each.folder), "format": format} for each in written])
        return
    columns = {
        "subject": "model",
        "sparsity": "sparsity>",
        "weights": "weights",
        "size": "size>",
        "base": "base's weights>",
        "folder": "folder",
    }
    rows = [
        {
            "subject": each.subject,
            "sparsity": percent(each.sparsity),
            "weights": each.weights,
            "size": size(each.bytes),
            "base": "not here" if each.base_bytes is None else size(each.base_bytes),
            "folder": str(each.folder),
        }
        for each in written
    ]
    print_table("Exported", columns, rows)
