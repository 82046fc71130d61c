"""Figures and a table for a paper."""

from pathlib import Path

import pytest
from courses import course
from matplotlib import rc_context
from typer.testing import CliRunner

from slimfed.platform.cli import app
from slimfed.platform.comparison.latex import escaped, latex_table
from slimfed.platform.comparison.paper import _STYLE, KINDS, Kind, Paper, draw, write_figures
from slimfed.platform.comparison.report import Comparison, Target, compare

OTHER = {"training": {"local_steps": 7}}


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    runs = [course([0.4, 0.6 + 0.01 * seed, 0.8 + 0.01 * seed], f"a-{seed}", seed=seed) for seed in (1, 2, 3)]
    slow = [course([0.3, 0.5, 0.7 + 0.03 * seed], f"b-{seed}", seed=seed, scale=2.0, **OTHER) for seed in (1, 2, 3)]
    return compare([*runs, *slow], target=Target(0.75, "as given"))


def figure_of(comparison: Comparison, kind: Kind):
    with rc_context(_STYLE):
        return draw(comparison, kind, "column")


def test_a_band_shows_the_spread_over_seeds(comparison: Comparison) -> None:
    (axes,) = figure_of(comparison, "accuracy").axes
    curves = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert list(curves[0].get_ydata()) == pytest.approx([40.0, 62.0, 82.0])
    assert len(axes.collections) == 2
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (pytest.approx(40.0), pytest.approx(83.0))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["local_steps=20", "local_steps=7"]


def test_bars_have_names(comparison: Comparison) -> None:
    (axes,) = figure_of(comparison, "cost").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["local_steps=20", "local_steps=7"]
    assert axes.get_xlabel() == "Virtual time to 75.0% (s)"
    assert any("(1 of 3)" in text.get_text() for text in axes.texts) or len(axes.patches) == 2
    missed = compare([course([0.1], "a"), course([0.9], "b", **OTHER)], target=Target(0.5, "as given"))
    assert " not reached" in [text.get_text() for text in figure_of(missed, "cost").axes[0].texts]


def test_the_front_is_quality_over_what_is_left(comparison: Comparison) -> None:
    (axes,) = figure_of(comparison, "pareto").axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Prunable parameters left (%)", "Accuracy (%)")
    points = [container.lines[0].get_xydata()[0] for container in axes.containers]
    assert points[0] == pytest.approx([70.0, 82.0])


@pytest.mark.parametrize("format", ["pdf", "svg", "png"])
def test_files_are_written_in_their_size_and_are_the_same_each_time(
    comparison: Comparison, format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paper = Paper(KINDS, "page", 100, format)
    assert [str(path) for path in write_figures(comparison, paper)] == [f"{kind}.{format}" for kind in KINDS]
    first = [Path(f"{kind}.{format}").read_bytes() for kind in KINDS]
    write_figures(comparison, paper)
    assert [Path(f"{kind}.{format}").read_bytes() for kind in KINDS] == first
    if format == "png":
        assert int.from_bytes(first[0][16:20], "big") == 716


def test_the_table_is_latex(comparison: Comparison) -> None:
    table = latex_table(comparison)
    assert r"\begin{tabular}{lrrrrrr}" in table
    assert r"local\_steps=20 & 3 & \textbf{82.0 $\pm$ 1.0} & 30.0 $\pm$ 0.0 &" in table
    assert r"time to 75.0\% (s)" in table
    assert "(2/3)" in table
    assert escaped(r"a_b%\{x}") == r"a\_b\%\textbackslash{}\{x\}"
    assert "no target was given" in latex_table(compare([course([0.5], "a")]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--figure", "bars"], "--figure 'bars': must be one of accuracy, cost, pareto"),
        (["--figure", "cost", "--size", "poster"], "--size 'poster': must be one of column, page"),
        (["--figure", "cost", "--format", "gif"], "--format 'gif': must be one of pdf, svg, png"),
    ],
)
def test_options_that_do_not_exist_are_named(options: list[str], words: str) -> None:
    done = CliRunner().invoke(app, ["compare", "last", *options])
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())
