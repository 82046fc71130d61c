"""``bench``: time, memory and size of an exported model against the dense model."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimfed.platform.cli.options import Json
from slimfed.platform.cli.output import print_json, print_table
from slimfed.platform.console import notes
from slimfed.platform.format import percent, size

if TYPE_CHECKING:
    from slimfed.clients.export.bench.bench import Bench, Figures


def bench(
    folder: Annotated[Path, typer.Argument(help="folder that `slimfed export` wrote")],
    batch: Annotated[int, typer.Option(min=1, help="texts in a batch, for throughput and memory")] = 32,
    length: Annotated[int, typer.Option(min=4, help="tokens of a text")] = 64,
    threads: Annotated[
        int, typer.Option(min=1, help="threads; 1: processor seconds are measured; more: wall seconds")
    ] = 1,
    repeats: Annotated[int, typer.Option(min=3, help="passes of each model; the median is reported")] = 11,
    as_json: Json = False,
) -> None:
    """Compare an exported model with the dense model of transformers: time, memory and size, in the same format."""
    from slimfed.clients.export.bench.bench import bench as measure

    with notes().status("measuring"):
        found = measure(folder, batch, length, threads, repeats)
    if as_json:
        print_json(_plain(found))
        return
    columns = {"what": "", "slim": "slim>", "dense": "dense>", "ratio": "ratio>"}
    print_table(f"{found.kind}, length {found.length}, threads {found.threads}", columns, _rows(found))


def _plain(found: "Bench") -> dict[str, Any]:
    return {
        "latency_ratio": found.latency_ratio,
        "structure_ratio": found.structure_ratio,
        "throughput_ratio": found.throughput_ratio,
        "memory_ratio": found.memory_ratio,
        "bytes": found.slim.bytes,
        "parameters": found.slim.parameters,
        "flops": found.slim.flops,
        "decode_ratio": found.decode_ratio,
        **asdict(found),
    }


def _rows(found: "Bench") -> list[dict[str, str]]:
    def milliseconds(value: float) -> str:
        return f"{1e3 * value:.2f} ms"

    slim, dense = found.slim, found.dense
    first = "time at batch 1" if slim.decode is None else f"time of the first {found.length} tokens"
    rows = [_row(first, milliseconds(slim.latency), milliseconds(dense.latency), found.latency_ratio)]
    if found.alike is not None:
        same = milliseconds(found.alike.latency)
        rows.append(_row("the same, dense run alike", milliseconds(slim.latency), same, found.structure_ratio))
    rows.append(
        {
            "what": f"texts a second at batch {found.batch}",
            "slim": f"{slim.throughput:.1f}",
            "dense": f"{dense.throughput:.1f}",
            "ratio": f"{found.throughput_ratio:.2f}x",
        }
    )
    if slim.decode is not None and dense.decode is not None:
        rows.append(_row("time a new token", milliseconds(slim.decode), milliseconds(dense.decode), found.decode_ratio))
    if found.memory_ratio is not None:
        rows.append(_row("peak memory", size(slim.memory), size(dense.memory), found.memory_ratio))
    return [*rows, *_sizes(slim, dense)]


def _sizes(slim: "Figures", dense: "Figures") -> list[dict[str, str]]:
    return [
        _row("folder", size(slim.bytes), size(dense.bytes), slim.bytes / dense.bytes),
        _row("parameters", f"{slim.parameters:,}", f"{dense.parameters:,}", slim.parameters / dense.parameters),
        _row("operations", f"{slim.flops / 1e6:.1f} M", f"{dense.flops / 1e6:.1f} M", slim.flops / dense.flops),
    ]


def _row(what: str, slim: str, dense: str, ratio: float | None) -> dict[str, str]:
    return {"what": what, "slim": slim, "dense": dense, "ratio": percent(ratio)}
