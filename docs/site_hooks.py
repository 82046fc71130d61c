"""What MkDocs does differently for this repository (see mkdocs.yml).

Pages link to files beside docs/, so that the links work where the repository is read. On the site, benchmarks/README.md
is a page, other files are downloads under their path in the repository, and a link to a folder is plain text.

The API page is made of docstrings by griffe, which reads files and passes over folders without ``__init__.py``. The
four floors have none, so griffe reads links to their files in folders that have one.
"""

import posixpath
import re
import shutil
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

DOCS = Path(__file__).parent
ROOT = DOCS.parent
BENCHMARKS = ROOT / "benchmarks" / "README.md"
SOURCES = ROOT / "build" / "docs"
"""What griffe reads: ``paths`` in mkdocs.yml."""
FLOORS = ("clients", "strategies", "platform", "dashboard")

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)")
_ROLE = re.compile(r":(?:func|class|meth|data|mod|attr):(?=<code>)")


def on_startup(command: str, dirty: bool) -> None:
    """Lay out the package for griffe, before the plug-ins are configured: they pass over folders that are not there."""
    shutil.rmtree(SOURCES, ignore_errors=True)
    package = SOURCES / "slimfed"
    package.mkdir(parents=True)
    shutil.copy(ROOT / "slimfed" / "__init__.py", package)
    for floor in FLOORS:
        (package / floor).mkdir()
        (package / floor / "__init__.py").touch()
        for path in (ROOT / floor).iterdir():
            (package / floor / path.name).symlink_to(path)


def on_files(files: Any, config: Any) -> Any:
    """Add what pages link to outside docs/."""
    sources = [*DOCS.rglob("*.md"), BENCHMARKS]
    for path in sorted({BENCHMARKS, *(found for source in sources for found in _outside(source))}):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links to files of the repository into links of the site."""
    source = Path(page.file.abs_src_path)
    here = posixpath.dirname(page.file.src_uri)

    def rewritten(link: re.Match[str]) -> str:
        image, text, target, anchor = link.groups()
        path = (source.parent / target).resolve()
        if path.is_dir():
            return text
        if not path.is_file() or not path.is_relative_to(ROOT):
            return link[0]  # MkDocs names it
        name = path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT).as_posix()
        return f"{image}[{text}]({posixpath.relpath(name, here or '.')}{anchor or ''})"

    return _LINK.sub(rewritten, markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Leave out the roles that docstrings give to names: they mean nothing to Markdown."""
    return _ROLE.sub("", html)


def _outside(source: Path) -> list[Path]:
    """The files of the repository outside docs/ that a page links to."""
    targets = [match[3] for match in _LINK.finditer(source.read_text(encoding="utf-8"))]
    paths = [(source.parent / target).resolve() for target in targets]
    return [path for path in paths if path.is_file() and path.is_relative_to(ROOT) and not path.is_relative_to(DOCS)]
