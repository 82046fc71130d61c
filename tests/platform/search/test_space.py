"""What a search chooses from: values and ranges as they are written, and what is refused before any run."""

import math
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfed.clients.errors import InputError
from slimfed.platform.job.job import load_job
from slimfed.platform.search.space import Range, Values, read_space

demo = partial(load_job, None)


def test_values_ranges_and_settings_of_all_runs() -> None:
    space = read_space(
        demo,
        ["training.learning_rate=log:1e-4..1e-2", "training.local_steps=2..9", "bandit.ranks=[2,4],[8]", "seed=5"],
        20,
    )
    assert space.axes == (
        Range("training.learning_rate", 1e-4, 1e-2, whole=False, log=True),
        Range("training.local_steps", 2, 9, whole=True, log=False),
        Values("bandit.ranks", ("[2,4]", "[8]")),
    )
    variant = space.variant({"training.learning_rate": 0.00123456, "training.local_steps": 7, "bandit.ranks": "[2,4]"})
    assert variant.job.training.learning_rate == 0.001235
    assert variant.job.training.local_steps == 7
    assert list(variant.job.bandit.ranks) == [2, 4]
    assert variant.job.seed == 5
    assert variant.label == "learning_rate=0.001235, local_steps=7, ranks=[2,4]"
    assert variant.job.name == f"{space.sweep}: {variant.label}"


def test_the_job_itself_is_a_choice_where_the_space_holds_it() -> None:
    arguments = ["training.learning_rate=1e-3..1e-2", "training.batch_size=4,8,16"]
    space = read_space(demo, arguments, 20)
    base = space.base.training
    assert space.own_choice() == {"training.learning_rate": base.learning_rate, "training.batch_size": "8"}
    far = read_space(demo, ["training.learning_rate=1e-6..1e-5", "training.batch_size=4,16"], 20)
    assert far.own_choice() == {}


@given(st.floats(1e-6, 1.0), st.floats(1.5, 1e5), st.floats(0, 1))
def test_a_number_is_written_within_four_digits_of_it(low: float, factor: float, share: float) -> None:
    axis = Range("training.learning_rate", low, low * factor, whole=False, log=True)
    value = low * factor**share
    assert math.isclose(float(axis.written(value)), value, rel_tol=5.1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to choose"),
        (["training.rounds=3"], "nothing to choose"),
        (["training.learning_rate=1e-2..1e-4"], "must be a range low..high of numbers, with low < high"),
        (["training.learning_rate=log:0..1"], "low > 0 after log:"),
        (["training.learning_rate=0..inf"], "must be a range low..high of numbers"),
        (["training.batch_size=4,8"], "there are 2 combinations; without --search the sweep runs them all"),
        (["seed=1..9"], "a search would choose the luckiest seed"),
        (["training.batch_size=2..9", "training.batch_size=4"], "--set training.batch_size: is given twice"),
        (["method.target_sparsity=0.2..3.5"], "method.target_sparsity=3.5: method.target_sparsity = 3.5: must be"),
        (["training.batchsize=2..9"], "training.batchsize=2: training.batchsize = 2: unknown field"),
        (["training.batch_size"], "must read field=value"),
    ],
)
def test_what_cannot_be_searched(arguments: list[str], words: str) -> None:
    with pytest.raises(InputError) as error:
        read_space(demo, arguments, 20)
    assert words in str(error.value)


def test_an_end_that_the_job_cannot_have_is_told_before_any_run(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text('name = "tiny"\n[training]\nrounds = 2\n')
    with pytest.raises(InputError) as error:
        read_space(partial(load_job, tmp_path / "job.toml"), ["training.batch_size=-1..8", "fleet.dropout=0.0,1.5"], 20)
    lines = str(error.value).splitlines()
    assert any(line.startswith("training.batch_size=-1: ") for line in lines)
    assert any(line.startswith("fleet.dropout=1.5: ") for line in lines)
