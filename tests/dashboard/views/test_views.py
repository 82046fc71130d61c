"""The pages without a browser: what they write, given what the store holds."""

from datetime import UTC, datetime, timedelta

import pytest
from sample import SampleRun, new_store
from sqlalchemy import text as sql
from streamlit.testing.v1 import AppTest

from slimfed.strategies.protocols import Event

SECONDS = 60


def run_page(home, run):
    from pathlib import Path

    from slimfed.dashboard.source import Source
    from slimfed.dashboard.views import run as page

    page.show(Source("sqlite", Path(home)), run, lambda chosen: None, lambda chosen: None)


def runs_page(home):
    from pathlib import Path

    import streamlit as st

    from slimfed.dashboard.source import Source
    from slimfed.dashboard.views import runs as page

    page.show(Source("sqlite", Path(home)), lambda chosen: st.write(chosen), lambda chosen: st.write(chosen))


def shown(page, *arguments, tab=None):
    app = AppTest.from_function(page, args=tuple(map(str, arguments)), default_timeout=SECONDS)
    if tab:
        app.session_state["tab"] = tab
    app.run()
    assert not app.exception
    return app


def text(app):
    return "\n".join(
        str(element.value) for kind in (app.markdown, app.caption, app.error, app.info) for element in kind
    )


@pytest.fixture
def store(tmp_path):
    with new_store(tmp_path) as opened:
        yield opened


def test_the_headline_of_a_run(tmp_path, store):
    run = SampleRun(store, devices=8, rounds=5, mishaps=False).play(2)
    app = shown(run_page, tmp_path, run.id)
    assert [metric.label for metric in app.metric][:3] == ["Accuracy", "Sparsity", "Devices' accuracy"]
    assert all(metric.value.endswith("%") for metric in app.metric[:3])
    assert app.metric[0].delta.endswith(" points"), "the change since the round before"
    assert len(app.dataframe[0].value) == 2, "the rounds"


def test_every_tab_shows_its_part(tmp_path, store):
    run = SampleRun(store, devices=8, rounds=5, mishaps=False).play(2)
    assert len(shown(run_page, tmp_path, run.id, tab="Devices").dataframe[0].value) == 8
    assert len(shown(run_page, tmp_path, run.id, tab="Timeline").dataframe[0].value) == 16
    assert set(shown(run_page, tmp_path, run.id, tab="Maps").dataframe[0].value["class"]) == set(run.profiles)
    assert shown(run_page, tmp_path, run.id, tab="Bandit").dataframe[0].value["pulls"].sum() == 16
    (block,) = shown(run_page, tmp_path, run.id, tab="Structure").dataframe[0].value.itertuples()
    assert (block.kind, block.units, 0 < block.kept < 500) == ("ffn", 500, True)
    assert 'name = "commands-on-jetsons"' in shown(run_page, tmp_path, run.id, tab="Job").code[0].value
    assert "Nothing to report" in shown(run_page, tmp_path, run.id, tab="Events").success[0].value
    assert "There are no logs" in shown(run_page, tmp_path, run.id, tab="Logs").info[0].value


def test_rounds_of_a_part_of_the_fleet_break_no_part_of_the_page(tmp_path, store):
    """Three of 24 devices a round: most cells of the maps are empty, and some devices never took part."""
    run = SampleRun(store, devices=24, rounds=6, mishaps=False, part=3).play(4)
    app = shown(run_page, tmp_path, run.id)
    assert "24 devices, 3 a round" in text(app)
    assert "3 of 24 took part in round 4" in text(app)
    assert set(app.dataframe[0].value["asked"]) == {3}
    assert len(shown(run_page, tmp_path, run.id, tab="Devices").dataframe[0].value) == 3
    assert "those that took part in it" in text(shown(run_page, tmp_path, run.id, tab="Devices"))
    assert len(shown(run_page, tmp_path, run.id, tab="Timeline").dataframe[0].value) == 6
    maps = shown(run_page, tmp_path, run.id, tab="Maps")
    assert len(maps.dataframe[0].value) == 12, "a line for each device and round in which it took part"
    assert "Gaps are rounds in which nobody of the row took part" in text(maps)
    for tab in ("Bandit", "Structure", "Events", "Job"):
        shown(run_page, tmp_path, run.id, tab=tab)
    classes = AppTest.from_function(run_page, args=(str(tmp_path), run.id), default_timeout=SECONDS)
    classes.session_state["tab"], classes.session_state["rows"] = "Maps", "Classes"
    assert not classes.run().exception


def test_hostile_text_of_an_older_store_breaks_no_page(tmp_path, store):
    hostile = "x [/nope] \x1b[2J\r\n# heading\n- <b>item</b> \u202e $a$ :red[no] &lt; |"
    run = SampleRun(store, devices=8, rounds=5).play(3).end("failed", "x")
    with store.engine.begin() as connection:
        for table, columns in (("runs", "name method cause notes"), ("events", "kind cause remedy")):
            for column in columns.split():
                connection.execute(sql(f"UPDATE {table} SET {column} = :text"), {"text": hostile})
        connection.execute(sql("UPDATE devices SET profile = :text"), {"text": hostile[:60]})
    for tab in ("Learning", "Timeline", "Devices", "Events", "Bandit", "Maps"):
        page = text(shown(run_page, tmp_path, run.id, tab=tab))
        assert "\x1b" not in page
        assert "\n# heading" not in page
        assert "\\[/nope\\]" in page
    assert len(shown(runs_page, tmp_path).dataframe[0].value) == 1


