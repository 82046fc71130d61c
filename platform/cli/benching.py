"""``bench``: time, memory and size of an exported model against the dense model."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimfed.clients.errors import InputError
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
    out: Annotated[Path | None, typer.Option(help="also write the JSON into this file")] = None,
    as_json: Json = False,
) -> None:
    """Compare an exported model with the dense model of transformers: time, memory and size, in the same format."""
    from slimfed.clients.export.bench.bench import bench as measure

    with notes().status("measuring"):
        found = measure(folder, batch, length, threads, repeats)
    if out is not None:
        _write(out, _plain(found))
    if as_json:
        print_json(_plain(found))
        return
    columns = {"what": "", "slim": "slim>", "dense": "dense>", "ratio": "ratio>"}
    print_table(f"{found.kind}, length {found.length}, threads {found.threads}", columns, _rows(found))


def _write(out: Path, found: dict[str, Any]) -> None:
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        aside.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        aside.replace(out)
    except OSError as error:
        raise InputError(f"--out = {str(out)!r}: cannot be written ({error.strerror})") from None


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
    return [*rows, *_llama_cpp(found), *_sizes(slim, dense), *_original(found)]


def _llama_cpp(found: "Bench") -> list[dict[str, str]]:
    """In the real llama.cpp; a faster model has a ratio above 1."""
    rows = []
    for other in ("dense", "original"):
        if other not in found.in_llama_cpp:
            continue
        slim, base = found.in_llama_cpp["slim"], found.in_llama_cpp[other]
        than = "" if other == "dense" else ", against the original file"
        for what, one, two in (
            ("prompt tokens a second", slim.prefill, base.prefill),
            ("new tokens a second", slim.decode, base.decode),
        ):
            rows.append(
                {
                    "what": f"llama.cpp: {what}{than}",
                    "slim": f"{one:.1f}",
                    "dense": f"{two:.1f}",
                    "ratio": f"{one / two:.2f}x",
                }
            )
        if slim.memory and base.memory:
            share = slim.memory / base.memory
            rows.append(_row(f"llama.cpp: memory{than}", size(slim.memory), size(base.memory), share))
        if other == "original":
            rows.append(_row(f"file{than}", size(slim.bytes), size(base.bytes), slim.bytes / base.bytes))
    return rows


def _original(found: "Bench") -> list[dict[str, str]]:
    if found.original_bytes is None or "original" in found.in_llama_cpp:
        return []
    share = found.slim.bytes / found.original_bytes
    return [_row("folder, against the base's weights", size(found.slim.bytes), size(found.original_bytes), share)]


def _sizes(slim: "Figures", dense: "Figures") -> list[dict[str, str]]:
    return [
        _row("folder", size(slim.bytes), size(dense.bytes), slim.bytes / dense.bytes),
        _row("parameters", f"{slim.parameters:,}", f"{dense.parameters:,}", slim.parameters / dense.parameters),
        _row("operations", f"{slim.flops / 1e6:.1f} M", f"{dense.flops / 1e6:.1f} M", slim.flops / dense.flops),
    ]


def _row(what: str, slim: str, dense: str, ratio: float | None) -> dict[str, str]:
    return {"what": what, "slim": slim, "dense": dense, "ratio": percent(ratio)}
