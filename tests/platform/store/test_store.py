import math
import multiprocessing
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import postgres
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from round_records import device_record, round_record
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from slimfed.clients.errors import InputError
from slimfed.clients.update import Evaluation, Workload
from slimfed.platform.job.job import job_to_dict, load_job, parse_job
from slimfed.platform.store import mirror, revisions
from slimfed.platform.store.dashboard_reader import Insight
from slimfed.platform.store.database import writing
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.rows import CheckpointRow
from slimfed.platform.store.schema import NEWEST_REVISION, Base
from slimfed.platform.store.writer import Store, upgrade
from slimfed.platform.summary import run_summaries, run_summary
from slimfed.strategies.protocols import Baseline, Event

RUN = "20260101-120000-abc"
KEYS = [
    "run_id",
    "status",
    "state",
    "progress",
    "rounds",
    "devices",
    "accuracy",
    "device_accuracy_mean",
    "sparsity",
    "virtual_seconds",
    "wall_seconds",
    "seconds_per_round",
    "bytes_up",
    "bytes_down",
    "rejected_updates",
    "joules",
    "epsilon",
    "task",
    "loss",
    "macro_f1",
    "calibration_error",
    "perplexity",
    "bits_per_byte",
    "accuracy_normalised",
    "exact_match",
    "rouge_l",
    "bleu",
    "examples",
    "test_examples",
    "base_accuracy",
    "majority",
    "evaluated_on",
    "held_out_accuracy",
    "reference",
    "reference_of",
    "sweep",
    "store",
]


@pytest.fixture
def run(store: Store) -> str:
    store.create_run(RUN, job_to_dict(load_job(None, ["fleet.devices=3"])), Path("/runs") / RUN)
    store.set_devices(RUN, [(0, "tx2", 10), (1, "nx", 11), (2, "tx2", 12)])
    return RUN


def three(round: int):
    return (
        device_record(0, round, seconds=3.0),
        device_record(1, round, seconds=9.0, status="rejected"),
        device_record(2, round, seconds=5.0),
    )


def test_revisions_make_exactly_the_schema(store: Store) -> None:
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_new_run_is_listed_with_its_job(store: Store, run: str) -> None:
    found = Reader(store.engine).find_run(run)
    assert found.status == "created"
    assert parse_job(found.job) == load_job(None, ["fleet.devices=3"])
    assert (datetime.now(UTC) - found.created_at).total_seconds() < 60
    assert [row.profile for row in Reader(store.engine).devices(run)] == ["tx2", "nx", "tx2"]


def test_a_round_and_its_totals(store: Store, run: str) -> None:
    for number in (1, 2, 3):
        store.record_round(run, round_record(number, three(number)))
    reader = Reader(store.engine)
    found = reader.find_run(run)
    assert (found.rounds_done, found.rejected_updates) == (3, 3)
    assert found.bytes_down == 9_000_000_000
    assert found.virtual_seconds == 30.0
    assert found.accuracy == pytest.approx(0.53)
    assert found.sparsity == pytest.approx(0.3)
    assert [row.virtual_clock for row in reader.rounds(run)] == [10.0, 20.0, 30.0]
    assert [(row.accepted, row.rejected, row.slowest_device) for row in reader.rounds(run, after=2)] == [(2, 1, 2)]
    assert [row.round for row in reader.evaluations(run)] == [1, 2, 3]
    slowest = reader.slowest_devices(run)[-1]
    assert (slowest.device, slowest.profile, slowest.compute_seconds) == (2, "tx2", 4.25)
    first, rejected, _ = reader.device_rows(run)
    assert (first.round, first.status, first.pruning_step, first.sparsity) == (3, "done", 0.5, 0.5)
    assert (first.accuracy, first.examples, first.peak_memory_bytes) == (0.75, 10, 5_000_000_000)
    assert (rejected.status, rejected.sparsity, rejected.reward) == ("rejected", 0.0, None)
    assert [row.round for row in reader.device_history(run, 1)] == [1, 2, 3]


