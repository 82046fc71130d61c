"""Local privacy, by the real ClientApp on a real device's folder: a message tells nothing of the text but its noise."""

import json
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from house import tiny_job

from slimfed.clients.clientapp import serve
from slimfed.clients.messages.records import decode_results, encode_orders
from slimfed.clients.node.runtime import open_server_runtime
from slimfed.platform.fleet.clock import MeasuredClock, VirtualClock
from slimfed.platform.fleet.profiles import load_fleet
from slimfed.platform.server.assembly import new_fleet
from slimfed.strategies.dispatch import orders
from slimfed.strategies.planning import plan_round

LOCAL = ("privacy.kind=local", "bandit.name=random", "method.importance=random", "data.max_length=24")
SHORT = ["on", "off"]
LONG = ["a very long sentence about lamps, heating, blinds and music in the kitchen " * 3] * 40


def job(engine: str):
    return tiny_job(*LOCAL, f"engine.name={engine}")


def message(engine: str) -> tuple[RecordDict, object]:
    """The orders for device 0, and the blueprint to read the answer with."""
    made = job(engine)
    runtime = open_server_runtime(made.task_spec())
    fleet = new_fleet(runtime, made)
    plan = plan_round(fleet, made.strategy_settings(runtime.task, 1, real=True), 1, None)[0]
    return encode_orders(orders([plan], fleet, runtime.task, fleet.adapter)), runtime


def answer(engine: str, texts: list[str], folder: Path) -> RecordDict:
    """What a device with these texts sends; few and many texts have other labels."""
    content, runtime = message(engine)
    folder.mkdir(exist_ok=True)
    label = runtime.task.labels[0 if len(texts) > 5 else -1]
    rows = [{"text": text, "label": label} for text in texts]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return serve(content, {"device": 0, "data": str(folder)}, RecordDict())


def told(content: RecordDict) -> dict[str, object]:
    """Everything in a message but the values of the noised adapter: of that the type and the number of values."""
    found: dict[str, object] = {}
    for key, record in content.items():
        if isinstance(record, ConfigRecord | MetricRecord):
            found |= {f"{key}.{name}": value for name, value in record.items()}
            continue
        for name, array in record.items():
            values = array.numpy()
            noised = key.startswith("update-") and name == "adapter"
            found[f"{key}.{name}"] = (str(values.dtype), values.shape, None if noised else values.tobytes())
    return found


@pytest.mark.parametrize("engine", ["cohort", "sequential"])
def test_two_texts_make_messages_that_differ_in_the_noised_adapter_alone(engine: str, tmp_path: Path) -> None:
    one, other = (answer(engine, texts, tmp_path / str(len(texts))) for texts in (SHORT, LONG))
    assert told(one) == told(other)
    assert told(one)["metrics-0.flops"] > 0, "the work of the largest batches, which the virtual clock needs"
    values = [content["update-0"]["adapter"].numpy() for content in (one, other)]
    assert not np.array_equal(*values)


def test_a_text_that_cannot_be_learnt_fails_without_its_cause(tmp_path: Path) -> None:
    content = answer("cohort", [], tmp_path / "empty")
    assert dict(content["failures"]) == {"0": "not told under local privacy; read the node's log"}
    assert set(content) == {"failures"}


def test_clocks_go_on_with_what_a_private_device_tells(tmp_path: Path) -> None:
    content, runtime = answer("cohort", SHORT, tmp_path / "d"), message("cohort")[1]
    [update] = decode_results(content, runtime.blueprint)
    made = job("cohort")
    virtual = VirtualClock(load_fleet(made.fleet, made.seed), made.seed)
    assert virtual.completion(update.report, 1000, 1000).compute_seconds > 0
    waited = update.with_report(link_seconds=3.0).report
    assert MeasuredClock().completion(waited, 1000, 1000).seconds == pytest.approx(3.0)
