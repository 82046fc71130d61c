"""The wire format: what is sent comes back the same, and what is broken is named, never believed."""

import json
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.messages.quantization import rounded
from slimfed.clients.messages.records import (
    MalformedMessageError,
    Orders,
    decode_orders,
    decode_results,
    encode_orders,
    encode_results,
)
from slimfed.clients.node.error_feedback import recall, remember
from slimfed.clients.spec import AdapterSpec, DataSpec, MessageSpec, ModelSpec, PruningSpec, TaskSpec, TrainingSpec
from slimfed.clients.structure import Block, Blueprint, Cut, Structure, union
from slimfed.clients.update import Assignment, Evaluation, Failure, Report, Update, Workload

BLUEPRINT = Blueprint(
    "toy",
    (
        Block("attention", 0, "attention", 4, 128, (Cut("q", "out", 8), Cut("o", "in", 8))),
        Block("ffn", 0, "ffn", 13, 32, (Cut("up", "out", 1), Cut("down", "in", 1))),
    ),
)
TASK = TaskSpec(
    seed=3,
    devices=5,
    model=ModelSpec(),
    data=DataSpec(),
    adapter=AdapterSpec(),
    pruning=PruningSpec(),
    training=TrainingSpec(),
)


def structure(seed: int) -> Structure:
    keep = np.random.default_rng(seed).random(BLUEPRINT.units) < 0.6
    keep[0] = keep[4] = True
    return Structure(BLUEPRINT, keep)


def adapter(seed: int, rank: int = 2) -> Adapter:
    draw = np.random.default_rng(seed)
    factors = {
        name: Factors(draw.normal(size=(rank, 6)).astype(np.float32), draw.normal(size=(5, rank)).astype(np.float32))
        for name in BLUEPRINT.modules
    }
    residual = {BLUEPRINT.modules[0]: draw.normal(size=(5, 6)).astype(np.float32)}
    return Adapter(factors, {"classifier.bias": draw.normal(size=3).astype(np.float32)}, residual)


def assignment(device: int) -> Assignment:
    return Assignment(device, 2, 2, 0.25, 10, 1e-3, 5e-4, 99, device % 2 == 0, structure(device))


def update(device: int, evaluation: Evaluation | None = None) -> Update:
    report = Report(
        device=device,
        round=2,
        rank=2,
        effective_rank=2.0,
        structure=structure(device),
        loss_before=1.5,
        loss_after=0.1 + device,
        importance=0.25,
        examples=17,
        seconds=0.125,
        measured_memory_bytes=2**33,
        workload=Workload(1e12, 2e9, 3e9),
        evaluation=evaluation,
    )
    scores = np.random.default_rng(device).random(BLUEPRINT.units).astype(np.float32)
    return Update(report, adapter(device), scores)


def assert_same(one: Adapter, other: Adapter) -> None:
    assert list(one.factors) == list(other.factors)
    for name in one.factors:
        np.testing.assert_array_equal(one.factors[name].a, other.factors[name].a)
        np.testing.assert_array_equal(one.factors[name].b, other.factors[name].b)
    assert list(one.head) == list(other.head)
    for name in one.head:
        np.testing.assert_array_equal(one.head[name], other.head[name])
    assert list(one.residual) == list(other.residual)
    for name in one.residual:
        np.testing.assert_array_equal(one.residual[name], other.residual[name])


@given(st.sets(st.integers(0, 40), min_size=1, max_size=6))
def test_orders_come_back_the_same(devices: set[int]) -> None:
    assignments = tuple(assignment(device) for device in sorted(devices))
    envelope = union(a.structure for a in assignments)
    orders = Orders(TASK, adapter(1), envelope, np.arange(BLUEPRINT.units, dtype=np.float32), assignments)
    back = decode_orders(encode_orders(orders), BLUEPRINT)
    assert back.task == TASK
    assert back.assignments == assignments
    assert back.envelope == envelope
    np.testing.assert_array_equal(back.scores, orders.scores)
    assert_same(back.adapter, orders.adapter)


def test_results_come_back_the_same_and_in_device_order() -> None:
    sent = [
        update(11, Evaluation(0.5, 0.75, 100, macro_f1=0.7, calibration_error=0.1)),
        Failure(7, "no data"),
        update(2),
    ]
    back = decode_results(encode_results(sent), BLUEPRINT)
    assert [result.device for result in back] == [2, 7, 11]
    assert back[1] == Failure(7, "no data")
    for result, original in ((back[0], sent[2]), (back[2], sent[0])):
        assert isinstance(result, Update)
        assert isinstance(original, Update)
        assert result.report.structure == original.report.structure
        assert_same(result.adapter, original.adapter)
        np.testing.assert_array_equal(result.scores, original.scores)
        assert result.report == original.report


def test_envelope_is_the_union() -> None:
    one, other = structure(1), structure(2)
    both = union([one, other])
    assert one.within(both)
    assert other.within(both)
    np.testing.assert_array_equal(both.keep, one.keep | other.keep)


def broken_layout(content: RecordDict) -> None:
    layout = json.loads(str(content["layout-3"]["json"]))
    layout["factors"]["q"][0] += 1
    content["layout-3"] = ConfigRecord({"json": json.dumps(layout)})


def negative_size(content: RecordDict) -> None:
    layout = json.loads(str(content["layout-3"]["json"]))
    layout["factors"]["q"][0] = -2
    content["layout-3"] = ConfigRecord({"json": json.dumps(layout)})


def no_metrics(content: RecordDict) -> None:
    del content["metrics-3"]


