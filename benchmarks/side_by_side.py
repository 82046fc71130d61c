"""Many runs side by side in processes of their own; a results file of JSON that is rewritten after each."""

import json
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

Cell = dict[str, Any]


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
