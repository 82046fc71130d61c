"""The runtime "local": the server's own code with one node, all in this process, without Ray."""

from tempfile import TemporaryDirectory
from typing import Any

from slimfed.clients.processors import compute_threads
from slimfed.clients.telemetry.telling import VARIABLE
from slimfed.platform.launch.launcher import Journal, LaunchPlan, StopSignals


def compute(plan: LaunchPlan, journal: Journal, stop: StopSignals | None = None) -> None:
    """Compute a run to its end in the calling thread; the journal is read after every round.

    Once ``stop`` counts a request the run is asked to stop; it does so after the message that it is computing. An error
    is raised only where the run could not record it as its cause.
    """
    from slimfed.platform.server.session import serve  # brings torch
    from slimfed.strategies.local_grid import LocalGrid

    def after_round() -> None:
        look = journal.look()
        if stop is not None and stop.count and not look.stopping:
            journal.request_stop()

    settings: dict[str, Any] = {
        "slimfed.run": plan.run,
        "slimfed.home": str(plan.home),
        "slimfed.nodes": 1,
        "slimfed.real": False,
    }
    with compute_threads(1), TemporaryDirectory(prefix="slimfed-progress-") as folder:
        told = {VARIABLE: folder}
        try:
            serve(LocalGrid(1, config=told), settings | told, after_round=after_round)
        except Exception:
            if journal.look().final is None:  # otherwise the session has recorded how the run ended
                raise
