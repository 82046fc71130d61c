"""What a run is judged by, as lines across its accuracy."""

import pandas as pd

from slimfed.dashboard.figures import curves
from slimfed.dashboard.figures.frames import ROUND_COLUMNS


def test_references_are_lines_with_names() -> None:
    frame = pd.DataFrame(
        [dict.fromkeys(ROUND_COLUMNS, 0.5) | {"round": n, "examples": 9, "test_examples": 9} for n in (0, 1)]
    )
    figure = curves.accuracy(frame, "round", references={"The untuned model": 0.25, "The most frequent class": 0.1})
    assert [shape.y0 for shape in figure.layout.shapes] == [25.0, 10.0]
    assert [each.text for each in figure.layout.annotations] == [
        "The untuned model 25.0%",
        "The most frequent class 10.0%",
    ]
    assert not curves.accuracy(frame, "round").layout.shapes
