"""The launcher's interface to the store, which also feeds the progress display."""

from slimfed.platform.format import sampled, seconds
from slimfed.platform.launch.launcher import FinalStatus, Look
from slimfed.platform.launch.progress import Display, Snapshot
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.retry import patiently
from slimfed.platform.store.writer import Store
from slimfed.platform.under_way import under_way

# The launcher waits longer for a store than a run does by default, so that it can report the end of the run.
_PATIENCE_SECONDS = 90.0


class StoreJournal:
    """Implements ``launcher.Journal`` for one run. ``pid`` of the run tells whether the ServerApp has taken over."""

    def __init__(self, store: Store, run_id: str, display: Display, *, began: bool = False) -> None:
        """``began``: the server is this process and already running."""
        self._began = began
        self._store = store
        self.reader = Reader(store.engine)
        self._run_id = run_id
        self._display = display
        self._launcher_pid = self.reader.find_run(run_id).pid
        self._slowest: tuple[int, str | None] = (0, None)

    def look(self) -> Look:
        """Read the run and update the display."""
        run = patiently(lambda: self.reader.find_run(self._run_id), _PATIENCE_SECONDS)
        progress = patiently(lambda: self.reader.progress([self._run_id]), _PATIENCE_SECONDS).get(self._run_id)
        began = self._began or run.pid != self._launcher_pid
        self._display.show(
            Snapshot(
                began,
                run.stop_requested,
                run.rounds_done,
                run.rounds,
                run.accuracy,
                run.sparsity,
                run.virtual_seconds,
                self._slowest_device(run.rounds_done),
                sampled(run.examples, run.test_examples),
                under_way(run, progress),
            )
        )
        return Look(run.status, began, run.stop_requested, run.rounds_done)

    def request_stop(self) -> None:
        """Ask the ServerApp to stop."""
        patiently(lambda: self._store.request_stop(self._run_id), _PATIENCE_SECONDS)

    def finish(self, status: FinalStatus, cause: str) -> None:
        """Set a final status."""
        patiently(lambda: self._store.finish(self._run_id, status, cause), _PATIENCE_SECONDS)

    def _slowest_device(self, rounds_done: int) -> str | None:
        """The slowest device of the last round, read once a round."""
        if rounds_done != self._slowest[0]:
            rows = self.reader.slowest_devices(self._run_id)
            text = None
            if rows:
                last = rows[-1]
                took = sum(s or 0.0 for s in (last.download_seconds, last.compute_seconds, last.upload_seconds))
                text = f"#{last.device} {last.profile} {seconds(took)}"
            self._slowest = (rounds_done, text)
        return self._slowest[1]
