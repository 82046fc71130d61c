"""The documentation site: its index, its API page and its links. `make check` builds it and refuses dead links."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import slimfed

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def test_the_index_links_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.(?:md|ipynb))\)", (DOCS / "index.md").read_text(encoding="utf-8")))
    assert linked == {path.name for path in DOCS.iterdir() if path.suffix in (".md", ".ipynb")} - {"index.md"}


def test_the_api_page_documents_every_public_name_once() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    documented = re.findall(r"^::: slimfed\.(\w+)$", text, re.MULTILINE)
    assert sorted(documented) == sorted(set(slimfed.__all__) - {"__version__"})
    assert "`slimfed.__version__`" in text


@pytest.fixture(scope="module")
def hooks() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "site_hooks.py"))


def _page(path: str) -> Any:
    source = ROOT / path
    name = source.relative_to(DOCS if source.is_relative_to(DOCS) else ROOT).as_posix()
    return SimpleNamespace(file=SimpleNamespace(abs_src_path=str(source), src_uri=name))


@pytest.mark.parametrize(
    ("page", "link", "on_the_site"),
    [
        ("docs/results.md", "[a](../benchmarks/README.md#x)", "[a](benchmarks/README.md#x)"),
        ("docs/results.md", "[a](profiles.md)", "[a](profiles.md)"),
        ("docs/results.md", "![a](images/run.png)", "![a](images/run.png)"),
        ("docs/results.md", "[a](../deploy/systemd)", "a"),
        ("docs/results.md", "[a](https://flower.ai/x)", "[a](https://flower.ai/x)"),
        ("docs/results.md", "[a](../missing.md)", "[a](../missing.md)"),
        ("benchmarks/README.md", "[a](../docs/builtin.md)", "[a](../builtin.md)"),
        ("benchmarks/README.md", "![a](images/growth.svg)", "![a](images/growth.svg)"),
    ],
)
def test_links_that_work_in_the_repository_work_on_the_site(
    hooks: dict[str, Any], page: str, link: str, on_the_site: str
) -> None:
    assert hooks["on_page_markdown"](link, _page(page), None, None) == on_the_site


def test_roles_of_docstrings_are_left_out(hooks: dict[str, Any]) -> None:
    html = "see :func:<code>slimfed.run</code>: <code>x</code>"
    assert hooks["on_page_content"](html, None, None, None) == "see <code>slimfed.run</code>: <code>x</code>"