def test_local_steps_of_every_device_and_round(store: Store, run: str) -> None:
    given = {1: (20, 5, 10), 2: (10, 20, 40)}
    for number, steps in given.items():
        devices = tuple(
            replace(record, assignment=replace(record.assignment, local_steps=each))
            for record, each in zip(three(number), steps, strict=True)
        )
        store.record_round(run, round_record(number, devices))
    reader = Reader(store.engine)
    for number, steps in given.items():
        assert tuple(row.local_steps for row in reader.device_rows(run, number)) == steps
    assert [row.local_steps for row in reader.device_history(run, 1)] == [5, 20]
    assert {row.device: row.local_steps for row in reader.slowest_rows(run, 3)} == dict(enumerate(given[2]))


def test_a_round_recorded_again_replaces_itself_and_what_came_after(store: Store, run: str) -> None:
    for number in (1, 2, 3):
        store.record_round(run, round_record(number, three(number)))
    store.add_event(run, Event(2, "quorum-missed", "1 of 3", "wait"))
    store.record_round(run, round_record(2, three(2), virtual_seconds=7.0, evaluation=None))
    reader = Reader(store.engine)
    assert [row.virtual_clock for row in reader.rounds(run)] == [10.0, 17.0]
    assert reader.find_run(run).rounds_done == 2
    assert reader.find_run(run).accuracy == pytest.approx(0.51)
    assert len(reader.device_rows(run, 3)) == 0
    kinds = sorted((row.round, row.kind) for row in reader.events(run))
    assert kinds == [(1, "rejected"), (2, "quorum-missed"), (2, "rejected"), (3, "rejected")]


def test_recording_a_round_twice_changes_nothing(store: Store, run: str) -> None:
    def picture():
        reader = Reader(store.engine)
        tables = [reader.device_rows(run), reader.evaluations(run), [row[2:] for row in reader.events(run)]]
        return str([[tuple(row)[4:] for row in table] for table in tables]), reader.find_run(run).bytes_up

    store.record_round(run, round_record(1, three(1)))
    before = picture()
    store.record_round(run, round_record(1, three(1)))
    assert picture() == before


def test_a_round_is_written_whole_or_not_at_all(store: Store, run: str) -> None:
    store.record_round(run, round_record(1, three(1)))
    twice = (device_record(0, 2), device_record(0, 2))
    with pytest.raises(IntegrityError):
        store.record_round(run, round_record(2, twice))
    reader = Reader(store.engine)
    assert [row.round for row in reader.rounds(run)] == [1]
    assert reader.find_run(run).rounds_done == 1
    with pytest.raises(IntegrityError):
        store.record_round("nobody", round_record(1, three(1)))


def test_numbers_that_are_none_survive(store: Store, run: str) -> None:
    record = round_record(1, three(1), train_loss=math.nan, evaluation=Evaluation(math.nan, 0.1, 5))
    store.record_round(run, record)
    reader = Reader(store.engine)
    assert reader.rounds(run)[0].train_loss is None
    assert reader.evaluations(run)[0].loss == math.inf


@pytest.mark.parametrize("number", [2**63 - 1, 2**31, 10**400, 1e300, -1e300, math.inf, math.nan])
def test_no_number_is_too_large_for_a_database(store: Store, run: str, number: float) -> None:
    """Nobody but a defect makes such a record: what devices report has been checked. The run goes on even so."""
    honest = device_record(0)
    report = replace(
        honest.report,
        examples=number,
        loss_after=number,
        workload=Workload(number, number, number),
        evaluation=Evaluation(number, number, 9),
    )
    record = round_record(1, (replace(honest, report=report, bytes_up=number),), bytes_up=number, train_loss=number)
    for _ in range(2):
        store.record_round(run, record)
    reader = Reader(store.engine)
    [row] = reader.device_rows(run, 1)
    assert row.examples in (None, 2**31 - 1, -(2**31 - 1))
    assert abs(row.bytes_up) <= 2**53
    assert row.flops is None or math.isfinite(row.flops)
    assert reader.find_run(run).rounds_done == 1


def test_text_of_others_is_plain_in_every_database(store: Store, run: str) -> None:
    hostile = "a\0b \x1b[31mred\x1b[0m \u202eevil\u2066 \ud800 \r\n" + 9000 * "x"
    store.add_event(run, Event(1, hostile, hostile, hostile))
    store.set_devices(run, [(0, hostile, 5)])
    store.label(run, tags=[hostile], notes=hostile)
    store.finish(run, "failed", hostile)
    reader = Reader(store.engine)
    [event], found = reader.events(run), reader.find_run(run)
    for stored in (event.kind, event.cause, event.remedy, found.cause, found.notes, *found.tags):
        assert not set(stored) & set("\0\x1b\r\u202e\u2066\ud800")


