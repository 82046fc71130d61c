"""The process that computes a simulated run: the server, and Flower's simulation engine, which drives Ray.

Usage: ``python -m slimfed.platform.server.simulation RUN HOME NODES [--gpu-share S] [--workers N --gpus N]``. Messages
go to the nodes through Ray, and the launcher reads the store, so no other program connects to it. Without ``--workers``
the nodes are served by the Ray cluster at ``RAY_ADDRESS``.
"""

import argparse
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import chdir
from importlib import import_module
from typing import Any

from slimfed.platform.launch.process_guard import end_descendants
from slimfed.platform.launch.scratch import VARIABLE

_RETRIES = 2
"""How often Ray repeats the work of a worker that was killed, in a new worker, before its devices lose the round."""
_STARTS = 3
_END_SECONDS = 10.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute the run to its end."""
    given = _parse(arguments)
    # Torch takes as long to import as Ray to start. The server waits for it, and Ray's workers start meanwhile.
    threading.Thread(target=import_module, args=("slimfed.platform.server.session",), daemon=True).start()
    _start_ray(given.workers, given.gpus)
    _simulate(given)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m slimfed.platform.server.simulation", description=main.__doc__)
    parser.add_argument("run", help="id of the run")
    parser.add_argument("home", help="folder of the runs")
    parser.add_argument("nodes", type=int, help="number of simulated nodes")
    parser.add_argument("--gpu-share", type=float, default=0.0, help="GPUs that a worker gets")
    parser.add_argument("--workers", type=int, help="processes of the run's own Ray")
    parser.add_argument("--gpus", type=int, help="GPUs of the run's own Ray")
    return parser.parse_args(arguments)


def _start_ray(workers: int | None, gpus: int | None) -> None:
    """Start the run's own Ray, or connect to a cluster; its settings are in the environment.

    Ray lets workers import from the folder it is started in, so that is the scratch folder, not a folder of the user's
    whose files may have the names of modules.
    """
    import ray

    own: dict[str, Any] = {} if workers is None else {"num_cpus": workers, "num_gpus": gpus, "include_dashboard": False}
    with chdir(os.environ[VARIABLE]):
        _patiently(lambda: ray.init(logging_level="INFO", log_to_driver=False, **own))


def _patiently(start: Callable[[], object]) -> None:
    """Call ``start``, again after a failure: Ray gives its processes 30 s, which a busy machine can exceed."""
    for _ in range(_STARTS - 1):
        try:
            start()
        except Exception as error:  # Ray raises no class of its own here
            print(f"Ray did not start: {error}; it is started again", file=sys.stderr, flush=True)
            end_descendants(polite_seconds=0.0, total_seconds=_END_SECONDS)
        else:
            return
    start()


def _simulate(given: argparse.Namespace) -> None:
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation import run_simulation

    from slimfed.clients.clientapp import app as client

    settings = {
        "slimfed.run": given.run,
        "slimfed.home": given.home,
        "slimfed.nodes": given.nodes,
        "slimfed.real": False,
    }
    server = ServerApp()

    @server.main()
    def compute(grid: Grid, context: Context) -> None:
        from slimfed.platform.server.session import serve

        serve(grid, settings)

    worker = {"num_cpus": 1, "num_gpus": given.gpu_share, "max_restarts": -1, "max_task_retries": _RETRIES}
    run_simulation(server, client, given.nodes, backend_config={"client_resources": worker})


if __name__ == "__main__":
    main()
