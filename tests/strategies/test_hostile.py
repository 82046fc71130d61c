"""What a hostile node may send, from its records to the verdict: refused with a cause, and no average changes."""

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from honest_fleet import BLUEPRINT, DEVICES, FLEET, HONEST, WHOLE, Validated, honest, reply, validate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from training import task

from slimfed.clients.messages.records import (
    MalformedMessageError,
    Orders,
    decode_orders,
    decode_results,
    encode_orders,
    encode_results,
)
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.update import Update
from slimfed.strategies.aggregation import AGGREGATIONS


def outcome(changes: dict[int, Callable[[RecordDict], object]], extra: list[Message] | None = None) -> Validated:
    """The outcome of a round in which some nodes changed their records."""
    replies = []
    for node, (_, update) in enumerate(HONEST, 1):
        content = encode_results([update])
        changes.get(node, lambda _: None)(content)
        replies.append(reply(node, content))
    return validate([*replies, *(extra or [])])


def average(of: Validated) -> list[np.ndarray]:
    return of.accumulated.aggregate().tensors()


def tensor(change: Callable[[np.ndarray], np.ndarray], name: str = "adapter") -> Callable[[RecordDict], None]:
    def tamper(content: RecordDict) -> None:
        record = content["update-2"]
        record[name] = Array(change(record[name].numpy().copy()))

    return tamper


def first(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def put(values: np.ndarray) -> np.ndarray:
        values[0] = value
        return values

    return put


def metric(name: str, value: object) -> Callable[[RecordDict], None]:
    return lambda content: content["metrics-2"].__setitem__(name, value)


def layout(text: str) -> Callable[[RecordDict], None]:
    return lambda content: content.__setitem__("layout-2", ConfigRecord({"json": text}))


def rename(old: str, new: str) -> Callable[[RecordDict], None]:
    def tamper(content: RecordDict) -> None:
        content["layout-2"] = ConfigRecord({"json": str(content["layout-2"]["json"]).replace(old, new)})

    return tamper


ATTACKS: dict[str, tuple[Callable[[RecordDict], object], str]] = {
    "NaN": (tensor(first(np.nan)), "not-finite"),
    "infinity": (tensor(first(np.inf)), "not-finite"),
    "a huge norm": (tensor(lambda v: v * np.float32(1e6)), "norm"),
    "the largest floats": (tensor(lambda v: np.full_like(v, np.finfo(np.float32).max)), "norm"),
    "NaN scores": (tensor(first(np.nan), "scores"), "not-finite"),
    "huge scores": (tensor(lambda v: v * np.float32(1e9), "scores"), "scores"),
    "negative scores of a huge size": (tensor(lambda v: v * np.float32(-1e9), "scores"), "scores"),
    "negative scores": (tensor(first(-1e-3), "scores"), "scores"),
    "scores of what is removed": (tensor(lambda v: v + np.float32(0.1), "scores"), "scores"),
    "short scores": (tensor(lambda v: v[:1], "scores"), "shape"),
    "doubles": (tensor(lambda v: v.astype(np.float64)), "device-failed"),
    "a matrix for a vector": (tensor(lambda v: v[None]), "device-failed"),
    "too few values": (tensor(lambda v: v[:-1]), "device-failed"),
    "no values": (tensor(lambda v: v[:0]), "device-failed"),
    "a structure of another model": (tensor(lambda v: v[:-1], "structure"), "device-failed"),
    "a structure that is not what was asked": (tensor(lambda v: v * 0 + 255, "structure"), "structure"),
    "another rank": (metric("rank", 3), "rank"),
    "another round": (metric("round", 9), "late"),
    "no examples": (metric("examples", 0), "examples"),
    "endless examples": (metric("examples", 2**40), "examples"),
    "a NaN loss": (metric("loss_after", float("nan")), "range"),
    "negative work": (metric("flops", -1.0), "range"),
    "work beyond all machines": (metric("flops", 1e300), "range"),
    "memory beyond all integers": (metric("measured_memory_bytes", 2**63 - 1), "range"),
    "a loss that nobody has": (metric("loss_before", 1e308), "range"),
    "an accuracy above one": (metric("test_accuracy", 5.0), "device-failed"),
    "a whole number for a fraction": (metric("loss_after", 1), "device-failed"),
    "a list for a number": (metric("examples", [1, 2]), "device-failed"),
    "a layout that is no JSON": (layout("{"), "device-failed"),
    "a layout nested without end": (layout("[" * 100_000), "device-failed"),
    "a layout of another kind": (layout("[]"), "device-failed"),
    "sizes that are negative": (layout('{"factors": {"x": [-1, -4, 4]}, "head": {}}'), "device-failed"),
    "sizes beyond all memory": (layout('{"factors": {"x": [1000000000000, 9, 9]}, "head": {}}'), "device-failed"),
    "a module of another name": (rename("query", "quary"), "names"),
    "no metrics": (lambda content: content.pop("metrics-2"), "device-failed"),
    "no layout": (lambda content: content.pop("layout-2"), "device-failed"),
    "records of the wrong kind": (
        lambda content: content.__setitem__("update-2", MetricRecord({"adapter": 1.0})),
        "device-failed",
    ),
    "arrays that are no numpy": (
        lambda content: content["update-2"].__setitem__("adapter", Array("float32", (4,), "numpy.ndarray", b"garbage")),
        "device-failed",
    ),
    "an array of a petabyte in a hundred bytes": (
        lambda content: content["update-2"].__setitem__(
            "adapter", Array("float32", (2**48,), "numpy.ndarray", _promising(2**48))
        ),
        "device-failed",
    ),
    "a pickled array": (
        lambda content: content["update-2"].__setitem__("adapter", Array("object", (1,), "numpy.ndarray", _pickled())),
        "device-failed",
    ),
}


def _promising(count: int) -> bytes:
    """A numpy file whose head promises so many numbers, and that has one."""
    import io

    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (count,)})
    return file.getvalue() + b"1234"


