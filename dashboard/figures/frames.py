"""Tidy pandas frames of the store's rows. Pure functions, no store and no Streamlit.

Rows are anything pandas can make a frame of: mappings, dataclasses or named tuples with the names of the schema.
Missing numbers are NaN. Shares stay in [0, 1], times in seconds.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from slimfed.dashboard import format
from slimfed.platform.store.reader import HeatMap
from slimfed.platform.under_way import state_of

RUN_COLUMNS = (
    "id",
    "name",
    "sweep",
    "method",
    "status",
    "rounds_done",
    "rounds",
    "accuracy",
    "device_accuracy_mean",
    "sparsity",
    "virtual_seconds",
    "wall_seconds",
    "started_at",
    "devices",
    "course",
    "tags",
    "notes",
    "archived",
)
ROUND_COLUMNS = (
    "round",
    "virtual_clock",
    "wall_seconds",
    "train_loss",
    "loss",
    "accuracy",
    "examples",
    "test_examples",
    "device_accuracy_mean",
    "sparsity",
    "global_sparsity",
    "megabytes",
    "virtual_seconds",
    "asked",
    "available",
    "accepted",
    "late",
    "staleness",
    "in_flight",
    "rejected",
)
DEVICE_COLUMNS = (
    "device",
    "class",
    "status",
    "sparsity",
    "rank",
    "local_steps",
    "seconds",
    "download",
    "compute",
    "upload",
    "accuracy",
    "examples",
)
SLOWEST_COLUMNS = ("round", "device", "class", "seconds", "download", "compute", "upload")
EVENT_COLUMNS = ("at", "round", "device", "kind", "cause", "remedy")


def runs_frame(
    rows: Iterable[Any], zone: tzinfo = UTC, progress: Mapping[str, Any] = MappingProxyType({})
) -> pd.DataFrame:
    """One line a run, in the order given, with start times in the reader's zone (creation, if it never started).

    ``progress``: rows of runs that are computed, by id; ``status`` is the state by both (``under_way.state_of``).
    """
    frame = _frame(rows, (*RUN_COLUMNS, "created_at", "stop_requested"))
    frame["stop_requested"] = frame["stop_requested"].eq(True)
    frame["status"] = [state_of(row, progress.get(row.id)) for row in frame.itertuples()]
    started = frame["started_at"].where(frame["started_at"].notna(), frame["created_at"])
    frame["started_at"] = pd.to_datetime([format.local(moment, zone) for moment in started], utc=True).tz_convert(zone)
    for column in ("course", "tags"):
        frame[column] = [value if isinstance(value, list) else [] for value in frame[column]]
    frame["notes"] = [value if isinstance(value, str) else "" for value in frame["notes"]]
    return _grouped(frame)[list(RUN_COLUMNS)]


def _grouped(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs of a sweep one below the other, where the newest of them stands, under their differing values alone."""
    sweeps = [sweep if isinstance(sweep, str) else "" for sweep in frame["sweep"]]
    names = [_within(name, sweep) for name, sweep in zip(frame["name"], sweeps, strict=True)]
    first: dict[str, int] = {}
    places = [first.setdefault(sweep, place) if sweep else place for place, sweep in enumerate(sweeps)]
    frame = frame.assign(sweep=sweeps, name=names, place=places)
    return frame.sort_values("place", kind="stable", ignore_index=True)


def _within(name: Any, sweep: str) -> Any:
    """The name of a run without that of its sweep, which its own column shows."""
    inner = name.removeprefix(sweep).lstrip(" :,") if sweep and isinstance(name, str) else ""
    return inner or name


def rounds_frame(rounds: Iterable[Any], evaluations: Iterable[Any]) -> pd.DataFrame:
    """One line a round, oldest first. Round 0, the model before training, is there if it was evaluated."""
    measures = ("loss", "accuracy", "examples", "test_examples")
    own = (column for column in ROUND_COLUMNS if column not in (*measures, "megabytes"))
    ran = _frame(rounds, (*own, "bytes_up", "bytes_down"))
    measured = _frame(evaluations, ("round", *measures))
    frame = ran.merge(measured, on="round", how="outer").sort_values("round", ignore_index=True)
    frame["megabytes"] = (frame["bytes_up"] + frame["bytes_down"]).cumsum() / 1e6
    frame.loc[frame["round"] == 0, ["virtual_clock", "wall_seconds", "megabytes"]] = 0.0
    # Infinite losses are left out of an axis.
    frame = frame[frame["virtual_clock"].notna()].reset_index(drop=True).replace([np.inf, -np.inf], np.nan)
    return frame[list(ROUND_COLUMNS)].astype({"round": int})


def costs_frame(rows: Iterable[Any]) -> pd.DataFrame:
    """One line a round, oldest first: bytes, joules, memory and times of that round alone."""
    names = ("bytes_down", "bytes_up", "joules", "peak_memory_bytes", "virtual_seconds", "wall_seconds")
    return _frame(rows, ("round", *names)).astype({"round": int} | dict.fromkeys(names, float))


