"""A real device's own text: read by its node's configuration, in the server's labels, and nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import training

from slimfed.clients.clientapp import serve
from slimfed.clients.data.text import load_own_data
from slimfed.clients.errors import InputError
from slimfed.clients.messages.records import (
    Orders,
    decode_facts,
    decode_host,
    decode_results,
    encode_host,
    encode_orders,
)
from slimfed.clients.node.identity import HostedDevice
from slimfed.clients.node.machine import this_machine
from slimfed.clients.node.runtime import open_hosted_runtime, open_server_runtime
from slimfed.clients.spec import AdapterSpec, DataSpec, ModelSpec, PruningSpec, TaskSpec, TrainingSpec
from slimfed.clients.update import Assignment, Failure, Update


def write(folder: Path, rows: list[tuple[str, object]], split: str = "train") -> Path:
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return folder


ROWS = [("lights on please", "on"), ("lights off now", "off"), ("make it bright", "on"), ("make it dark", "off")]


def task(server: Path, **changes: object) -> TaskSpec:
    plain = {
        "seed": 3,
        "devices": 5,
        "model": ModelSpec(),
        "data": DataSpec(path=str(server), max_length=16),
        "adapter": AdapterSpec(),
        "pruning": PruningSpec(),
        "training": TrainingSpec(rounds=2, local_steps=2, batch_size=2),
    }
    return TaskSpec(**(plain | changes))


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """What the server has: fewer rows than there are devices, and a test split."""
    return write(write(tmp_path / "server", ROWS[:2]), ROWS, "test")


def orders(spec: TaskSpec, device: int) -> Orders:
    office = open_server_runtime(spec)
    dense = office.blueprint.dense()
    adapter = training.adapter(office.base, office.blueprint, 1, 4)
    assignment = Assignment(device, 1, 4, 0.2, 2, 1e-3, 1e-3, 9, True, dense)
    scores = np.zeros(office.blueprint.units, dtype=np.float32)
    return Orders(office.task, adapter, dense, scores, (assignment,))


def test_labels_are_the_servers_and_in_its_order(tmp_path: Path) -> None:
    own = write(tmp_path / "own", [("make it dark", "off"), ("lights on please", "on")])
    data = load_own_data(DataSpec(), "classification", own, ("on", "off", "dim"))
    assert data.train.label is not None
    assert data.train.label.tolist() == [1, 0]
    assert data.labels == ("on", "off", "dim")
    assert len(data.test) == 0


def test_an_unknown_label_is_named(tmp_path: Path) -> None:
    own = write(tmp_path / "own", [("make it dark", "off"), ("sing", "song")])
    with pytest.raises(InputError, match=r"line 2 of train\.jsonl .* has label 'song', .* valid: 'on', 'off'"):
        load_own_data(DataSpec(), "classification", own, ("on", "off"))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"device": 1}, "node-config data = None"),
        ({"data": "."}, "node-config device = None"),
        ({"device": -1, "data": "."}, "node-config device = -1"),
        ({"device": "1", "data": "."}, "node-config device = '1'"),
        ({"device": True, "data": "."}, "node-config device = True"),
        ({"device": 1, "data": "/nowhere"}, "node-config data = '/nowhere'"),
        ({"device": 1, "data": ".", "model": 3}, "node-config model = 3"),
        ({"device": 1, "data": ".", "tags": 3}, "node-config tags = 3: must be at most 32 words"),
        ({"device": 1, "data": ".", "tags": "a b"}, "node-config tags = 'a b'"),
        ({"device": 1, "data": ".", "tags": ",".join(map(str, range(33)))}, "node-config tags"),
    ],
)
def test_a_bad_node_configuration_is_refused(config: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        HostedDevice.of(config)


def test_a_node_tells_its_memory_its_cores_and_its_owner_s_tags() -> None:
    own = HostedDevice.of({"device": 3, "data": ".", "tags": "lab, charging,lab"})
    assert own is not None
    content = encode_host(own.device, this_machine(own.tags))
    assert decode_host(content) == 3
    facts = decode_facts(content)
    assert facts["tags"] == ("lab", "charging")
    assert facts["memory_gib"] == pytest.approx(psutil.virtual_memory().total / 2**30)
    assert facts["cores"] >= 1
    assert decode_facts(encode_host(3)) == {}, "a node of an older version"


def test_a_simulated_node_has_no_device_of_its_own() -> None:
    assert HostedDevice.of({"partition-id": 1, "num-partitions": 5}) is None


def test_the_server_names_no_folder_on_the_device(tmp_path: Path, server: Path) -> None:
    own = HostedDevice(1, write(tmp_path / "own", ROWS))
    spec = task(server, model=ModelSpec(path=str(tmp_path)), labels=("off", "on"))
    with pytest.raises(InputError, match="say on the node where it lies"):
        open_hosted_runtime(spec, own)


def test_the_devices_text_is_trained_on_and_stays(tmp_path: Path, server: Path) -> None:
    """What leaves is an update and numbers; the server's own folder is not looked at."""
    own = write(tmp_path / "own", [(f"secret {text}", label) for text, label in ROWS])
    round_orders = orders(task(server), 1)
    spec = round_orders.task
    elsewhere = spec.model_copy(update={"data": spec.data.model_copy(update={"path": "/not/here"})})
    reply = serve(encode_orders(replace(round_orders, task=elsewhere)), {"device": 1, "data": str(own)})
    (update,) = decode_results(reply, round_orders.envelope.blueprint)
    assert isinstance(update, Update), update
    assert update.report.examples == len(ROWS)
    assert update.report.evaluation is None, "it keeps no test file"
    for _, record in reply.items():
        assert b"secret" not in str(record).encode()


def test_a_node_serves_no_other_device(tmp_path: Path, server: Path) -> None:
    own = write(tmp_path / "own", ROWS)
    round_orders = orders(task(server), 2)
    reply = serve(encode_orders(round_orders), {"device": 1, "data": str(own)})
    (answer,) = decode_results(reply, round_orders.envelope.blueprint)
    assert isinstance(answer, Failure)
    assert answer.device == 2
    assert "hosts another device" in answer.cause
