from datetime import UTC, datetime
from itertools import pairwise
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slimfed.dashboard.figures import frames
from slimfed.platform.store.reader import HeatMap

EMPTY = ([], ())


def ran(number, **more):
    row = {
        "round": number,
        "virtual_clock": 10.0 * number,
        "wall_seconds": 4.0,
        "train_loss": 1.0,
        "device_accuracy_mean": 0.5,
        "sparsity": 0.1,
        "global_sparsity": 0.1,
        "virtual_seconds": 10.0,
        "bytes_up": 1_000_000,
        "bytes_down": 2_000_000,
        "asked": 3,
        "available": 3,
        "accepted": 3,
        "late": None,
        "staleness": None,
        "in_flight": None,
        "rejected": 0,
    }
    return row | more


def evaluated(number, **more):
    return {"round": number, "loss": 1.0, "accuracy": 0.5, "examples": 9, "test_examples": 9} | more


def assigned(device, **more):
    row = {
        "device": device,
        "profile": "tx2",
        "round": 1,
        "status": "done",
        "sparsity": 0.25,
        "rank": 4,
        "local_steps": 20,
        "download_seconds": 1.0,
        "compute_seconds": 2.0,
        "upload_seconds": 3.0,
        "accuracy": 0.5,
        "examples": 10,
    }
    return row | more


def test_rounds_join_training_and_evaluation_in_order():
    frame = frames.rounds_frame(
        [ran(2), ran(1, train_loss=None)],
        [evaluated(r, loss=2.0 - r, accuracy=r / 10) for r in (0, 1, 2)],
    )
    assert list(frame["round"]) == [0, 1, 2]
    assert list(frame["virtual_clock"]) == [0.0, 10.0, 20.0]
    assert list(frame["megabytes"]) == [0.0, 3.0, 6.0]
    assert list(frame["accuracy"]) == [0.0, 0.1, 0.2]
    assert np.isnan(frame["train_loss"][0])
    assert np.isnan(frame["train_loss"][1])


def test_a_loss_without_bounds_leaves_a_gap():
    frame = frames.rounds_frame([ran(1)], [evaluated(1, loss=float("inf"))])
    assert np.isnan(frame["loss"][0])
    assert frame["accuracy"][0] == 0.5


def test_a_round_without_evaluation_keeps_its_place():
    frame = frames.rounds_frame([ran(1), ran(2)], [evaluated(2)])
    assert list(frame["round"]) == [1, 2]
    assert np.isnan(frame["accuracy"][0])


def test_an_evaluation_whose_round_is_not_written_yet_waits():
    frame = frames.rounds_frame([ran(1)], [evaluated(r) for r in (1, 2)])
    assert list(frame["round"]) == [1]


def test_rounds_measured_on_a_sample_are_named_and_others_not():
    frame = frames.rounds_frame(
        [ran(r) for r in (1, 2, 3, 4)],
        [evaluated(1, examples=5), evaluated(2, test_examples=None), evaluated(4)],
    )
    assert list(frames.samples(frame)) == [" on 5 of 9 test texts", "", "", ""]


def test_devices_have_a_completion_time_only_if_all_of_it_is_known():
    frame = frames.devices_frame([assigned(3), assigned(4, status="dropout", upload_seconds=None, accuracy=None)])
    assert list(frame["device"]) == [3, 4]
    assert frame["seconds"][0] == 6.0
    assert np.isnan(frame["seconds"][1])
    assert list(frame.columns) == list(frames.DEVICE_COLUMNS)


def test_local_steps_stand_beside_the_rank_and_are_missing_in_older_rounds():
    rounds = [assigned(3, round=1, local_steps=None, pruning_step=0.1, reward=None)]
    rounds.append(rounds[0] | {"round": 2, "local_steps": 10})
    history = frames.history_frame([SimpleNamespace(**row) for row in rounds])
    devices = frames.devices_frame([assigned(3, local_steps=None), assigned(4)])
    for frame, known in ((history, 10), (devices, 20)):
        assert list(frame.columns).index("local_steps") == list(frame.columns).index("rank") + 1
        assert np.isnan(frame["local_steps"][0])
        assert frame["local_steps"][1] == known


def test_rows_may_be_objects():
    assert frames.devices_frame([SimpleNamespace(**assigned(3))]).equals(frames.devices_frame([assigned(3)]))


def test_slowest_are_ordered_by_round():
    frame = frames.slowest_frame(
        [assigned(1, round=2), assigned(2, round=1), assigned(3, round=3, upload_seconds=None)]
    )
    assert list(frame["round"]) == [1, 2]
    assert list(frame["device"]) == [2, 1]


