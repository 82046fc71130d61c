"""Numbers in tables are written as everywhere else, and sort and are saved as numbers."""

import numpy as np
import pandas as pd
import pytest

from slimfed.dashboard import columns
from slimfed.platform.format import percent
from slimfed.platform.glossary import FIGURES, PARTS, STATES, meaning
from slimfed.platform.under_way import STATES as SHOWN


def test_cells_are_written_by_the_one_formatter() -> None:
    frame = pd.DataFrame(
        {
            "accuracy": [0.345, np.nan],
            "virtual_seconds": [940.2, 3.0],
            "megabytes": [3.4, 1200.0],
            "joules": [3400.0, 12.0],
            "train_loss": [0.5, 1.0],
            "status": ["done", "late"],
        }
    )
    shown = columns.written(frame).to_string(delimiter="|")
    first, second = (line.split("|")[1:] for line in shown.splitlines()[1:3])
    assert first == ["34.5%", "15 min 40 s", "3.4 MB", "3.4 kJ", "0.500", "done"]
    assert second == ["", "3.0 s", "1.2 GB", "12 J", "1.000", "late"]
    assert columns.written(frame).data is frame


def test_a_table_may_write_a_column_in_another_way_and_leaves_text_alone() -> None:
    frame = pd.DataFrame({"virtual_seconds": [0.5], "rank": ["2, 4"]})
    shown = columns.written(frame, {"virtual_seconds": percent}).to_string(delimiter="|")
    assert shown.splitlines()[1].split("|")[1:] == ["50.0%", "2, 4"]


def test_every_state_and_every_column_with_help_is_in_the_glossary() -> None:
    assert set(STATES) == set(SHOWN)
    assert not set(FIGURES) & set(PARTS)
    with pytest.raises(KeyError):
        meaning("nonsense")
    with pytest.raises(KeyError):
        columns.number("nonsense")
