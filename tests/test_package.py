"""What is built and installed is all of slimfed: pyproject.toml names every folder and every data file."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FLOORS = ("clients", "strategies", "platform", "dashboard")


def _files(floor: str) -> list[Path]:
    found = (path.relative_to(ROOT) for path in (ROOT / floor).rglob("*") if path.is_file())
    return [path for path in found if "__pycache__" not in path.parts]


def _folders(floor: str) -> set[Path]:
    """The floor, and every folder below it that holds code."""
    return {Path(floor), *(path.parent for path in _files(floor) if path.suffix == ".py")}


@pytest.mark.parametrize("floor", FLOORS)
def test_every_folder_is_a_package_that_is_built(floor: str) -> None:
    folders = {".".join(("slimfed", *folder.parts)) for folder in _folders(floor)}
    assert folders == {name for name in SETUPTOOLS["packages"] if name.split(".")[1] == floor}


@pytest.mark.parametrize("floor", FLOORS)
def test_every_data_file_travels_with_a_package(floor: str) -> None:
    patterns = [
        f"{package.removeprefix('slimfed.').replace('.', '/')}/{pattern}"
        for package, globs in SETUPTOOLS["package-data"].items()
        for pattern in globs
    ]
    data = [path.as_posix() for path in _files(floor) if path.suffix not in (".py", ".pyc")]
    assert [name for name in data if not any(fnmatch(name, pattern) for pattern in patterns)] == []


def test_no_floor_is_a_module_of_the_root() -> None:
    """With an ``__init__.py``, ``platform/`` would stand in for the standard library's when Python starts here."""
    assert [floor for floor in FLOORS if (ROOT / floor / "__init__.py").exists()] == []