def wrong_structure(content: RecordDict) -> None:
    arrays = content["update-3"].to_numpy_ndarrays()
    content["update-3"] = ArrayRecord(
        {
            name: type(content["update-3"][name])(value)
            for name, value in zip(
                ["adapter", "structure", "scores"], (arrays[0], np.zeros(1, np.uint8), arrays[2]), strict=True
            )
        }
    )


def not_json(content: RecordDict) -> None:
    content["layout-3"] = ConfigRecord({"json": "{"})


def not_a_mapping(content: RecordDict) -> None:
    content["layout-3"] = ConfigRecord({"json": '{"factors": [1], "head": {}}'})


def deeply_nested(content: RecordDict) -> None:
    content["layout-3"] = ConfigRecord({"json": "[" * 100_000})


def rank_of_another_type(content: RecordDict) -> None:
    content["metrics-3"]["rank"] = 2.0


def loss_as_list(content: RecordDict) -> None:
    content["metrics-3"]["loss_before"] = [1.0]


def huge_promise(content: RecordDict) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999,), }"
    array = content["update-3"]["adapter"]
    array.data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


DAMAGES = (
    broken_layout,
    negative_size,
    no_metrics,
    wrong_structure,
    not_json,
    not_a_mapping,
    deeply_nested,
    rank_of_another_type,
    loss_as_list,
    huge_promise,
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_malformed_update_becomes_a_failure_and_spares_the_others(damage) -> None:
    content = encode_results([update(3), update(4)])
    damage(content)
    back = decode_results(content, BLUEPRINT)
    assert isinstance(back[0], Failure)
    assert back[0].device == 3
    assert "malformed update" in back[0].cause
    assert isinstance(back[1], Update)


def test_malformed_orders_are_refused() -> None:
    content = encode_orders(Orders(TASK, adapter(1), structure(1), np.zeros(17, np.float32), (assignment(1),)))
    del content["assignments"]
    with pytest.raises(MalformedMessageError, match="assignments"):
        decode_orders(content, BLUEPRINT)


def low_rank(seed: int, rank: int = 2) -> Adapter:
    """Factors of the shapes that the blueprint cuts."""
    shapes = {"q": (32, 6), "o": (5, 32), "up": (13, 6), "down": (5, 13)}
    draw = np.random.default_rng(seed)
    factors = {
        name: Factors(draw.normal(size=(rank, i)).astype(np.float32), draw.normal(size=(o, rank)).astype(np.float32))
        for name, (o, i) in shapes.items()
    }
    return Adapter(factors, {"classifier.bias": draw.normal(size=3).astype(np.float32)})


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_rounded_messages_lose_nothing_more(precision: str) -> None:
    task = TASK.model_copy(update={"messages": MessageSpec(precision=precision)})
    sent, memory = rounded(low_rank(1), precision), low_rank(2)
    a = replace(assignment(1), structure=BLUEPRINT.dense())
    orders = Orders(task, sent, a.structure, np.zeros(BLUEPRINT.units, np.float32), (a,), {1: memory})
    got = decode_orders(encode_orders(orders), BLUEPRINT)
    assert_same(got.adapter, sent)
    assert_same(got.memories[1], memory)
    reply = replace(update(1).with_report(memory=memory), adapter=sent)
    (result,) = decode_results(encode_results([reply], precision), BLUEPRINT, precision=precision)
    assert_same(result.adapter, sent)
    assert_same(result.report.memory, memory)
    lighter = sum(len(array.data) for array in encode_orders(orders)["fleet"].values())
    assert lighter < sum(len(array.data) for array in encode_orders(replace(orders, task=TASK))["fleet"].values())


@pytest.mark.parametrize(("sent", "wanted"), [("fp32", "int8"), ("int8", "bf16"), ("bf16", "fp32")])
def test_an_update_in_another_precision_is_refused(sent: str, wanted: str) -> None:
    content = encode_results([replace(update(1), adapter=low_rank(1))], sent)
    (result,) = decode_results(content, BLUEPRINT, precision=wanted)
    assert isinstance(result, Failure)
    assert "vector, got" in result.cause


@pytest.mark.parametrize("broken", [np.zeros(3, np.int8), np.zeros(3, np.float32), None])
def test_exponents_that_do_not_fit_are_refused(broken: np.ndarray | None) -> None:
    content = encode_results([replace(update(1), adapter=low_rank(1))], "int8")
    arrays = {name: array.numpy() for name, array in content["update-1"].items() if name != "exponents"}
    content["update-1"] = ArrayRecord(
        {name: Array(value) for name, value in (arrays | ({} if broken is None else {"exponents": broken})).items()}
    )
    (result,) = decode_results(content, BLUEPRINT, precision="int8")
    assert isinstance(result, Failure)
    assert "exponents must be int8" in result.cause


def test_a_real_device_remembers_itself_and_repeats_a_round_alike() -> None:
    state, dense = RecordDict(), BLUEPRINT.dense()

    def orders(number: int, rank: int) -> Orders:
        a = replace(assignment(1), round=number, rank=rank, structure=dense)
        return Orders(TASK, low_rank(number, rank), dense, np.zeros(BLUEPRINT.units, np.float32), (a,))

    first = recall(state, orders(1, 2))
    assert not first.memories
    kept = replace(update(1).with_report(round=1, structure=dense, memory=low_rank(4)), adapter=low_rank(3))
    assert remember(state, first, kept).report.memory is None
    second = recall(state, orders(2, 4))
    for name, factors in kept.report.memory.factors.items():
        np.testing.assert_array_equal(second.memories[1].factors[name].a[:2], factors.a)
        assert not second.memories[1].factors[name].a[2:].any()
    remember(state, second, replace(kept.with_report(round=2, memory=low_rank(6, 4)), adapter=low_rank(5, 4)))
    again = recall(state, orders(2, 4))
    assert_same(again.memories[1], second.memories[1])