def test_life_of_a_run(store: Store, run: str) -> None:
    reader = Reader(store.engine)
    store.mark_running(run)
    started = reader.find_run(run)
    assert started.status == "running"
    assert started.pid
    assert store.request_stop(run)
    assert store.stop_requested(run)
    assert store.finish(run, "stopped", "Ctrl-C")
    assert not store.finish(run, "failed", "too late")
    assert not store.request_stop(run)
    assert (reader.find_run(run).status, reader.find_run(run).cause) == ("stopped", "Ctrl-C")
    assert not store.mark_running(run), "an ended run is resumed by taking it over"
    assert store.take_over(reader.find_run(run))
    assert store.mark_running(run)
    resumed = reader.find_run(run)
    assert (resumed.status, resumed.cause, resumed.finished_at) == ("running", None, None)
    assert resumed.started_at == started.started_at
    assert not store.stop_requested(run)
    store.heartbeat(run)
    assert reader.find_run(run).heartbeat_at >= resumed.heartbeat_at


def test_rewind_forgets_later_rounds_and_keeps_their_events(store: Store, run: str) -> None:
    for number in (1, 2):
        store.record_round(run, round_record(number, three(number)))
    store.rewind(run, 1)
    reader = Reader(store.engine)
    assert reader.find_run(run).rounds_done == 1
    assert {row.round for row in reader.events(run)} == {1, 2}


def test_only_checkpoints_that_exist_are_remembered(store: Store, run: str) -> None:
    for number in (1, 2, 3):
        row = CheckpointRow(number, Path(f"/c/round-{number}"), 2**40, "f" * 64)
        store.record_round(run, round_record(number, three(number)), row, kept=[number - 1, number])
    assert [row.round for row in Reader(store.engine).checkpoints(run)] == [3, 2]
    assert Reader(store.engine).checkpoints(run)[0].bytes == 2**40


def test_runs_are_found_by_beginning(store: Store) -> None:
    job = load_job()
    for run_id in ("20260101-120000-abc", "20260101-120000-abd", "20260102-120000-xyz"):
        store.create_run(run_id, job_to_dict(job), Path("/x"))
    reader = Reader(store.engine)
    assert reader.find_run("20260102").id == "20260102-120000-xyz"
    assert reader.find_run("20260101-120000-abc").id == "20260101-120000-abc"
    assert reader.find_run("last").id == "20260102-120000-xyz"
    with pytest.raises(InputError, match="several runs begin so: 20260101-120000-abc, 20260101-120000-abd"):
        reader.find_run("20260101")
    for nobody in ("2027", "", "%", "2026_102", "20260102-120000-XYZ"):
        with pytest.raises(InputError, match="there is no such run"):
            reader.find_run(nobody)


def test_runs_are_listed_newest_first_and_filtered(store: Store) -> None:
    for number in range(5):
        store.create_run(f"run-{number}", job_to_dict(load_job(None, [f"name=job_{number}"])), Path("/x"))
    store.finish("run-2", "failed", "why not")
    reader = Reader(store.engine)
    assert [row.id for row in reader.runs(limit=2)] == ["run-4", "run-3"]
    assert [row.id for row in reader.runs(limit=2, offset=4)] == ["run-0"]
    assert [row.id for row in reader.runs(status=["failed"])] == ["run-2"]
    assert [row.id for row in reader.runs(name="b_3")] == ["run-3"]
    assert [row.id for row in reader.runs(name="%")] == []
    assert reader.runs(method="other") == []


def test_no_runs_at_all(store: Store) -> None:
    with pytest.raises(InputError, match="no runs yet"):
        Reader(store.engine).find_run("last")
    assert Reader(store.engine).heat_map("nobody").sparsity.shape == (0, 0)


