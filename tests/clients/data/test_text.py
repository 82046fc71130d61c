import csv
import json
import os
import time
from pathlib import Path

import datasets
import pytest

from slimfed.clients.data.text import load_data
from slimfed.clients.errors import InputError
from slimfed.clients.spec import DataSpec, PartitionSpec

SHARED = Path(__file__).parents[3].parent / "shared" / "data"
ROWS = [
    {"text": 'he said "no" twice', "label": "bad", "user": "ann"},
    {"text": "null", "label": "good", "user": "bob"},
    {"text": "a, b and c", "label": "bad", "user": "ann"},
]


def write(folder: Path, ending: str, train: list[dict], test: list[dict]) -> DataSpec:
    folder.mkdir(exist_ok=True)
    for name, rows in (("train", train), ("test", test)):
        file = folder / f"{name}{ending}"
        if ending == ".jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif ending == ".json":
            file.write_text(json.dumps(rows))
        elif ending == ".csv":
            datasets.Dataset.from_list(rows).to_csv(file, index=False)
        elif ending == ".tsv":
            lines = ["\t".join(rows[0]), *("\t".join(str(v) for v in row.values()) for row in rows)]
            file.write_text("\n".join(lines) + "\n")
        else:
            datasets.Dataset.from_list(rows).to_parquet(file)
    return DataSpec(path=str(folder))


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    spec = write(tmp_path / "d", ending, ROWS, ROWS[:2])
    before = sorted(os.listdir(tmp_path / "d"))
    data = load_data(spec.model_copy(update={"partition": PartitionSpec(kind="natural")}), "classification")
    assert list(data.train.text) == [row["text"] for row in ROWS]
    assert data.labels == ("bad", "good")
    assert data.train.label.tolist() == [0, 1, 0]
    assert list(data.train.owner) == ["ann", "bob", "ann"]
    assert data.test.label.tolist() == [0, 1]
    assert sorted(os.listdir(tmp_path / "d")) == before


def test_integer_labels_keep_their_order(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": n} for n in (10, 2, 1, 2)]
    data = load_data(write(tmp_path / "d", ".jsonl", rows, rows), "classification")
    assert data.labels == ("1", "2", "10")
    assert data.train.label.tolist() == [2, 1, 0, 1]


def test_prompt_and_completion(tmp_path: Path) -> None:
    rows = [{"q": "who", "a": "me"}, {"q": "why", "a": "so"}]
    spec = write(tmp_path / "d", ".jsonl", rows, rows).model_copy(update={"prompt": "q", "completion": "a"})
    data = load_data(spec, "causal-lm")
    assert (list(data.train.prompt), list(data.train.text), data.labels) == (["who", "why"], ["me", "so"], None)


def test_a_validation_file_is_left_alone(tmp_path: Path) -> None:
    spec = write(tmp_path / "d", ".jsonl", ROWS, ROWS)
    (tmp_path / "d" / "validation.jsonl").write_text('{"text": "x", "label": "other"}\n')
    assert len(load_data(spec, "classification").train) == len(ROWS)


def without(row: dict, name: str) -> dict:
    return {key: value for key, value in row.items() if key != name}


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        ([without(row, "text") for row in ROWS], ROWS, ['data.text = "text"', "train.jsonl", "label, user"]),
        (ROWS, [without(row, "label") for row in ROWS], ['data.label = "label"', "test.jsonl", "text, user"]),
        (
            ROWS,
            [{**ROWS[0], "label": "ugly"}],
            ["'ugly'", "line 1 of test.jsonl", "which the training split does not have"],
        ),
        (
            [{**ROWS[0], "text": None}, ROWS[1]],
            ROWS,
            ["1 of 2 rows of train.jsonl", "line 1 (data.text", 'data.empty = "drop"'],
        ),
        ([ROWS[0], {**ROWS[1], "text": "  "}], ROWS, ["1 of 2 rows of train.jsonl", "empty", "line 2"]),
        ([{**row, "text": 5} for row in ROWS], ROWS, ["line 1 of train.jsonl", "int 5", "must be text"]),
        ([ROWS[0], {**ROWS[1], "text": ["a"]}], ROWS, ["train.jsonl", "list ['a']"]),
        ([ROWS[0], {**ROWS[1], "text": 7}], ROWS, ["line 2 of train.jsonl", "int 7"]),
        ([{**row, "label": 0.5} for row in ROWS], ROWS, ['data.label = "label"', "0.5", "an integer"]),
        ([{**ROWS[0], "label": None}, ROWS[1]], ROWS, ['data.label = "label"', "line 1", "empty"]),
        ([], ROWS, ["train.jsonl is empty"]),
    ],
)
def test_rows_that_cannot_be_used(tmp_path: Path, train: list[dict], test: list[dict], words: list[str]) -> None:
    spec = write(tmp_path / "d", ".jsonl", train, test)
    with pytest.raises(InputError) as error:
        load_data(spec, "classification")
    text = str(error.value)
    assert "\n" not in text
    assert [word for word in words if word not in text] == []


