"""Figures of runs for Prometheus."""

from collections.abc import Iterator
from typing import Any

from slimfed.clients.errors import InputError
from slimfed.clients.plain_text import clean
from slimfed.platform.integrations.samples import needed
from slimfed.platform.store.reader import Reader

_OF_A_RUN = (
    ("rounds_done", "Rounds done"),
    ("accuracy", "Pruned global model on the test split, a share"),
    ("device_accuracy_mean", "Mean accuracy of the devices' own pruned models, a share"),
    ("sparsity", "Share of the prunable parameters removed, mean over devices"),
    ("virtual_seconds", "Simulated seconds of all rounds"),
    ("wall_seconds", "Real seconds of all rounds"),
    ("bytes_up", "Bytes from the devices to the server"),
    ("bytes_down", "Bytes from the server to the devices"),
    ("rejected_updates", "Updates kept out of the average"),
)

STATES = ("queued", "created", "running", "done", "failed", "stopped")

SCRAPED = 200


class Exposition:
    """A ``prometheus_client`` collector with the figures of the newest runs.

    It reads the store at every scrape.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def collect(self) -> Iterator[Any]:
        """One family a figure, labelled with run and name."""
        from prometheus_client.core import GaugeMetricFamily

        runs = self._reader.runs(SCRAPED)
        for name, meaning in _OF_A_RUN:
            family = GaugeMetricFamily(f"slimfed_{name}", meaning, labels=("run", "name", "method"))
            for run in runs:
                if (value := getattr(run, name)) is not None:
                    family.add_metric((run.id, clean(run.name), clean(run.method)), float(value))
            yield family
        states = GaugeMetricFamily("slimfed_runs", "Runs in each state, of the newest", labels=("status",))
        for state in STATES:
            states.add_metric((state,), sum(run.status == state for run in runs))
        yield states


def serve_prometheus(reader: Reader, port: int, address: str = "127.0.0.1") -> Any:
    """Serve ``/metrics`` in a thread; returns the server. Raises ``InputError``."""
    client = needed("prometheus_client", "prometheus")
    registry = client.CollectorRegistry()
    registry.register(Exposition(reader))
    try:
        server, _thread = client.start_http_server(port, address, registry)
    except OSError as error:
        raise InputError(f"--port {port}: cannot be listened on ({error.strerror}); name another one") from None
    return server
