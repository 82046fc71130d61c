"""Many runs side by side in processes of their own; a results file of JSON that is rewritten after each."""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from machine import machine

Cell = dict[str, Any]

_PLACES = ("path", "data", "scratch")
"""What of a run is of one computer, and is not kept."""


def add_options(parser: argparse.ArgumentParser, out: Path) -> None:
    """Options of tables of many runs; ``out``: the results file by default."""
    parser.add_argument("--model", nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--data")
    parser.add_argument("--texts", nargs="+", default=["trec"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9, help="start no run after so many seconds")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--render", metavar="NAME", help="write the table NAME of README.md, measure nothing")


def outcome(cell: Cell, result: Mapping[str, Any], began: float) -> Cell:
    """What is kept of a run that ``local_run.run`` made; ``began``: by ``time.monotonic``."""
    return {
        **{name: value for name, value in cell.items() if name not in _PLACES},
        "reached": result["sparsity"],
        **{name: result[name] for name in ("virtual_seconds", "bytes", "dtype")},
        **{name: result["evaluation"][name] for name in ("accuracy", "loss")},
        "wall": time.monotonic() - began,
        "machine": machine(),
    }


def finish(
    cells: Sequence[Cell],
    run: Callable[[Cell], Cell],
    key: Callable[[Mapping[str, Any]], tuple[Any, ...]],
    out: Path,
    processes: int = 1,
    seconds: float = 1e9,
) -> None:
    """Make the runs that ``out`` does not have yet, by ``key``; none starts after ``seconds``. Prints a line a run.

    A run that fails is named and left out, so that the same command makes it again.
    """
    results = json.loads(out.read_text(encoding="utf-8")) if out.exists() else []
    done = {key(result) for result in results}
    missing = [cell for cell in cells if key(cell) not in done]
    deadline = time.monotonic() + seconds
    running: dict[Future[Cell], Cell] = {}
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        while missing or running:
            while missing and len(running) < processes and time.monotonic() < deadline:
                cell = missing.pop(0)
                running[pool.submit(run, cell)] = cell
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                cell, error = running.pop(future), future.exception()
                if error is not None:
                    print(*key(cell), repr(error), flush=True)
                    continue
                results.append(future.result())
                out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
                print(len(missing), "left;", *key(cell), f"{results[-1]['wall']:.0f} s", flush=True)