def test_heat_map_samples_every_class(store: Store, run: str) -> None:
    store.set_devices(run, [(d, "tx2" if d % 4 else "agx", 1) for d in range(20)])
    for number in range(1, 8):
        devices = tuple(device_record(d, number) for d in range(20) if (d, number) != (4, 7))
        store.record_round(run, round_record(number, devices))
    whole = Reader(store.engine).heat_map(run)
    assert whole.sparsity.shape == (7, 20)
    assert np.isnan(whole.sparsity).sum() == 1
    assert np.nanmax(whole.rank) == np.nanmin(whole.rank) == 4
    part = Reader(store.engine).heat_map(run, devices=7, rounds=3)
    assert part.rounds == (1, 4, 7)
    assert set(part.profiles) == {"agx", "tx2"}
    assert part.sparsity.shape == (3, len(part.devices))
    assert len(part.devices) <= 8


@pytest.mark.parametrize("count", range(6))
def test_seconds_per_round_is_the_median_after_the_first(store: Store, run: str, count: int) -> None:
    seconds = [100.0, 3.0, 1.0, 5.0, 2.5][:count]
    for number, each in enumerate(seconds, 1):
        store.record_round(run, round_record(number, three(number), wall_seconds=each))
    found = Reader(store.engine).seconds_per_round([run])
    assert found == ({run: float(np.median(seconds[1:]))} if count > 1 else {})


def test_the_baseline_is_round_0_and_no_round(store: Store, run: str, tmp_path: Path) -> None:
    reader = Reader(store.engine)
    for accuracy in (0.3, 0.31):  # a run that is resumed before its first round measures it again
        store.record_baseline(run, Baseline(Evaluation(2.0, accuracy, 50, test_examples=90), 0.25))
    found = reader.find_run(run)
    assert (found.base_accuracy, found.majority, found.accuracy, found.rounds_done) == (0.31, 0.25, None, 0)
    held_out = Evaluation(1.0, 0.7, 40, test_examples=40)
    store.record_round(run, replace(round_record(1, three(1)), held_out=held_out))
    store.rewind(run, 1)
    found, evaluations = reader.find_run(run), reader.evaluations(run)
    assert [(row.round, row.majority) for row in evaluations] == [(0, 0.25), (1, None)]
    assert (found.base_accuracy, found.accuracy) == (0.31, evaluations[1].accuracy)
    assert found.held_out_accuracy == 0.7
    assert evaluations[1].held_out == asdict(held_out)
    assert evaluations[0].held_out is None
    assert len(found.course) == 1
    with store.engine.connect() as connection:
        mirror.copy_round(connection, run, 1, tmp_path / "rows")
    ((_, rows),) = mirror.read_rounds(tmp_path / "rows", run)
    assert [row["round"] for row in rows["evaluations"]] == [0, 1]


def test_summary_has_the_keys_of_the_design(store: Store, run: str) -> None:
    store.record_round(run, round_record(1, three(1)))
    reader = Reader(store.engine)
    (summary,) = run_summaries(reader.runs(), reader, store.address)
    assert list(summary) == KEYS
    assert summary["rounds"] == 1
    assert summary["seconds_per_round"] is None
    assert summary == run_summary(reader.find_run(run), None, store.address)
    assert postgres.PASSWORD not in str(summary)


def test_deleting_a_run_deletes_what_hangs_on_it(store: Store, run: str) -> None:
    store.record_round(run, round_record(1, three(1)), CheckpointRow(1, Path("/c"), 1, "0" * 64), kept=[1])
    with writing(store.engine) as connection:
        connection.execute(text("DELETE FROM runs"))
        left = {name: connection.scalar(text(f"SELECT count(*) FROM {name}")) for name in Base.metadata.tables}
    assert set(left.values()) == {0}


def test_upgrade_is_idempotent(store_url: str, tmp_path: Path) -> None:
    assert upgrade(store_url, tmp_path) == (None, NEWEST_REVISION)
    assert upgrade(store_url, tmp_path) == (NEWEST_REVISION, NEWEST_REVISION)
    Store.open(store_url, tmp_path).close()