def test_the_bandit_of_one_device_is_its_own(tmp_path, store):
    run = SampleRun(store, devices=8, rounds=5, mishaps=False).play(4)
    app = shown(run_page, tmp_path, run.id, tab="Bandit")
    app.selectbox(key="whose").select("One device").run()
    assert not app.exception
    boxes = app.dataframe[0].value
    assert boxes["pulls"].sum() == 4
    assert (boxes["pulls"] == 0).any(), "boxes that were cut and never tried are there, too"


def test_the_agent_of_a_fleet_has_pulls_of_one_device_too(tmp_path, store):
    run = SampleRun(store, devices=8, rounds=5, mishaps=False, method="slimfed").play(4)
    app = shown(run_page, tmp_path, run.id, tab="Bandit")
    app.selectbox(key="whose").select("One device").run()
    assert not app.exception
    assert app.dataframe[0].value["pulls"].sum() == 4


def test_a_run_before_its_first_round(tmp_path, store):
    run = SampleRun(store, devices=8)
    app = shown(run_page, tmp_path, run.id)
    assert {metric.value for metric in app.metric[:3]} == {"–"}
    assert "The first round has not ended yet" in app.info[0].value


def test_last_is_an_address_too(tmp_path, store):
    run = SampleRun(store, devices=8).play(1)
    assert run.id in text(shown(run_page, tmp_path, "last"))


def test_a_stopped_run_says_how_to_go_on(tmp_path, store):
    run = SampleRun(store, devices=8).play(1).end("stopped")
    assert f"slimfed resume {run.id}" in text(shown(run_page, tmp_path, run.id))


def test_words_from_the_store_are_not_read_as_markup(tmp_path, store):
    run = SampleRun(store, name="*a* :red[b]", devices=8).play(1)
    store.add_event(run.id, Event(1, "failed", "[click](http://x) `y`", "<b>no</b>"))
    app = shown(run_page, tmp_path, run.id, tab="Events")
    assert r"\*a\* \:red\[b\]" in app.title[0].value
    assert r"\[click\]\(http" in text(app)
    assert r"\<b\>no" in text(app)


def test_the_list_begins_with_what_happens_now(tmp_path, store):
    going = SampleRun(store, name="going", devices=8, rounds=20, seed=1).play(3)
    SampleRun(store, name="broken", devices=8, seed=2).play(1).end("failed", "The quorum was missed.")
    values = {"phase": "training", "round": 4, "devices": 8, "devices_done": 5, "rows": 0, "rows_done": 0}
    began = datetime.now(UTC) - timedelta(seconds=70)
    store.write_progress(going.id, {**values, "share": 0.5, "seconds_left": 600.0, "began_at": began})
    waits = SampleRun(store, name="waits", devices=8, seed=3)
    with store.engine.begin() as connection:
        connection.execute(sql("UPDATE runs SET status = 'queued' WHERE id = :id"), {"id": waits.id})
    app = shown(runs_page, tmp_path)
    (bar,) = app.get("progress")
    assert bar.proto.value == 100 * 3.5 // 20
    assert bar.proto.text.startswith("round 4 of 20")
    assert "5 of 8 devices" in bar.proto.text
    said = text(app)
    assert "Waiting behind going, about 10 min from now" in said
    assert "The quorum was missed" in said
    assert "This computer: processors " in said
    app.button(key=f"open {going.id}").click().run()
    assert going.id in text(app)


def test_the_list_is_newest_first_and_its_numbers_sort_as_numbers(tmp_path, store):
    SampleRun(store, name="first", devices=8, seed=1).play(2).end()
    SampleRun(store, name="second", devices=8, seed=2)
    frame = shown(runs_page, tmp_path).dataframe[0].value
    assert list(frame["name"]) == ["second", "first"]
    assert list(frame["status"]) == ["○ preparing", "✓ done"]
    assert list(frame["progress"]) == ["0/20", "2/20"]
    for column in ("accuracy", "sparsity", "virtual_seconds", "wall_seconds"):
        assert frame[column].dtype.kind in "if", column


def test_an_empty_store_greets(tmp_path, store):
    app = shown(runs_page, tmp_path)
    assert "Welcome" in app.subheader[0].value
    assert app.code[0].value == "slimfed run"


def test_the_search_finds_what_readers_wrote(tmp_path, store):
    good = SampleRun(store, name="first", devices=8, seed=1).play(1).end()
    SampleRun(store, name="second", devices=8, seed=2)
    store.label(good.id, tags=["paper"], notes="Best so far")
    app = shown(runs_page, tmp_path)
    for sought, found in (("paper", ["first"]), ("best FIRST", ["first"]), ("nothing", None)):
        app.text_input(key="q").set_value(sought).run()
        assert not app.exception
        names = list(app.dataframe[0].value["name"]) if len(app.dataframe) else None
        assert names == found, sought


def test_archived_runs_are_out_of_the_way(tmp_path, store):
    old = SampleRun(store, name="old", devices=8, seed=1)
    SampleRun(store, name="new", devices=8, seed=2)
    store.label(old.id, archived=True)
    app = shown(runs_page, tmp_path)
    assert list(app.dataframe[0].value["name"]) == ["new"]
    app.toggle(key="archived").set_value(True).run()
    assert list(app.dataframe[0].value["name"]) == ["old"]
