"""A run in Prometheus, read back as it is scraped."""

import urllib.request
from pathlib import Path

import pytest
from round_records import device_record, round_record

from slimfed.clients.errors import InputError
from slimfed.platform.integrations.prometheus import serve_prometheus
from slimfed.platform.integrations.samples import needed
from slimfed.platform.job.job import job_to_dict, load_job
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store

RUN = "20260101-120000-abc"


@pytest.fixture
def reader(tmp_path: Path):
    with Store.open("sqlite", tmp_path) as store:
        store.create_run(RUN, job_to_dict(load_job(None, ["fleet.devices=2", "name=small"])), tmp_path / RUN)
        store.set_devices(RUN, [(0, "tx2", 10), (1, "nx", 11)])
        for number in (1, 2, 3):
            store.record_round(RUN, round_record(number, (device_record(0, number), device_record(1, number))))
        store.finish(RUN, "done")
        yield Reader(store.engine)


def test_prometheus_scrapes_what_the_store_says_now(reader: Reader) -> None:
    server = serve_prometheus(reader, 0)
    try:
        address = f"http://127.0.0.1:{server.server_port}/metrics"
        text = urllib.request.urlopen(address, timeout=10).read().decode()
    finally:
        server.shutdown()
        server.server_close()
    found = reader.find_run(RUN)
    labels = f'{{method="slimfed",name="small",run="{RUN}"}}'
    assert f"slimfed_rounds_done{labels} 3.0" in text
    assert f"slimfed_accuracy{labels} {found.accuracy}" in text
    assert 'slimfed_runs{status="done"} 1.0' in text


def test_a_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(InputError, match=r"pip install 'slimfed\[nothing\]'"):
        needed("no_such_package", "nothing")
