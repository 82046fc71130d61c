"""The page "Your data in five minutes", followed command by command."""

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "your-data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if not kind for line in text.splitlines()]
WORDS = {"good": "on time and as nice as promised", "bad": "too late and broken on the first day"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder with the file of the page."""
    header = re.search(r"```csv\n(.*?)\n", PAGE)
    assert header is not None
    place = tmp_path_factory.mktemp("yours")
    with (place / "reviews.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header[1].split(","))
        for number in range(240):
            rating = "good" if number % 3 else "bad"
            writer.writerow([f"Order {number}: {WORDS[rating]}", rating, f"c{number % 12:02d}"])
    return place


def test_the_page_is_followed_from_a_file_to_a_model(folder: Path) -> None:
    environment = {**os.environ, "SLIMFED_HOME": "", "SLIMFED_STORE": "", "XDG_DATA_HOME": str(folder / "data")}
    said: dict[str, str] = {}
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        done = subprocess.run(
            [str(Path(sys.executable).with_name(program)), *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
        said[arguments[0]] = done.stdout + done.stderr
    assert list(said) == ["init", "check", "run", "runs", "show", "export", "evaluate", "predict"]
    for words in ("jetson-xavier-nx", "training.learning_rate", "household talk", "whole owners", "virtual time"):
        assert words in said["check"]
    assert "the untuned model" in said["run"]
    assert "the most frequent class" in said["show"]
    assert "accuracy" in said["evaluate"]
    assert said["predict"].startswith(("good", "bad"))
    (store,) = (folder / "data").rglob("store.db")
    assert store.parent == folder / "data" / "slimfed" / "runs"