def test_runs_that_never_started_show_when_they_were_made():
    made, began = datetime(2025, 7, 1, 8, tzinfo=UTC), datetime(2025, 7, 1, 9)
    blank = dict.fromkeys((*frames.RUN_COLUMNS, "stop_requested"))
    frame = frames.runs_frame(
        [blank | {"created_at": made, "started_at": began}, blank | {"created_at": made}], ZoneInfo("Europe/Berlin")
    )
    assert [moment.hour for moment in frame["started_at"]] == [11, 10]


def test_runs_of_a_sweep_stand_together_under_what_differs():
    blank = dict.fromkeys((*frames.RUN_COLUMNS, "stop_requested", "created_at"))
    rows = [("c", None), ("wide: rank=8", "wide"), ("b", None), ("wide: rank=4", "wide"), ("wide", "wide"), ("a", None)]
    frame = frames.runs_frame([blank | {"id": name, "name": name, "sweep": sweep} for name, sweep in rows])
    assert list(frame["name"]) == ["c", "rank=8", "rank=4", "wide", "b", "a"]
    assert list(frame["sweep"]) == ["", "wide", "wide", "wide", "", ""]


def test_events_of_no_device():
    event = {"at": datetime(2025, 7, 1), "round": 1, "device": None, "kind": "repeated", "cause": "c", "remedy": "r"}
    frame = frames.events_frame([event, event | {"device": 4}])
    assert pd.isna(frame["device"][0])
    assert frame["device"][1] == 4
    assert frame["at"][0] == "2025-07-01 00:00"


def test_nothing_gives_empty_frames_with_their_columns():
    assert list(frames.runs_frame([]).columns) == list(frames.RUN_COLUMNS)
    assert list(frames.rounds_frame(*EMPTY).columns) == list(frames.ROUND_COLUMNS)
    assert list(frames.devices_frame([]).columns) == list(frames.DEVICE_COLUMNS)
    assert list(frames.slowest_frame([]).columns) == list(frames.SLOWEST_COLUMNS)
    assert list(frames.events_frame([]).columns) == list(frames.EVENT_COLUMNS)
    assert frames.grid(cells([], ()), np.empty((0, 0))).empty


def cells(classes, rounds=(1, 2), values=None):
    """A heat map of devices 0, 1, ... of these classes, as the store hands it out: ordered by class name."""
    order = sorted(range(len(classes)), key=lambda device: (classes[device], device))
    table = np.array([[100.0 * device + number for device in order] for number in rounds]) if values is None else values
    return HeatMap(tuple(rounds), tuple(order), tuple(classes[device] for device in order), table, table)


def test_a_grid_groups_devices_by_class_in_the_order_of_the_fleet():
    heat = cells(["tx2", "nx", "tx2", "agx", "nx"])
    table = frames.grid(heat, heat.rank)
    assert list(table.index) == [("tx2", 0), ("tx2", 2), ("nx", 1), ("nx", 4), ("agx", 3)]
    assert list(table.columns) == [1, 2]
    assert table.loc[("nx", 4), 2] == 402


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=12).flatmap(
        lambda classes: st.tuples(
            st.just(classes), arrays(float, (3, len(classes)), elements=st.floats(0, 0.99) | st.just(np.nan))
        )
    )
)
def test_a_grid_holds_every_cell_once_and_nothing_else(drawn):
    classes, values = drawn
    heat = cells(classes, (1, 2, 5), values)
    table = frames.grid(heat, values)
    assert table.notna().to_numpy().sum() == np.isfinite(values).sum()
    for place, device in enumerate(heat.devices):
        for line, number in enumerate(heat.rounds):
            if np.isfinite(values[line, place]):
                assert table.loc[(classes[device], device), number] == values[line, place]
    names = list(table.index.get_level_values("class"))
    assert sum(here != there for here, there in pairwise(names)) == max(len(set(names)) - 1, 0)


def test_events_are_tallied_with_the_commonest_first():
    assert frames.tally({"late": 1, "dropout": 1200, "failed": 1}) == "1,200 × dropout, 1 × failed, 1 × late"


def test_a_job_without_its_unset_fields_is_toml():
    job = {"name": "x", "model": {"path": "p", "revision": None}, "ranks": [2, 4]}
    assert (
        tomli_w.dumps(frames.without_nothing(job))
        == 'name = "x"\nranks = [\n    2,\n    4,\n]\n\n[model]\npath = "p"\n'
    )


@pytest.mark.parametrize("rows", [[], [assigned(0)]])
def test_frames_do_not_change_their_rows(rows):
    before = [dict(row) for row in rows]
    frames.devices_frame(rows)
    assert rows == before
