"""The package of docs/extend.md, installed by pip beside a broken one: a run and an export with all of its methods."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PLUGINS = Path(__file__).with_name("plugin")
LAB, BROKEN = PLUGINS / "slimfed-lab", PLUGINS / "slimfed-broken"
PAGE = Path(__file__).parents[1] / "docs" / "extend.md"
PATIENCE = 300.0
"""Seconds for one command on a busy machine; on a quiet one the whole file takes less than a minute."""

JOB = """
name = "plugged"
seed = 3
[data]
max_length = 16
[fleet]
devices = 4
participation = 3
[method]
name = "lab"
target_sparsity = 0.4
[training]
rounds = 2
local_steps = 2
batch_size = 4
[evaluation]
every = 2
devices = 1
device_examples = 20
[engine]
name = "cohort"
cohort_size = 4
workers = 1
dtype = "fp32"
"""

pytestmark = pytest.mark.timeout(900)


class Place:
    """A home, and a folder of installed packages that every process started from here sees."""

    def __init__(self, folder: Path, *packages: Path) -> None:
        self.folder = folder
        sources = [shutil.copytree(package, folder / "sources" / package.name) for package in packages]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
        done = self._run([*pip, "--disable-pip-version-check", "--target", str(folder / "site"), *map(str, sources)])
        assert done.returncode == 0, done.stderr

    def slimfed(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self._run([sys.executable, "-c", "from slimfed.platform.cli import main; main()", *arguments])

    def json(self, *arguments: str) -> Any:
        done = self.slimfed(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def _run(self, command: list[str]) -> "subprocess.CompletedProcess[str]":
        environment = {
            **os.environ,
            "SLIMFED_HOME": str(self.folder / "home"),
            "PYTHONPATH": str(self.folder / "site"),
        }
        environment.pop("SLIMFED_STORE", None)
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("plugins"), LAB, BROKEN)


@pytest.mark.parametrize("path", sorted(path for path in LAB.rglob("*") if path.suffix in (".py", ".toml")), ids=str)
def test_the_page_shows_the_package_as_it_is_tested(path: Path) -> None:
    blocks = re.findall(r"^```\w*\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert path.read_text(encoding="utf-8") in blocks
    assert f"`{path.relative_to(PLUGINS).as_posix()}`" in PAGE.read_text(encoding="utf-8")


def test_all_methods_are_listed_with_where_they_come_from(place: Place) -> None:
    found = place.json("methods")
    rows = [*found["methods"], *(row for part in found["parts"].values() for row in part)]
    assert {row["name"] for row in rows if row["from"] == "slimfed-lab 0.3"} == {
        "lab",
        "orthogonal-lora",
        "log-examples",
        "greedy-rank",
        "neighbours",
        "l1-magnitude",
        "later-layers",
        "half-step",
        "lab-bench",
        "npz",
    }
    assert all(row["summary"] and row["from"] in ("slimfed", "slimfed-lab 0.3") for row in rows)
    assert "lab-bench" in [row["profile"] for row in place.json("fleet")]


def test_broken_plugins_are_named_with_their_errors(place: Place) -> None:
    done = place.slimfed("methods", "--json")
    broken = {row["name"]: row["error"] for row in json.loads(done.stdout)["broken"]}
    assert broken == {
        "broken": "AttributeError: module 'slimfed_broken' has no attribute 'Missing'",
        "not-a-bandit": "TypeError: NotAnAggregation is no subclass of Agent",
        "coverage": "slimfed has a method of this name already",
        "needs-more": "ModuleNotFoundError: No module named 'slimfed_broken_no_such_module'",
        "wrong": "InputError: fleet profile 'no-such-folder/wrong.toml': there is no such file",
    }
    assert {row["from"] for row in json.loads(done.stdout)["broken"]} == {"slimfed-broken 0.1"}
    lines = [line for line in done.stderr.splitlines() if "slimfed-broken 0.1" in line]
    assert len(lines) == len(broken), "each is named once"
    refused = place.slimfed("run", "--set", "method.adapter=broken")
    assert refused.returncode == 2
    assert (
        "method.adapter = 'broken': the plug-in of slimfed-broken 0.1 cannot be used: AttributeError" in refused.stderr
    )


def test_a_run_uses_the_package_on_its_workers_and_is_exported_by_it(place: Place) -> None:
    job = place.folder / "job.toml"
    job.write_text(JOB, encoding="utf-8")
    summary = place.json("run", str(job))
    assert (summary["status"], summary["rounds"]) == ("done", 2)
    last = place.json("show", "last")["round_list"][-1]
    assert last["global_sparsity"] == pytest.approx(0.4, abs=0.05)
    assert last["asked"] == 3
    [exported] = place.json("export", "last", "--format", "npz", "--out", str(place.folder / "out"))
    folder = Path(exported["folder"])
    manifest = json.loads((folder / "slimfed.json").read_text(encoding="utf-8"))
    assert (manifest["kind"], manifest["provenance"]["method"]) == ("npz", "lab")
    weights = np.load(folder / "weights.npz")
    rows, columns = weights["bert.encoder.layer.0.intermediate.dense.weight"].shape
    assert len(manifest["kept"]["bert.encoder.layer.0.intermediate.dense"]["out"]) == rows
    assert columns == len(weights["bert.encoder.layer.0.output.dense.bias"])
