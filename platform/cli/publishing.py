"""``publish`` and ``prometheus``: figures of runs for TensorBoard, MLflow and Prometheus."""

import threading
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
) -> None:
    """Write a run's figures to TensorBoard or MLflow."""
    from slimfed.platform.integrations.mlflow import to_mlflow
    from slimfed.platform.integrations.tensorboard import to_tensorboard
    from slimfed.platform.store.reader import Reader
    from slimfed.platform.stores import existing

    if tensorboard is None and mlflow is None:
        raise InputError("say where to: --tensorboard FOLDER, --mlflow URI, or both")
    with existing() as store:
        reader = Reader(store.engine)
        found = reader.find_run(run)
        if tensorboard is not None:
            count = to_tensorboard(reader, found, tensorboard)
            notes().print(f"{count} values in {tensorboard / found.id}; tensorboard --logdir {tensorboard}")
        if mlflow is not None:
            notes().print(f"MLflow run {to_mlflow(reader, found, mlflow)}")


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
