"""What is built and installed is all of slimfed, in a checkout and from a wheel."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("clients", "strategies", "platform", "dashboard")


def _files() -> set[str]:
    """Everything below the face and the floors, by its name in the package."""
    found = {"slimfed/__init__.py", "slimfed/py.typed"}
    for floor in FLOORS:
        paths = (path for path in (ROOT / floor).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        found |= {f"slimfed/{path.relative_to(ROOT).as_posix()}" for path in paths}
    return found


def test_every_folder_of_code_is_a_package() -> None:
    """A floor itself has no ``__init__.py``: in the root, ``platform/`` would stand in for the standard library's."""
    folders = {path.parent for floor in FLOORS for path in (ROOT / floor).rglob("*.py")}
    bare = {folder for folder in folders if not (folder / "__init__.py").exists()}
    migrations = ROOT / "platform" / "store" / "migrations"  # scripts that Alembic reads by their path
    assert bare == {*(ROOT / floor for floor in FLOORS), migrations, migrations / "versions"}


def test_the_face_links_to_every_floor() -> None:
    assert {path.name: path.resolve() for path in (ROOT / "slimfed").iterdir() if path.is_symlink()} == {
        floor: ROOT / floor for floor in FLOORS
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built of a copy: what an earlier build left in a checkout would get into it."""
    copy, folder = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in ("slimfed", *FLOORS):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(copy)]
    subprocess.run(command, check=True, timeout=240)
    (built,) = folder.glob("slimfed-*.whl")
    return built


def test_a_wheel_holds_every_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = {name for name in opened.namelist() if ".dist-info/" not in name}
    assert names == _files()


def test_a_wheel_works_where_no_checkout_is(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(tmp_path / "installed")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import slimfed, platform; from slimfed.platform.job import job;"
        "print(slimfed.__file__, job.__file__, slimfed.load_job().fleet.devices, platform.system())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "installed")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd=tmp_path)
    face, job, devices, _ = done.stdout.split()
    assert Path(face).is_relative_to(tmp_path)
    assert Path(job).is_relative_to(tmp_path)
    assert devices == "80"