def samples(rounds: pd.DataFrame) -> pd.Series:
    """For each of ``rounds``: " on 500 of 1,821 test texts" if that is what its accuracy stands on; else empty."""
    pairs = zip(rounds["examples"], rounds["test_examples"], strict=True)
    notes = [format.sampled(*pair) for pair in pairs]
    return pd.Series([f" {note}" if note else "" for note in notes], rounds.index, dtype=object)


def devices_frame(rows: Iterable[Any]) -> pd.DataFrame:
    """One line a device of one round, in the order given, its completion time as a whole and in its three parts."""
    frame = _frame(
        rows,
        ("device", "profile", "status", "sparsity", "rank", "local_steps", *_PARTS, "accuracy", "examples"),
    )
    return _timed(frame)[list(DEVICE_COLUMNS)].astype({"device": int, "rank": int})


def slowest_frame(rows: Iterable[Any]) -> pd.DataFrame:
    """One line a round: the slowest device and its time."""
    frame = _timed(_frame(rows, ("round", "device", "profile", *_PARTS)))
    frame = frame[frame["seconds"].notna()].sort_values("round", ignore_index=True)
    return frame[list(SLOWEST_COLUMNS)].astype({"round": int, "device": int})


def events_frame(rows: Iterable[Any], zone: tzinfo = UTC) -> pd.DataFrame:
    """One line an event, in the order given; ``device`` is NA if the event concerns none."""
    frame = _frame(rows, EVENT_COLUMNS)
    frame["at"] = [format.clock(moment, zone) for moment in frame["at"]]
    return frame.astype({"round": int, "device": "Int64"})


def grid(cells: HeatMap, values: np.ndarray) -> pd.DataFrame:
    """The ``values`` of a heat map, [rounds, devices]: rows (class, device) grouped by class, one column a round.

    Classes come in the order of their first device. Devices without values are left out.
    """
    frame = pd.DataFrame({"class": cells.profiles, "device": cells.devices})
    order = {name: place for place, name in enumerate(classes(frame))}
    ranked = frame.assign(order=frame["class"].map(order)).sort_values(["order", "device"])
    table = pd.DataFrame(
        values.T[ranked.index],
        index=pd.MultiIndex.from_frame(ranked[["class", "device"]]),
        columns=pd.Index(cells.rounds, dtype=int, name="round"),
    )
    return table[table.notna().any(axis=1)]


def timeline_frame(rows: Iterable[Any]) -> pd.DataFrame:
    """One line a device of a round, newest round and slowest device first: its parts, and ``idle`` until the end."""
    frame = _timed(_frame(rows, ("round", "device", "profile", "status", *_PARTS, "round_seconds")))
    idle = (frame["round_seconds"].astype(float) - frame["seconds"]).clip(lower=0.0)
    return frame.assign(idle=idle).astype({"round": int, "device": int})


def class_rounds_frame(rows: Iterable[Any]) -> pd.DataFrame:
    """One line a class and round: numbers of devices that took part and finished, and means."""
    columns = ("round", "profile", "devices", "done", "sparsity", "rank", "reward", *_PARTS, "slowest_seconds")
    frame = _frame(rows, columns).rename(columns={"profile": "class"})
    return frame.astype({"round": int, "devices": int, "done": int})


def class_grid(frame: pd.DataFrame, column: str, names: Sequence[str]) -> pd.DataFrame:
    """A column of :func:`class_rounds_frame` as rows (class, "mean"), one column a round; classes in this order."""
    table = frame.pivot(index="class", columns="round", values=column).reindex(list(names)).dropna(how="all")
    table.index = pd.MultiIndex.from_arrays([table.index, ["mean"] * len(table)], names=["class", "device"])
    return table


def pulls_frame(rows: Iterable[Any], steps: int) -> pd.DataFrame:
    """Boxes of pulls: ``low`` and ``high`` of the pruning step, ``ranks`` in it, ``pulls`` and mean ``reward``."""
    frame = _frame(rows, ("rank", "step", "pulls", "reward"))
    low = ((frame["step"].astype(float) - 0.5) / steps).clip(lower=0.0)
    return pd.DataFrame(
        {
            "low": low,
            "high": (frame["step"].astype(float) + 0.5) / steps,
            "ranks": [(int(rank),) for rank in frame["rank"]],
            "pulls": frame["pulls"].astype(int),
            "reward": frame["reward"].astype(float) / frame["pulls"].astype(float),
        }
    )


def with_intervals(boxes: pd.DataFrame, sums: Iterable[Any]) -> pd.DataFrame:
    """Boxes of :func:`pulls_frame` with ``interval``, half of the 95% interval of their mean rewards; NaN if unknown.

    ``sums``: the rows that the boxes were made of (``Insight.pulls``). The variance of one reward is estimated from how
    the means of classes and rounds scatter within their boxes, pooled over all boxes.
    """
    frame = _frame(sums, ("pulls", "reward", "groups", "squares")).astype(float)
    freedom = frame["groups"].sum() - len(frame)
    scatter = float((frame["squares"] - frame["reward"] ** 2 / frame["pulls"]).clip(lower=0.0).sum())
    variance = scatter / freedom if freedom > 0 else np.nan
    return boxes.assign(interval=1.96 * np.sqrt(variance / boxes["pulls"].astype(float)))


