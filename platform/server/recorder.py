"""The recorder: every finished round is written as a checkpoint, then to the store."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from slimfed.clients.telemetry.stopwatch import Stopwatch
from slimfed.platform.home import RunFolder
from slimfed.platform.server import checkpoint, round_timing
from slimfed.platform.store import mirror
from slimfed.platform.store.retry import patiently
from slimfed.platform.store.rows import CheckpointRow
from slimfed.platform.store.writer import Store
from slimfed.strategies.protocols import Baseline, Event, RoundRecord

_ASK_SECONDS = 0.2
_HEARTBEAT_SECONDS = 5.0


class StoreRecorder:
    """Implements ``strategies.protocols.Recorder`` for one run; the one writer of that run.

    ``patience``: seconds for which failed writes to the store are repeated. ``after_round`` is called when a round has
    been recorded. The checkpoint is complete on disk before the round is in the store. A crash in between leaves a
    checkpoint that is one round ahead, so resume from ``checkpoint.newest(folder, at_most=rounds_done)``.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        checkpoints: Path,
        now: Callable[[], float] = time.monotonic,
        patience: float = 0.0,
        after_round: Callable[[], object] = lambda: None,
    ) -> None:
        self._after_round = after_round
        self._patience = patience
        self._store = store
        self._run_id = run_id
        self._checkpoints = checkpoints
        self._now = now
        self._asked = -float("inf")
        self._beat = -float("inf")
        self._stop = False

    def record(self, record: RoundRecord, tensors: dict[str, np.ndarray], state: dict[str, Any]) -> None:
        """Write one finished round and its checkpoint. Raises ``OSError`` or ``SQLAlchemyError``."""
        watch = Stopwatch()
        with watch.phase("checkpoint"):
            path = checkpoint.save(self._checkpoints, record.round, tensors, state)
            manifest = checkpoint.describe(path)
            row = CheckpointRow(manifest.round, path, manifest.bytes, manifest.digest)
            kept = checkpoint.rounds(self._checkpoints)
        with watch.phase("store"):
            # A round that was recorded before is replaced, so that a repeated write counts once.
            patiently(lambda: self._store.record_round(self._run_id, record, row, kept=kept), self._patience)
            patiently(lambda: self._copy(record.round), self._patience)
        round_timing.keep(RunFolder(self._checkpoints.parent).profile, record, watch.seconds)
        self._after_round()

    def _copy(self, round: int) -> None:
        with self._store.engine.connect() as connection:
            mirror.copy_round(connection, self._run_id, round, RunFolder(self._checkpoints.parent).rows)

    def begin(self, baseline: Baseline) -> None:
        """Write round 0."""
        patiently(lambda: self._store.record_baseline(self._run_id, baseline), self._patience)

    def event(self, event: Event) -> None:
        """Write one event at once."""
        patiently(lambda: self._store.add_event(self._run_id, event), self._patience)

    def spend(self, before: int) -> int:
        """Append one byte to the run's file ``told``, synced to disk. Raises ``OSError``."""
        with RunFolder(self._checkpoints.parent).told.open("ab") as file:
            file.write(b"." * (max(before - file.tell(), 0) + 1))
            file.flush()
            os.fsync(file.fileno())
            return file.tell()

    def stop_requested(self) -> bool:
        """True after a request to stop; reads the store at most every 0.2 s, and writes heartbeats."""
        now = self._now()
        if not self._stop and now - self._asked >= _ASK_SECONDS:
            self._asked = now
            self._stop = patiently(lambda: self._store.stop_requested(self._run_id), self._patience)
        if now - self._beat >= _HEARTBEAT_SECONDS:
            self._beat = now
            patiently(lambda: self._store.heartbeat(self._run_id), self._patience)
        return self._stop
