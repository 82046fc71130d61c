"""``slimfed knee``: where the quality of a run's model falls if it is pruned at once."""

import json
from pathlib import Path

import pytest
from finished_run import finished_run
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from slimfed.platform.cli import app
from slimfed.platform.knee import fall_of

runner = CliRunner()
RUN = "20260101-000000-aaa"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLIMFED_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SLIMFED_STORE", raising=False)
    return tmp_path / "home"


def test_the_knee_lies_on_the_line_where_the_loss_passes_the_tolerance() -> None:
    points = [(0.0, 0.9), (0.1, 0.9), (0.2, 0.88), (0.3, 0.5), (0.4, 0.2)]
    fall = fall_of("fisher", points, 0.01, higher=True)
    assert fall.knee == pytest.approx(0.15)
    assert fall.bend == pytest.approx(0.2), "0.2 a tenth before, 3.8 after"
    text = fall_of("fisher", [(s, 1 - q) for s, q in points], 0.01, higher=False)
    assert (text.knee, text.bend) == (pytest.approx(fall.knee), fall.bend)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.floats(0, 0.2))
def test_the_knee_is_within_the_tolerance_and_no_later_than_the_last_point(rest: list[float], tolerance: float) -> None:
    points = [(0.1 * n, quality) for n, quality in enumerate([0.8, *rest])]
    fall = fall_of("x", points, tolerance, higher=True)
    assert 0 <= fall.knee <= points[-1][0]
    for sparsity, quality in points:
        if sparsity < fall.knee - 1e-9:
            assert quality >= 0.8 - tolerance - 1e-9


@pytest.mark.parametrize("task", ["classification", "causal-lm"])
def test_a_run_is_asked_for_its_knees(home: Path, task: str) -> None:
    changes = {} if task == "classification" else {"model": {"path": "builtin:tiny-decoder", "task": "causal-lm"}}
    fleet = finished_run(home, changes, run_id=RUN)
    before = sorted(str(file) for file in home.rglob("*"))
    options = [
        "--criterion",
        "magnitude",
        "--criterion",
        "fisher",
        "--examples",
        "40",
        "--devices",
        "2",
        "--steps",
        "2",
    ]
    result = runner.invoke(app, ["knee", RUN, *options, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["measure"] == ("accuracy" if task == "classification" else "loss")
    assert [fall["criterion"] for fall in found["falls"]] == ["magnitude", "fisher"]
    for fall in found["falls"]:
        assert fall["sparsities"][0] == pytest.approx(fleet.structure.sparsity)
        assert fall["sparsities"] == sorted(set(fall["sparsities"]))
        assert fall["sparsities"][-1] == pytest.approx(0.9, abs=0.05)
    assert len({fall["qualities"][0] for fall in found["falls"]}) == 1, "all begin with the model as it is"
    assert sorted(str(file) for file in home.rglob("*")) == before, "nothing is written"
    again = json.loads(runner.invoke(app, ["knee", RUN, *options, "--json"]).stdout)
    assert again == found
    table = runner.invoke(app, ["knee", RUN, *options])
    assert table.exit_code == 0
    assert "after which the fall steepens most" in " ".join(table.stdout.split())


def test_layers_of_unequal_sparsity_are_asked_for_by_name(home: Path) -> None:
    finished_run(home, run_id=RUN)
    few = ["--criterion", "magnitude", "--examples", "20", "--devices", "2"]
    options = [*few, *(part for name in ("equal", "erk", "cfsp", "zeroth") for part in ("--allocation", name))]
    result = runner.invoke(app, ["knee", RUN, *options, "--json"])
    assert result.exit_code == 0, result.output
    falls = {fall["allocation"]: fall for fall in json.loads(result.stdout)["falls"]}
    assert list(falls) == ["equal", "erk", "cfsp", "zeroth"]
    assert falls["equal"]["sparsities"][-1] == pytest.approx(0.9, abs=0.05)
    for name in ("erk", "cfsp", "zeroth"):
        assert falls[name]["sparsities"][:3] == pytest.approx(falls["equal"]["sparsities"][:3], abs=0.01)
        assert falls[name]["sparsities"][-1] <= 0.8, "no block loses more than pruning.allocation_cap"
        assert len(falls[name]["losses"]) == len(falls[name]["sparsities"])
        assert falls[name]["losses"] != falls["equal"]["losses"]
    table = runner.invoke(app, ["knee", RUN, *few, "--allocation", "erk", "--allocation", "equal"])
    assert table.exit_code == 0, table.output
    assert "allocation" in table.stdout


def test_an_unknown_criterion_is_refused_by_name(home: Path) -> None:
    finished_run(home, run_id=RUN)
    result = runner.invoke(app, ["knee", RUN, "--criterion", "nonsense"])
    assert result.exit_code == 2
    assert "nonsense" in result.output
    assert "fisher" in result.output
