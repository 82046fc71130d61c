"""The pages on Python do what they say: every block of docs/python.md, and docs/python.ipynb in a Jupyter kernel."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import slimfed

DOCS = Path(__file__).parents[1] / "docs"
PAGE, NOTEBOOK = DOCS / "python.md", DOCS / "python.ipynb"

PATIENCE = 600
"""Seconds for the page, and for a cell of the notebook, on a busy machine; a start of Flower takes 15 to 60."""

pytestmark = pytest.mark.timeout(900)


def _script() -> str:
    """The Python blocks of the page on their own lines, so that a traceback names the page's line."""
    kept, lines = False, []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            kept = line == "```python"
            lines.append("")
        else:
            lines.append(line if kept else "")
    return "\n".join(lines) + "\n"


def test_every_block_of_the_page_runs(tmp_path: Path) -> None:
    script = tmp_path / "python.py"
    script.write_text(_script(), encoding="utf-8")
    environment = {**os.environ, "SLIMFED_HOME": str(tmp_path / "home")}
    environment.pop("SLIMFED_STORE", None)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=PATIENCE, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    for said in (slimfed.__version__, "round 3: sparsity", "stopped 2", "training.rounds = 0"):
        assert said in done.stdout


def test_the_page_speaks_of_every_public_name() -> None:
    text = PAGE.read_text(encoding="utf-8")
    unsaid = {name for name in slimfed.__all__ if not re.search(rf"\b{name}\b", text)}
    assert unsaid <= {"ComparedRuns", "RunResult", "RunStore", "SearchResult", "SlimModel"}, (
        "types that are only returned"
    )


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The notebook, executed in a kernel of its own whose runs go to a folder of the test."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=PATIENCE, kernel_name="python3", resources=place)
    environment = {**os.environ, "SLIMFED_HOME": str(folder / "home"), "IPYTHONDIR": str(folder / "ipython")}
    environment.pop("SLIMFED_STORE", None)
    return client.execute(env=environment)


def test_the_notebook_is_stored_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in _code(notebook))


@pytest.mark.parametrize("runtime", ["local", "flower"])
def test_the_notebook_shows_the_progress_of_a_run_in_one_output(executed: Any, runtime: str) -> None:
    (cell,) = (each for each in _code(executed) if f'runtime="{runtime}"' in each.source)
    (bar,) = (output for output in cell.outputs if output.output_type == "display_data")
    assert "</progress> done 3/3" in bar.data["text/html"]
    printed = "".join(output.text for output in cell.outputs if output.output_type == "stream")
    assert "round" not in printed, "the bar is not printed as lines too"


def test_the_notebook_shows_figures_and_rounds(executed: Any) -> None:
    tables = [output.data["text/html"] for cell in _code(executed) for output in cell.outputs if _is_table(output)]
    assert any("virtual seconds" in table for table in tables), "a result"
    assert any("dataframe" in table and "train_loss" in table for table in tables), "its rounds"


def _code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _is_table(output: Any) -> bool:
    return output.output_type == "execute_result" and "text/html" in output.data
