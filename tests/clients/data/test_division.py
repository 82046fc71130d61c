import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfed.clients.data.division import held_out_rows
from slimfed.clients.data.text import load_data, load_test
from slimfed.clients.errors import InputError
from slimfed.clients.inputs import data_digests
from slimfed.clients.spec import DataSpec, PartitionSpec

ROWS = [{"text": f"text {n}", "label": "abc"[n % 3], "user": f"user {n % 7}"} for n in range(100)]
NATURAL = PartitionSpec(kind="natural")


def one_file(folder: Path, name: str = "reviews.jsonl", rows: list[dict] = ROWS, **fields: object) -> DataSpec:
    file = folder / name
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows))
    else:
        between = "," if file.suffix == ".csv" else "\t"
        file.write_text("\n".join([between.join(rows[0]), *(between.join(row.values()) for row in rows)]) + "\n")
    return DataSpec(path=str(file), **fields)


@pytest.mark.parametrize("name", ["r.csv", "r.tsv", "r.json", "r.jsonl"])
def test_one_file_of_every_kind_is_divided_alike(tmp_path: Path, name: str) -> None:
    data = load_data(one_file(tmp_path, name), "classification", seed=7)
    again = load_data(one_file(tmp_path, "same.jsonl"), "classification", seed=7)
    assert sorted([*data.train.text, *data.test.text]) == sorted(row["text"] for row in ROWS)
    assert list(data.test.text) == list(again.test.text)
    assert data.division is not None
    assert (data.division.name, data.division.train, data.division.test) == (name, 90, 10)
    assert f"10 of the 100 rows of {name} are the test split" in str(data.division)
    assert Counter(data.test.label.tolist()) in ({0: 4, 1: 3, 2: 3}, {0: 3, 1: 4, 2: 3}, {0: 3, 1: 3, 2: 4})


def test_the_seed_draws_the_test_rows(tmp_path: Path) -> None:
    spec = one_file(tmp_path, test_share=0.2)
    drawn = [set(load_data(spec, "classification", seed).test.text) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 20


def test_a_folder_with_only_a_train_file_is_divided_if_asked(tmp_path: Path) -> None:
    one_file(tmp_path, "train.jsonl")
    spec = DataSpec(path=str(tmp_path))
    with pytest.raises(InputError, match=r"has no test file.*data.test_share = 0.1"):
        load_data(spec, "classification")
    assert len(load_data(spec.model_copy(update={"test_share": 0.3}), "classification").test) == 30


def test_an_owner_is_on_one_side(tmp_path: Path) -> None:
    data = load_data(one_file(tmp_path, test_share=0.3, partition=NATURAL), "classification", seed=3)
    of = {row["text"]: row["user"] for row in ROWS}
    test = {of[text] for text in data.test.text}
    assert test
    assert not test & set(data.train.owner or ())
    assert 0.2 < len(data.test) / 100 < 0.4
    assert "whole owners" in str(data.division)


@given(
    st.lists(st.sampled_from("abcde"), min_size=2, max_size=40),
    st.floats(0.01, 0.99),
    st.integers(0, 2**31 - 1),
    st.booleans(),
)
def test_no_side_is_empty_and_no_label_is_only_tested(names: list[str], share: float, seed: int, whole: bool) -> None:
    if whole and len(set(names)) < 2:
        names = [*names, "other"]
    if not whole and len(set(names)) == len(names):
        names = [*names, names[0]]  # else there is nothing that could be spared
    given_names = {"owners": names} if whole else {"labels": names}
    test = held_out_rows(len(names), share, seed, **given_names)
    assert (np.diff(test) > 0).all()
    train = np.setdiff1d(np.arange(len(names)), test)
    assert len(train)
    sides = {names[row] for row in train}, {names[row] for row in test}
    assert len(test)
    assert not sides[0] & sides[1] if whole else sides[1] <= sides[0]


@pytest.mark.parametrize(
    ("rows", "fields", "words"),
    [
        (ROWS[:1], {}, "1 row cannot be divided"),
        (ROWS[:3], {}, "no label has a second row"),
        (ROWS[::7], {"partition": NATURAL}, "one owner, 'user 0'"),
    ],
)
def test_what_cannot_be_divided_is_refused(tmp_path: Path, rows: list[dict], fields: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_data(one_file(tmp_path, rows=rows, **fields), "classification")


def test_a_share_has_no_effect_that_is_not_said(tmp_path: Path) -> None:
    for name in ("train.jsonl", "test.jsonl"):
        one_file(tmp_path, name)
    with pytest.raises(InputError, match=r"data.test_share = 0.1: .* has test.jsonl; leave out one of the two"):
        load_data(DataSpec(path=str(tmp_path), test_share=0.1), "classification")
    with pytest.raises(InputError, match=r"data.test_share = 0.1: .*builtin:commands.* has a test split"):
        load_data(DataSpec(test_share=0.1), "classification")


def test_empty_rows_are_dropped_before_the_division(tmp_path: Path) -> None:
    rows = [*ROWS, {"text": " ", "label": "a", "user": "x"}]
    data = load_data(one_file(tmp_path, rows=rows, empty="drop"), "classification")
    assert len(data.train) + len(data.test) == 100
    assert [each.rows for each in data.dropped] == [1]


def test_a_finished_model_is_tested_on_the_rows_it_was_not_trained_on(tmp_path: Path) -> None:
    spec = one_file(tmp_path, partition=NATURAL, test_share=0.3)
    data = load_data(spec, "classification", seed=5)
    assert list(load_test(spec, "classification", data.labels, 5).text) == list(data.test.text)
    assert len(load_test(spec, "classification", data.labels)) == 100


def test_a_validation_file_is_read_if_it_is_used(tmp_path: Path) -> None:
    for name, rows in (("train", ROWS[:50]), ("test", ROWS[50:80]), ("validation", ROWS[80:])):
        one_file(tmp_path, f"{name}.jsonl", rows)
    spec = DataSpec(path=str(tmp_path))
    data = load_data(spec.model_copy(update={"validation": "use"}), "classification")
    assert data.validation is not None
    assert data.judge is data.validation
    assert (len(data.judge), len(data.test)) == (20, 30)
    assert load_data(spec, "classification").judge is not None
    assert len(load_data(spec, "classification").judge) == 30
    assert set(data_digests(spec.model_copy(update={"validation": "use"}))) - set(data_digests(spec)) == {
        "validation.jsonl"
    }