def local_steps_frame(rows: Iterable[Any]) -> pd.DataFrame:
    """One line a class and round: ``least``, ``mean`` and ``most`` local steps of its devices."""
    frame = _frame(rows, ("round", "profile", "least", "mean", "most", "devices")).rename(columns={"profile": "class"})
    return frame.astype({"round": int, "devices": int, "least": float, "mean": float, "most": float})


def leaves_frame(leaves: Iterable[Any], ranks: Sequence[int]) -> pd.DataFrame:
    """The same of the leaves of an S-UCB agent (``SUcb.leaves``); ``reward`` is NaN in a box that was never pulled."""
    rows = [
        {
            "low": leaf.box.low,
            "high": leaf.box.high,
            "ranks": tuple(ranks[leaf.box.first : leaf.box.end]),
            "pulls": len(leaf.pulls),
            "reward": float(np.mean([pull.reward for pull in leaf.pulls])) if leaf.pulls else np.nan,
        }
        for leaf in leaves
    ]
    return pd.DataFrame(rows, columns=["low", "high", "ranks", "pulls", "reward"])


def blocks_frame(rows: Iterable[Any]) -> pd.DataFrame:
    """One line a block, in forward order; ``shares`` is float [stretches], the share still kept of each stretch."""
    frame = _frame(rows, ("block", "layer", "kind", "units", "kept", "shares"))
    frame["shares"] = [np.frombuffer(part, dtype=np.uint8) / 255 for part in frame["shares"]]
    return frame.astype({"block": int, "layer": int, "units": int})


def history_frame(rows: Iterable[Any]) -> pd.DataFrame:
    """One device through its rounds, oldest first."""
    given = ("sparsity", "rank", "local_steps", "pruning_step")
    columns = ("round", "profile", "status", *given, "reward", *_PARTS, "accuracy")
    rows = [{name: getattr(row, name, None) for name in columns} for row in rows]
    return _timed(_frame(rows, columns)).drop(columns="class").astype({"round": int, "rank": int})


def nodes_frame(rows: Iterable[Any], zone: tzinfo = UTC) -> pd.DataFrame:
    """One line a node, in the order given: its last round, the time, and the time since."""
    now = datetime.now(UTC)
    frame = _frame(rows, ("node", "devices", "round", "last_contact"))
    heard = [format.local(moment) for moment in frame["last_contact"]]
    return frame.assign(
        last=[format.clock(moment, zone) for moment in heard],
        silent=[format.seconds((now - moment).total_seconds() if moment else None) for moment in heard],
    ).drop(columns="last_contact")


def event_rounds_frame(rows: Iterable[Any]) -> pd.DataFrame:
    """Number of events by kind and round."""
    return _frame(rows, ("round", "kind", "count")).astype({"round": int, "count": int})


def classes(frame: pd.DataFrame) -> list[str]:
    """The device classes of a frame with ``device`` and ``class``, in the order of their first device."""
    if frame.empty:
        return []
    return list(frame.groupby("class")["device"].min().sort_values(kind="stable").index)


def tally(kinds: Mapping[str, int]) -> str:
    """Number of events of each kind, the most frequent first: ``3 × dropout, 1 × rejected``."""
    ranked = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} × {kind}" for kind, count in ranked)


def without_nothing(job: Mapping[str, Any]) -> dict[str, Any]:
    """The job without its unset fields, which TOML cannot write."""
    return {
        key: without_nothing(value) if isinstance(value, Mapping) else value
        for key, value in job.items()
        if value is not None
    }


_PARTS = ("download_seconds", "compute_seconds", "upload_seconds")


def _timed(frame: pd.DataFrame) -> pd.DataFrame:
    """Completion time in parts and in all; NaN where a part is unknown."""
    named = frame.rename(columns={part: part.removesuffix("_seconds") for part in _PARTS} | {"profile": "class"})
    parts = named[["download", "compute", "upload"]].astype(float)
    return named.assign(**parts, seconds=parts.sum(axis=1, min_count=3))


def _frame(rows: Iterable[Any], columns: Sequence[str]) -> pd.DataFrame:
    """The named columns of the rows, with NaN for None in numbers; no rows give an empty frame of these columns."""
    records = [[_value(row, column) for column in columns] for row in rows]
    frame = pd.DataFrame(records, columns=list(columns))
    for column in frame.columns:
        if frame[column].dtype == object and frame[column].map(lambda v: v is None or isinstance(v, int | float)).all():
            frame[column] = frame[column].astype(float)
    return frame


def _value(row: Any, column: str) -> Any:
    value = row[column] if isinstance(row, Mapping) else getattr(row, column)
    return np.nan if value is None else value
