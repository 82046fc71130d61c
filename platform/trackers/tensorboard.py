"""TensorBoard: event files in a folder of this computer."""

import time
from collections.abc import Sequence
from typing import Any

from slimfed.platform.trackers.base import TRACKERS, Destination, Sample, TrackedRun, Tracker

_BY_END = {"done": "STATUS_SUCCESS", "failed": "STATUS_FAILURE", "stopped": "STATUS_FAILURE"}


@TRACKERS.register("tensorboard")
class TensorBoard(Tracker):
    """Event files below `tracking.folder`; the job as hyperparameters."""

    module = "tensorboard"
    install = "slimfed[tensorboard]"

    def begin(self, run: TrackedRun, where: Destination) -> int:
        """A new event file with the whole run in place of earlier ones, which a running TensorBoard drops."""
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._folder = where.folder / run.id
        earlier = list(self._folder.glob("events.out.tfevents.*"))
        self._writer = EventFileWriter(str(self._folder))
        self._write(step=0, session_log=SessionLog(status=SessionLog.START))
        self._write(summary=hparams_pb(run.parameters, trial_id=run.id))
        self._writer.flush()
        for file in earlier:
            file.unlink()
        return 0

    def tell(self, round: int, samples: Sequence[Sample]) -> None:
        """Write one scalar for each figure."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for each in samples:
            value = Summary.Value(tag=each.name, simple_value=each.value)
            self._write(step=round, at=each.at.timestamp(), summary=Summary(value=[value]))
        self._writer.flush()

    def end(self, status: str) -> None:
        """Write the end state, as the hyperparameter page shows it."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        if status in _BY_END:
            ended = plugin_data_pb2.SessionEndInfo(
                status=api_pb2.Status.Value(_BY_END[status]), end_time_secs=time.time()
            )
            told = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=ended))
            value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=told, tensor=metadata.NULL_TENSOR)
            self._write(summary=Summary(value=[value]))
        self._writer.close()

    @property
    def place(self) -> str:
        """The run's folder."""
        return str(self._folder)

    def _write(self, at: float | None = None, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time() if at is None else at, **fields))
