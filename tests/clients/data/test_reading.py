"""What is read is what stands in the file: no type is guessed, no cell shifted, no text split, no old row kept."""

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slimfed.clients.data.text import TextData, load_data, load_test
from slimfed.clients.errors import InputError
from slimfed.clients.spec import DataSpec, PartitionSpec

TEXTS = [
    "form\x0cfeed",
    "next\x85line",
    "line\u2028separator",
    "unit\x1cseparator",
    "emoji \U0001f600",
    "combined e\u0301",
]
GUESSED = ["42", "True", "2024-01-31", "1e5", "n/a", "NaN", "null", "007", "12:30", "-0", "1_000", "0x1F", "None"]


def folder(path: Path, name: str, train: str | bytes, test: str | bytes | None = None) -> DataSpec:
    """A folder with two files of one kind; the test file is the training file unless another is given."""
    path.mkdir(exist_ok=True)
    for split, content in (("train", train), ("test", train if test is None else test)):
        (path / f"{split}{name}").write_bytes(content if isinstance(content, bytes) else content.encode())
    return DataSpec(path=str(path))


def labelled(spec: DataSpec) -> TextData:
    return load_data(spec, "classification")


def names(data: TextData) -> list[str]:
    """Every training row's label by name."""
    assert data.labels is not None
    assert data.train.label is not None
    return [data.labels[position] for position in data.train.label]


def cause(spec: DataSpec, task: str = "classification") -> str:
    with pytest.raises(InputError) as error:
        load_data(spec, task)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".json"])
def test_a_changed_file_gives_its_new_rows(tmp_path: Path, ending: str) -> None:
    """As many bytes, and the same times: a cache by these would give the old rows."""

    def content(word: str) -> str:
        rows = [{"text": word, "label": "a"}, {"text": "two", "label": "b"}]
        if ending == ".json":
            return json.dumps(rows)
        if ending == ".jsonl":
            return "".join(json.dumps(row) + "\n" for row in rows)
        mark = "," if ending == ".csv" else "\t"
        return "".join(mark.join(cells) + "\n" for cells in (("text", "label"), (word, "a"), ("two", "b")))

    spec = folder(tmp_path / "d", ending, content("old"))
    for file in (tmp_path / "d").iterdir():
        os.utime(file, ns=(10**18, 10**18))
    assert labelled(spec).train.text[0] == "old"
    folder(tmp_path / "d", ending, content("new"))
    for file in (tmp_path / "d").iterdir():
        os.utime(file, ns=(10**18, 10**18))
    assert labelled(spec).train.text[0] == "new"


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize("alone", [False, True], ids=["among texts", "alone"])
def test_no_type_is_guessed(tmp_path: Path, ending: str, alone: bool) -> None:
    mark = "," if ending == ".csv" else "\t"
    for index, value in enumerate(GUESSED):
        rows = [(value, value), (value if alone else "a text", value if alone else "a label"), ("x", "other")][
            : 3 - alone
        ]
        rows.append((value, "other"))
        lines = [json.dumps({"text": t, "label": lab}) for t, lab in rows]
        if ending != ".jsonl":
            lines = [f"text{mark}label", *(f"{t}{mark}{lab}" for t, lab in rows)]
        spec = folder(tmp_path / str(index), ending, "\n".join(lines) + "\n")
        data = labelled(spec)
        assert list(data.train.text) == [text for text, _ in rows]
        assert names(data) == [label for _, label in rows]
        answers = spec.model_copy(update={"prompt": "text", "completion": "label"})
        assert list(load_data(answers, "causal-lm").train.text) == [label for _, label in rows]


def test_a_label_that_is_a_number_for_long_stays_what_it_is(tmp_path: Path) -> None:
    """Readers that look at the first 10,000 rows take the column for numbers."""
    rows = [f"text {n},{n % 3}" for n in range(12_000)] + ["one more,007", "and another,n/a"]
    data = labelled(folder(tmp_path / "d", ".csv", "\n".join(["text,label", *rows]) + "\n", "text,label\na,1\n"))
    assert data.labels == ("0", "007", "1", "2", "n/a")
    assert names(data)[-2:] == ["007", "n/a"]