def test_the_test_split_needs_no_owners(tmp_path: Path) -> None:
    spec = write(tmp_path / "d", ".jsonl", ROWS, [without(row, "user") for row in ROWS])
    spec = spec.model_copy(update={"partition": PartitionSpec(kind="natural")})
    data = load_data(spec, "classification")
    assert (list(data.train.owner), data.test.owner) == (["ann", "bob", "ann"], None)


def test_an_owner_column_that_is_missing_is_named(tmp_path: Path) -> None:
    spec = write(tmp_path / "d", ".jsonl", ROWS, ROWS)
    spec = spec.model_copy(update={"partition": PartitionSpec(kind="natural", column="author")})
    with pytest.raises(InputError, match=r'data.partition.column = "author".*only text, label, user'):
        load_data(spec, "classification")


def test_a_broken_line(tmp_path: Path) -> None:
    spec = write(tmp_path / "d", ".jsonl", ROWS, ROWS)
    (tmp_path / "d" / "train.jsonl").write_text('{"text": "a", "label": 1}\n{"text": "b", \n')
    with pytest.raises(InputError, match=r"train\.jsonl: line 2 cannot be read: .*write an object a line"):
        load_data(spec, "classification")


def test_folders_that_hold_no_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load_data(DataSpec(path=str(tmp_path / "none")), "classification")
    with pytest.raises(InputError, match=r"has no train file; valid are train\.jsonl, "):
        load_data(DataSpec(path=str(tmp_path)), "classification")
    write(tmp_path, ".jsonl", ROWS, ROWS)
    write(tmp_path, ".csv", ROWS, ROWS)
    with pytest.raises(InputError, match=r"train\.jsonl and train\.csv"):
        load_data(DataSpec(path=str(tmp_path)), "classification")
    with pytest.raises(InputError, match="valid are builtin:commands"):
        load_data(DataSpec(path="builtin:nothing"), "classification")


def test_the_builtin_set_serves_both_tasks() -> None:
    spec = DataSpec(partition=PartitionSpec(kind="natural"))
    started = time.monotonic()
    labelled = load_data(spec, "classification")
    assert time.monotonic() - started < 10
    spoken = load_data(spec, "causal-lm")
    assert len(labelled.labels) == 16
    assert len(set(labelled.train.owner)) == 80
    assert list(spoken.train.prompt) == list(labelled.train.text)
    assert spoken.train.text[0].endswith(".")
    assert load_data(DataSpec(text="label"), "causal-lm").train.prompt is None


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not on this machine")
@pytest.mark.parametrize("name", ["sst2", "trec"])
@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_real_text_is_the_same_in_cells(tmp_path: Path, name: str, ending: str) -> None:
    plain = load_data(DataSpec(path=str(SHARED / name)), "classification")
    for split in ("train", "test"):
        rows = [json.loads(line) for line in (SHARED / name / f"{split}.jsonl").read_text().split("\n") if line]
        table = [("text", "label"), *((row["text"], row["label"]) for row in rows)]
        with (tmp_path / f"{split}{ending}").open("w", newline="") as file:
            if ending == ".csv":
                csv.writer(file).writerows(table)
            else:
                file.writelines(f"{text}\t{label}\n" for text, label in table)
    cells = load_data(DataSpec(path=str(tmp_path)), "classification")
    assert list(cells.train.text) == list(plain.train.text)
    assert list(cells.test.text) == list(plain.test.text)
    assert cells.labels == plain.labels
    assert cells.train.label is not None
    assert plain.train.label is not None
    assert cells.train.label.tolist() == plain.train.label.tolist()


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not on this machine")
@pytest.mark.parametrize(
    ("name", "columns", "task", "rows"),
    [
        ("sst2", {}, "classification", (6920, 1821)),
        ("trec", {}, "classification", (5452, 500)),
        ("e2e", {"prompt": "prompt", "completion": "completion"}, "causal-lm", (4672, 4693)),
        ("shakespeare", {"partition": PartitionSpec(kind="natural")}, "causal-lm", (5631, 568)),
    ],
)
def test_real_text(name: str, columns: dict, task: str, rows: tuple[int, int]) -> None:
    data = load_data(DataSpec(path=str(SHARED / name), **columns), task)
    assert (len(data.train), len(data.test)) == rows
