"""The pages without a browser: what they write, given what the store holds."""

import pytest
from sample import SampleRun, new_store
from streamlit.testing.v1 import AppTest

from slimfed.strategies.protocols import Event

SECONDS = 60


def run_page(home, run):
    from pathlib import Path

    from slimfed.dashboard import run as page
    from slimfed.dashboard.source import Source

    page.show(Source("sqlite", Path(home)), run)


def runs_page(home):
    from pathlib import Path

    import streamlit as st

    from slimfed.dashboard import runs as page
    from slimfed.dashboard.source import Source

    page.show(Source("sqlite", Path(home)), lambda chosen: st.write(chosen))


def shown(page, *arguments):
    app = AppTest.from_function(page, args=tuple(map(str, arguments)), default_timeout=SECONDS).run()
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
    assert [metric.label for metric in app.metric][:3] == ["Accuracy", "Devices' accuracy", "Sparsity"]
    assert all(metric.value.endswith("%") for metric in app.metric[:3])
    assert len(app.dataframe[0].value) == 8
    assert 'name = "commands-on-jetsons"' in app.code[0].value
    assert "Nothing to report" in text(app)


def test_a_run_before_its_first_round(tmp_path, store):
    run = SampleRun(store, devices=8)
    app = shown(run_page, tmp_path, run.id)
    assert {metric.value for metric in app.metric[:3]} == {"–"}
    assert [heading.value for heading in app.subheader] == ["Events", "Job"]


def test_last_is_an_address_too(tmp_path, store):
    run = SampleRun(store, devices=8).play(1)
    assert run.id in text(shown(run_page, tmp_path, "last"))


def test_a_stopped_run_says_how_to_go_on(tmp_path, store):
    run = SampleRun(store, devices=8).play(1).end("stopped")
    assert f"slimfed resume {run.id}" in text(shown(run_page, tmp_path, run.id))


def test_words_from_the_store_are_not_read_as_markup(tmp_path, store):
    run = SampleRun(store, name="*a* :red[b]", devices=8).play(1)
    store.add_event(run.id, Event(1, "failed", "[click](http://x) `y`", "<b>no</b>"))
    app = shown(run_page, tmp_path, run.id)
    assert r"\*a\* \:red\[b\]" in app.title[0].value
    assert r"\[click\]\(http" in text(app)
    assert r"\<b\>no" in text(app)


def test_the_list_is_newest_first_and_its_numbers_sort_as_numbers(tmp_path, store):
    SampleRun(store, name="first", devices=8, seed=1).play(2).end()
    SampleRun(store, name="second", devices=8, seed=2)
    frame = shown(runs_page, tmp_path).dataframe[0].value
    assert list(frame["name"]) == ["second", "first"]
    assert list(frame["status"]) == ["▶ running", "✓ done"]
    for column in ("rounds_done", "rounds", "accuracy", "sparsity", "virtual_seconds", "wall_seconds"):
        assert frame[column].dtype.kind in "if", column


def test_an_empty_store_greets(tmp_path, store):
    app = shown(runs_page, tmp_path)
    assert "Welcome" in app.subheader[0].value
    assert app.code[0].value == "slimfed run"
