"""``publish`` and ``prometheus``: figures of runs for other tools."""

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from slimfed.clients.errors import InputError
from slimfed.platform.cli.options import RunId
from slimfed.platform.console import notes


def publish(
    run: RunId,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="write TensorBoard files to this folder")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(metavar="URI", help="write to this MLflow tracking server or database")
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option("--to", metavar="TRACKER", help="send to where tracking.to would, by the tool's own variables"),
    ] = None,
) -> None:
    """Write a run's figures to TensorBoard, MLflow or another tracker; what is there already is not sent again."""
    from slimfed.platform.integrations.following import destination, publish_run
    from slimfed.platform.store.reader import Reader
    from slimfed.platform.stores import existing
    from slimfed.platform.trackers import make_tracker

    if tensorboard is None and mlflow is None and not to:
        raise InputError("say where to: --tensorboard FOLDER, --mlflow URI, or --to TRACKER")
    with existing() as store:
        reader = Reader(store.engine)
        found = reader.find_run(run)
        wanted = [(name, destination(name, found, os.environ)) for name in to or ()]
        if tensorboard is not None:
            wanted.append(("tensorboard", replace(destination("tensorboard", found, os.environ), folder=tensorboard)))
        if mlflow is not None:
            variables = {**os.environ, "MLFLOW_TRACKING_URI": mlflow}
            wanted.append(("mlflow", destination("mlflow", found, variables)))
        trackers = [(make_tracker(name, where.environment), where) for name, where in wanted]
        for tracker, where in trackers:
            count, place = publish_run(tracker, reader, found, where)
            notes().print(f"{count} new values: {place}", markup=False, soft_wrap=True)


def prometheus(
    port: Annotated[int, typer.Option(min=1, max=65535, help="port on 127.0.0.1")] = 9109,
) -> None:
    """Serve the figures of the newest runs to Prometheus at http://127.0.0.1:PORT/metrics, until Ctrl-C."""
    from slimfed.platform.integrations.prometheus import serve_prometheus
    from slimfed.platform.store.reader import Reader
    from slimfed.platform.stores import existing

    with existing() as store:
        server = serve_prometheus(Reader(store.engine), port)
        notes().print(f"http://127.0.0.1:{port}/metrics; Ctrl-C ends it")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            server.shutdown()