def _pickled() -> bytes:
    """A numpy file whose content runs code when it is unpickled."""
    import io

    class Bomb:
        def __reduce__(self) -> tuple:
            return (exec, ("raise SystemExit('a pickle was loaded')",))

    file = io.BytesIO()
    np.save(file, np.array([Bomb()], dtype=object), allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_named_and_changes_no_average(attack: str) -> None:
    change, kind = ATTACKS[attack]
    found = outcome({3: change})  # node 3 hosts device 2
    assert [(event.kind, event.device) for event in found.events] == [(kind, 2)], found.events
    assert found.events[0].cause
    assert found.events[0].remedy
    assert len(found.events[0].cause) < 3000
    without = AGGREGATIONS["coverage"](WHOLE, [update for _, update in HONEST if update.device != 2]).tensors()
    assert all(np.array_equal(a, b) for a, b in zip(average(found), without, strict=True))


def test_a_round_without_attacks_accepts_everybody() -> None:
    assert len(outcome({}).accepted) == DEVICES


@pytest.mark.parametrize("count", [1, 100_000])
def test_answers_for_others_devices_are_one_event_and_no_more(count: int) -> None:
    def claim(content: RecordDict) -> None:
        content["failures"] = ConfigRecord({str(device): "x" for device in range(3, 3 + count)})

    found = outcome({3: claim})
    assert [(event.kind, event.device) for event in found.events] == [("foreign-device", 3)]
    assert len(found.accepted) == DEVICES


def test_an_update_in_anothers_name_does_not_count() -> None:
    def steal(content: RecordDict) -> None:
        for part in ("update", "layout", "metrics"):
            content[f"{part}-4"] = content.pop(f"{part}-2")

    found = outcome({3: steal})
    assert {(event.kind, event.device) for event in found.events} == {("foreign-device", 4), ("no-reply", 2)}
    (fourth,) = [record.report for record in found.accepted if record.assignment.device == 4]
    assert fourth == HONEST[4][1].report


def test_a_reply_that_comes_twice_counts_once() -> None:
    again = reply(3, encode_results([HONEST[2][1]]))
    found = outcome({}, [again])
    assert [(event.kind, event.device) for event in found.events] == [("repeated", 2)]
    assert all(np.array_equal(a, b) for a, b in zip(average(found), average(outcome({})), strict=True))


def test_a_flipped_sign_is_within_bounds_and_robust_aggregation_ignores_it() -> None:
    """It moved as far as the others did, only the other way: no check can tell, so the average must."""

    def flipped(update: Update) -> Update:
        sent = narrow(WHOLE, BLUEPRINT.dense(), update.report.structure, update.report.rank)
        for now, then in zip(update.adapter.tensors(), sent.tensors(), strict=True):
            now[:] = 2 * then - now
        return update

    liar = encode_results([flipped(honest(2)[1])])
    found = validate([reply(n, liar if n == 3 else encode_results([u])) for n, (_, u) in enumerate(HONEST, 1)])
    assert len(found.accepted) == DEVICES
    updates = found.accumulated.kept_updates()
    assert len(updates) == DEVICES
    for name in ("trimmed-mean", "median"):
        values = AGGREGATIONS[name](WHOLE, updates).tensors()
        assert all(np.isfinite(value).all() for value in values)


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=20)
numbers = st.integers(-(2**40), 2**40) | st.floats()
shapes = st.lists(st.integers(0, 6), max_size=3).map(tuple)
dtypes = st.sampled_from(["float32", "float64", "uint8", "int64", "bool", "float16"])
arrays = st.builds(lambda dtype, shape: Array(np.zeros(shape, dtype=dtype)), dtypes, shapes)
records = (
    st.builds(ArrayRecord, st.dictionaries(st.sampled_from(["adapter", "structure", "scores", "x"]), arrays))
    | st.builds(MetricRecord, st.dictionaries(st.sampled_from(["round", "rank", "loss_after", "examples"]), numbers))
    | st.builds(
        ConfigRecord,
        st.dictionaries(
            st.sampled_from(["json", "2", "-1", "x"]), st.text(max_size=30) | st.integers(0, 9) | st.floats()
        ),
    )
)
keys = st.sampled_from(
    ["update-2", "layout-2", "metrics-2", "failures", "node", "update--1", "update-02", "update-x", "update-", "host"]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(keys, records), st.booleans())
