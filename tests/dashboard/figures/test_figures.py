import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfed.dashboard.figures import bars, curves, frames, heat_maps, style
from slimfed.platform.format import time_unit

CLASSES = ("tx2", "nx", "agx")


@pytest.fixture
def rounds():
    number = np.arange(0, 6)
    return pd.DataFrame(
        {
            "round": number,
            "virtual_clock": 100.0 * number,
            "wall_seconds": 4.0,
            "train_loss": [np.nan, 5, 4, 3, 2, 1],
            "loss": [6, 5, 4, 3, 2, 1],
            "accuracy": number / 10,
            "examples": 9.0,
            "test_examples": 9.0,
            "device_accuracy_mean": [np.nan, 0.1, 0.2, 0.3, 0.4, 0.5],
            "sparsity": 0.1,
            "global_sparsity": 0.1,
        }
    )


def grid(values, classes=CLASSES):
    values = np.asarray(values, dtype=float)
    index = pd.MultiIndex.from_tuples(
        [(classes[row * len(classes) // len(values)], row) for row in range(len(values))], names=["class", "device"]
    )
    return pd.DataFrame(values, index=index, columns=range(1, values.shape[1] + 1))


def titles(figure):
    return figure.layout.xaxis.title.text, figure.layout.yaxis.title.text


def test_accuracy_is_in_percent_of_what_is_counted(rounds):
    figure = curves.accuracy(rounds, "round", "next tokens")
    assert titles(figure) == ("Round", "Accuracy (% of next tokens)")
    assert list(figure.data[0].y) == pytest.approx([0, 10, 20, 30, 40, 50])
    assert [line.name for line in figure.data] == ["Global model", "Devices' own, mean"]


def test_estimates_from_a_sample_are_hollow_and_say_so(rounds):
    rounds["examples"], rounds["test_examples"] = [500] * 5 + [1821], 1821
    for figure in (curves.accuracy(rounds, "round"), curves.loss(rounds, "round")):
        of_global, of_devices = figure.data
        assert list(of_global.marker.symbol) == ["circle-open"] * 5 + ["circle"]
        assert list(of_global.customdata)[-2:] == ["4 on 500 of 1,821 test texts", "5"]
        assert set(of_devices.marker.symbol) == {"circle"}


def test_unknown_points_are_left_out_not_drawn_as_zero(rounds):
    assert list(curves.accuracy(rounds, "round").data[1].x) == [1, 2, 3, 4, 5]
    assert list(curves.loss(rounds, "round").data[1].x) == [1, 2, 3, 4, 5]


def test_lines_differ_in_more_than_colour(rounds):
    for figure in (curves.accuracy(rounds, "round"), curves.loss(rounds, "round")):
        assert len({line.line.dash for line in figure.data}) == 2
        assert len({line.line.color for line in figure.data}) == 2


def test_virtual_time_has_a_unit_that_fits(rounds):
    figure = curves.loss(rounds, "time")
    assert titles(figure) == ("Virtual time (min)", "Loss (nats)")
    assert list(figure.data[0].x) == pytest.approx([0, 100 / 60, 200 / 60, 300 / 60, 400 / 60, 500 / 60])
    assert list(figure.data[0].customdata) == ["0", "1", "2", "3", "4", "5"]


@given(st.floats(min_value=0, max_value=1e8))
def test_the_unit_of_time_keeps_figures_readable(longest):
    unit = time_unit(longest)
    assert longest / unit.seconds >= 2 or unit.name == "s"
    assert longest / unit.seconds < 120 or unit.name == "days"


def test_sparsity_map_is_in_percent_and_reaches_the_target():
    figure = heat_maps.sparsity_map(grid([[0.1, 0.2], [0.1, np.nan], [0.0, 0.3]]), target=0.5)
    heat = figure.data[0]
    assert titles(figure) == ("Round", "Devices, by class")
    assert "%" in heat.colorbar.title.text
    assert (heat.zmin, heat.zmax) == (0, 50)
    assert heat.z[2][1] == pytest.approx(30)
    assert np.isnan(heat.z[1][1])


def test_rows_are_named_by_class_in_the_middle_of_each():
    figure = heat_maps.sparsity_map(grid(np.zeros((6, 2))), target=0.5)
    assert list(figure.layout.yaxis.ticktext) == list(CLASSES)
    assert list(figure.layout.yaxis.tickvals) == [0.5, 2.5, 4.5]
    assert len(figure.layout.shapes) == len(CLASSES) - 1
    assert list(figure.data[0].y[:2]) == ["device 0", "device 1"]


def test_long_class_names_are_folded_at_hyphens_only():
    figure = heat_maps.rank_map(grid(np.full((3, 1), 4), classes=("jetson-agx-xavier", "tx2", "nx")))
    assert figure.layout.yaxis.ticktext[0] == "jetson-agx-<br>xavier"


def test_rank_map_gives_every_rank_one_step_of_colour():
    figure = heat_maps.rank_map(grid([[2, 16], [4, np.nan], [2, 4]]))
    heat = figure.data[0]
    assert list(heat.colorbar.ticktext) == ["2", "4", "16"]
    assert heat.z[0][1] == 2
    assert np.isnan(heat.z[1][1])
    assert len({color for _, color in heat.colorscale}) == 3
    assert "rank" in heat.colorbar.title.text


@pytest.mark.parametrize("draw", [heat_maps.rank_map, lambda frame: heat_maps.sparsity_map(frame, 0.5)])
def test_maps_of_nothing_and_of_one_cell(draw):
    draw(pd.DataFrame(index=pd.MultiIndex.from_tuples([], names=["class", "device"])))
    assert len(draw(grid([[4.0]])).data) == 1


def test_slowest_has_one_bar_a_round_in_the_colour_of_its_class():
    frame = pd.DataFrame(
        {
            "round": [1, 2, 3],
            "device": [4, 9, 4],
            "class": ["tx2", "nx", "tx2"],
            "seconds": [200.0, 180.0, 160.0],
            "download": 1.0,
            "compute": 150.0,
            "upload": 9.0,
        }
    )
    figure = bars.slowest(frame, ["tx2", "nx"])
    assert titles(figure) == ("Round", "Completion time (min)")
    assert [list(bars.x) for bars in figure.data] == [[1, 3], [2]]
    assert figure.data[0].y[0] == pytest.approx(200 / 60)
    assert {bars.width for bars in figure.data} == {0.75}
    assert list(figure.data[0].text) == [4, 4]
    assert "2 min 30 s" in figure.data[0].customdata[0]


@given(st.integers(1, 24))
def test_classes_can_be_told_apart(count):
    styles = style.class_style([f"class {i}" for i in range(count)])
    assert len(set(styles.values())) == count


def test_an_empty_run_draws_empty_figures():
    empty = frames.rounds_frame([], [])
    for axis in ("round", "time"):
        assert len(curves.accuracy(empty, axis).data) == 2
    assert len(bars.slowest(frames.slowest_frame([]), []).data) == 0