def test_an_older_store_keeps_what_is_in_it(store: Store, store_url: str, run: str, tmp_path: Path) -> None:
    """Back to the first revision and forth again; what can be told from older rows is filled in."""
    store.record_round(run, round_record(1, three(1)), CheckpointRow(1, Path("/c"), 1, "0" * 64), kept=[1])
    sums = Insight(store.engine).class_rounds(run), Insight(store.engine).pulls(run)
    with writing(store.engine) as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(revisions.__file__).parent / "migrations"))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        assert "task" not in {column["name"] for column in inspect(connection).get_columns("runs")}
    assert upgrade(store_url, tmp_path) == ("0001", NEWEST_REVISION)
    reader = Insight(store.engine)
    found = reader.find_run(run)
    assert (found.task, found.loss, found.rounds_done) == ("classification", 0.6, 1)
    assert (found.course, found.tags, found.archived) == ([pytest.approx(0.51)], None, False)
    assert (reader.class_rounds(run), reader.pulls(run)) == sums
    assert [row.peak_memory_bytes for row in reader.rounds(run)] == [5_000_000_000]
    assert len(reader.devices(run)) == len(reader.device_rows(run)) == 3
    assert {row.local_steps for row in reader.device_rows(run)} == {None}
    assert len(reader.checkpoints(run)) == len(reader.evaluations(run)) == 1


def test_a_newer_store_is_refused(store: Store, store_url: str, tmp_path: Path) -> None:
    with writing(store.engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for opening in (Store.open, upgrade):
        with pytest.raises(InputError, match=r"newer slimfed \(revision 9999\)") as refusal:
            opening(store_url, tmp_path)
        assert postgres.PASSWORD not in str(refusal.value)


def test_foreign_tables_are_left_alone(store: Store, store_url: str, tmp_path: Path) -> None:
    with writing(store.engine) as connection:
        connection.execute(text("DROP TABLE alembic_version"))
    with pytest.raises(InputError, match="that slimfed did not make"):
        Store.open(store_url, tmp_path)


def _open(url: str, home: Path) -> None:
    Store.open(url, home).close()


def test_many_processes_may_open_a_new_store_at_once(store_url: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_open, args=(store_url, tmp_path)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4


def test_sqlite_is_in_wal_with_references(tmp_path: Path) -> None:
    with Store.open("sqlite", tmp_path) as store, store.engine.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
        assert (tmp_path / "store.db").exists()


def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    with Store.open("sqlite", tmp_path) as store, writing(store.engine) as connection:
        connection.execute(text("DELETE FROM runs"))
        started = time.monotonic()
        assert Reader(store.engine).runs() == []
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:geheim@127.0.0.1:1/x",
        "postgres://me:geheim@127.0.0.1:1/x",
        "postgresql://me@127.0.0.1:1/x?password=geheim",
        "mysql://me:geheim@localhost/x",
        "geheim",
        "sqlite:////dev/null/store.db",
        "sqlite://",
    ],
)
def test_a_store_out_of_reach_is_bad_input_said_soon_without_password(url: str, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(InputError, match=r"^store\.url") as refusal:
        Store.open(url, tmp_path)
    assert time.monotonic() - started < 10
    assert "geheim" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_wrong_password_is_not_shown(postgres_url: str, tmp_path: Path) -> None:
    wrong = postgres_url.replace(postgres.PASSWORD, "wrong-secret")
    with pytest.raises(InputError, match="password authentication failed") as refusal:
        Store.open(wrong, tmp_path)
    assert "wrong-secret" not in str(refusal.value)


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_text("not a database" * 1000)
    with pytest.raises(InputError, match="file is not a database"):
        Store.open("sqlite", tmp_path)


def test_job_json_round_trip() -> None:
    job = load_job()
    assert parse_job(job_to_dict(job)) == job


def test_the_newest_revision_is_the_last_migration() -> None:
    head = ScriptDirectory.from_config(revisions.alembic_config()).get_current_head()
    assert head == NEWEST_REVISION


@pytest.mark.parametrize(
    "folder", ["/srv/a  b/run", "/srv/\u200fruns/x", "/srv/soft\u00adhyphen", "/srv/a " + "b" * 3000]
)
def test_paths_are_stored_as_they_are(store: Store, folder: str) -> None:
    """A run's folder is opened, not only shown."""
    store.create_run("somewhere", job_to_dict(load_job(None)), Path(folder))
    assert Reader(store.engine).find_run("somewhere").folder == folder