def test_whole_numbers_are_in_order_of_value_in_every_format(tmp_path: Path) -> None:
    values = [10, 2, -1, 2]
    lines = [json.dumps({"text": f"t{n}", "label": n}) for n in values]
    assert labelled(folder(tmp_path / "j", ".jsonl", "\n".join(lines))).labels == ("-1", "2", "10")
    cells = "\n".join(["text,label", *(f"t{n},{n}" for n in values)])
    assert labelled(folder(tmp_path / "c", ".csv", cells)).labels == ("-1", "2", "10")
    both = '{"text": "a", "label": 1}\n{"text": "b", "label": "1"}\n{"text": "c", "label": true}\n'
    data = labelled(folder(tmp_path / "b", ".jsonl", both))
    assert names(data) == ["1", "1", "true"]


def test_owners_are_texts_too(tmp_path: Path) -> None:
    spec = folder(tmp_path / "d", ".csv", "text,label,user\na,x,007\nb,y,7\n")
    data = labelled(spec.model_copy(update={"partition": PartitionSpec(kind="natural")}))
    assert list(data.train.owner or ()) == ["007", "7"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text,label\na,x\nb,y,z\n", "train.csv: line 3 has 3 cells, the header has 2; quote cells that contain"),
        ("text,label\na,x,\nb,y,\n", "train.csv: line 2 has 3 cells, the header has 2"),
        ("text,label,\na,x\n", "train.csv: line 2 has 2 cells, the header has 3; fill the row up"),
        ("text,label\n\na,x\nb\n", "train.csv: line 4 has 1 cells"),
        ('text,label\n"a\nb",x\nc\n', "train.csv: line 4 has 1 cells"),
        ('text,label\na,x\n"b,y\nc,z\n', "train.csv: line 3 opens a quote that is never closed"),
        ('text,label\na,x\n"b"c,y\n', "train.csv: line 3 has text after a closing quote"),
        ("text,label,text\na,x,b\n", "train.csv: the header has column 'text' 2 times"),
        ("text,label\na\rb,x\n", "train.csv: line 2 has a carriage return without a line feed"),
        ("text,label\ra,x\rb,y\r", "train.csv: line 1 has a carriage return without a line feed"),
        ("text;label\na;x\n", "train.csv: its cells are separated by ';', not by ','; set data.delimiter = \";\""),
        ("text\tlabel\na\tx\n", 'set data.delimiter = "\\t"'),
        ("text,label\n", "train.csv has no rows"),
        (b"text,label\na,x\ncaf\xe9,y\n", "train.csv: line 3, byte 4 is 0xe9, which is not UTF-8"),
        ("text,label\na,x\n".encode("utf-16"), "train.csv: is UTF-16 text; save it as UTF-8"),
        (gzip.compress(b"text,label\na,x\n", mtime=0), "train.csv: is compressed with gzip"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_line(tmp_path: Path, content: str | bytes, words: str) -> None:
    assert words in cause(folder(tmp_path / "d", ".csv", content))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"text": "a", "label": "x"}\n[1]\n', "train.jsonl: line 2 is no JSON object"),
        ('{"text": "a", "label": "x"}\n{"text": "b" "label": 1}\n', "line 2 cannot be read: Expecting ',' delimiter"),
        ('{"text": "a", "label": "x", "text": "b"}\n', "line 1 cannot be read: field 'text' comes twice"),
        ('[{"text": "a", "label": "x"}, 3]', "train.jsonl: row 2 is no JSON object"),
        ('{"text": "\\ud800", "label": "x"}\n', "line 1 of train.jsonl"),
        ("\n\n", "train.jsonl"),
        (b'{"text": "caf\xe9", "label": "x"}\n', "line 1, byte 14 is 0xe9"),
        (b'[{"text": "a", "label": "x"},\n{"text": "caf\xe9", "label": "x"}]', "line 2, byte 14 is 0xe9"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_json_that_is_no_rows_is_refused_by_line(tmp_path: Path, content: str | bytes, words: str) -> None:
    assert words in cause(folder(tmp_path / "d", ".jsonl", content))


def test_a_tsv_file_with_other_marks_says_what_to_do(tmp_path: Path) -> None:
    spec = folder(tmp_path / "d", ".tsv", "text,label\na,x\n")
    assert 'end its name with .csv and set data.delimiter = ","' in cause(spec)


def test_the_delimiter_can_be_set(tmp_path: Path) -> None:
    spec = folder(tmp_path / "d", ".csv", 'text;label\n"a; b";x\nc, d;y\n').model_copy(update={"delimiter": ";"})
    assert list(labelled(spec).train.text) == ["a; b", "c, d"]
    for wrong in ("", ";;", '"', "\n"):
        with pytest.raises(ValueError, match="must be one character"):
            DataSpec(delimiter=wrong)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte-order mark"])
def test_a_text_is_never_split(tmp_path: Path, ending: str, line_end: str, mark: str) -> None:
    between = "," if ending == ".csv" else "\t"
    lines = [f"text{between}label", *(f"{text}{between}x" for text in TEXTS), f"z{between}y"]
    if ending == ".jsonl":
        lines = [json.dumps({"text": t, "label": "x"}, ensure_ascii=False) for t in TEXTS] + [
            '{"text":"z","label":"y"}'
        ]
    data = labelled(folder(tmp_path / "d", ending, mark + line_end.join(lines) + line_end))
    assert list(data.train.text) == [*TEXTS, "z"]
    assert data.labels == ("x", "y")


def test_a_quoted_cell_keeps_its_lines(tmp_path: Path) -> None:
    data = labelled(folder(tmp_path / "d", ".csv", 'text,label\n"one\r\ntwo\rthree\nfour ""five""",x\nz,y\n'))
    assert data.train.text[0] == 'one\r\ntwo\rthree\nfour "five"'


def test_a_very_long_text_is_one_text(tmp_path: Path) -> None:
    long = "word " * 400_000
    data = labelled(folder(tmp_path / "d", ".csv", f"text,label\n{long},x\nz,y\n"))
    assert data.train.text[0] == long


EMPTY = [".csv", 'text,label\na,x\n,x\nb,y\n"  ",x\nc,\n']


def test_empty_rows_are_refused_with_their_number_and_the_first_lines(tmp_path: Path) -> None:
    said = cause(folder(tmp_path / "d", *EMPTY))
    assert '3 of 5 rows of train.csv are empty: line 3 (data.text = "text"), line 5 (data.text' in said
    assert 'line 6 (data.label = "label"); fill them in, or drop them with data.empty = "drop"' in said
    many = "text,label\n" + "a,x\n,x\n" * 50
    assert "50 of 100 rows of train.csv are empty: line 3 (" in cause(folder(tmp_path / "e", ".csv", many))
    assert "), ...; fill" in cause(folder(tmp_path / "e", ".csv", many))


def test_empty_rows_are_dropped_on_request_and_the_rest_keep_their_places(tmp_path: Path) -> None:
    spec = folder(tmp_path / "d", *EMPTY).model_copy(update={"empty": "drop"})
    data = labelled(spec)
    assert list(data.train.text) == ["a", "b"]
    assert names(data) == ["x", "y"]
    assert [(each.name, each.rows, each.of) for each in data.dropped] == [("train.csv", 3, 5), ("test.csv", 3, 5)]
    assert 'line 3 (data.text = "text")' in str(data.dropped[0])
    with pytest.raises(InputError, match=r"line 4 of test\.csv .* has label 'y', which the model does not have"):
        load_test(spec, "classification", ("x",))


def test_an_owner_that_is_empty_is_an_empty_row(tmp_path: Path) -> None:
    spec = folder(tmp_path / "d", ".csv", "text,label,user\na,x,\nb,y,ann\n", "text,label\nb,y\n")
    spec = spec.model_copy(update={"partition": PartitionSpec(kind="natural")})
    assert 'line 2 (data.partition.column = "user")' in cause(spec)
    assert list(labelled(spec.model_copy(update={"empty": "drop"})).train.owner or ()) == ["ann"]


def test_a_file_of_empty_rows_has_no_rows(tmp_path: Path) -> None:
    spec = folder(tmp_path / "d", ".csv", "text,label\n,x\n").model_copy(update={"empty": "drop"})
    assert "train.csv has no rows that are not empty" in cause(spec)


def test_compressed_files_say_what_to_do(tmp_path: Path) -> None:
    packed = tmp_path / "train.jsonl.gz"
    packed.write_bytes(gzip.compress(b"{}\n", mtime=0))
    assert "unpack train.jsonl.gz first" in cause(DataSpec(path=str(packed)))
    assert "has no train file" in cause(DataSpec(path=str(tmp_path)))
    assert "unpack train.jsonl.gz first" in cause(DataSpec(path=str(tmp_path)))


CELLS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda text: text.strip() != ""
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6))
def test_whatever_is_written_is_read(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    objects = [json.dumps({"text": text, "label": label}) for text, label in rows]
    for ending, lines in ((".csv", ["text,label", *quoted]), (".jsonl", objects)):
        data = labelled(folder(tmp_path / ending, ending, "\n".join(lines) + "\n"))
        assert list(data.train.text) == [text for text, _ in rows]
        assert names(data) == [label for _, label in rows]