def test_no_reply_can_break_the_decoder(content: dict, over: bool) -> None:
    """Whatever is in the records, over an honest reply or alone: there is a verdict on device 2, and no more."""

    def change(records: RecordDict) -> None:
        if not over:
            records.clear()
        for key, record in content.items():
            records[key] = record

    found = outcome({3: change})
    assert {record.assignment.device for record in found.devices} == set(range(DEVICES))
    assert len(found.accepted) >= DEVICES - 1
    assert all(np.isfinite(value).all() for value in average(found))


@settings(max_examples=100)
@given(st.sampled_from(["task", "layout", "fleet", "assignments"]), st.none() | records)
def test_no_orders_can_break_a_node(key: str, record: object) -> None:
    plans = [plan.assignment for plan, _ in HONEST]
    spec = task(False)
    content = encode_orders(Orders(spec, WHOLE, BLUEPRINT.dense(), FLEET.scores, tuple(plans)))
    if record is None:
        del content[key]
    else:
        content[key] = record  # type: ignore[assignment]
    with pytest.raises(MalformedMessageError):
        decode_orders(content, BLUEPRINT)


@settings(max_examples=100)
@given(st.binary(max_size=200), st.sampled_from(["adapter", "structure", "scores"]), dtypes, shapes)
def test_no_bytes_in_an_array_can_break_the_decoder(data: bytes, name: str, dtype: str, shape: tuple) -> None:
    content = encode_results([HONEST[2][1]])
    content["update-2"][name] = Array(dtype, shape, "numpy.ndarray", data)
    (result,) = decode_results(content, BLUEPRINT)
    assert result.device == 2
