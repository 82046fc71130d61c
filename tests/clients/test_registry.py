"""Registries: own methods found in a package, plug-ins found by entry points, broken ones set aside."""

import logging
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slimfed.clients import registry
from slimfed.clients.errors import InputError
from slimfed.clients.registry import Broken, Described, Registry


class Greeter(ABC):
    @abstractmethod
    def greet(self) -> str: ...


class Hello(Greeter):
    """Says hello.

    And nothing else.
    """

    def greet(self) -> str:
        return "hello"


class Loud(Hello):
    """Says it loudly."""


def made(**options: Any) -> Registry[Any]:
    """A registry of greeters with one of its own."""
    greeters = Registry[Any]("greeting.name", "slimfed.greeters", Greeter, **options)
    greeters.register("hello")(Hello)
    return greeters


class Installer:
    """Makes folders that look like installed distributions, in a place that Python imports from."""

    def __init__(self, site: Path) -> None:
        self.site = site

    def __call__(self, name: str, points: dict[str, str], group: str = "slimfed.greeters", **modules: str) -> None:
        info = self.site / f"{name}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        lines = "".join(f"{point} = {value}\n" for point, value in points.items())
        (info / "entry_points.txt").write_text(f"[{group}]\n{lines}")
        for module, text in modules.items():
            (self.site / f"{module}.py").write_text(text)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installer]:
    monkeypatch.syspath_prepend(tmp_path)
    registry.installed.cache_clear()
    before = set(sys.modules)
    yield Installer(tmp_path)
    registry.installed.cache_clear()
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and tmp_path in Path(sys.modules[name].__file__ or "").parents:
            del sys.modules[name]


PLUGIN = """
import sys
sys.modules["seen"] = sys
Greeter = next(m for n, m in sys.modules.items() if n.endswith("test_registry")).Greeter

class Nod(Greeter):
    '''Nods.'''
    def greet(self):
        return ""

class Half(Greeter):
    pass
"""


def test_names_are_in_order_and_say_what_they_are() -> None:
    greeters = made()
    greeters.register("bye")(Loud)
    assert list(greeters) == ["bye", "hello"]
    assert len(greeters) == 2
    assert greeters["hello"].greet() == "hello"
    assert greeters["hello"] is greeters["hello"]
    assert [each.summary for each in greeters.describe()] == ["Says it loudly.", "Says hello."]
    assert greeters.get("nod") is None
    assert "nod" not in greeters
    assert 3 not in greeters


def test_a_name_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"greeting.name = 'nod': must be one of 'hello'$"):
        made()["nod"]


@pytest.mark.parametrize("classes", [False, True])
def test_what_is_of_the_wrong_type_is_refused(classes: bool) -> None:
    greeters = made(classes=classes)
    for wrong in (Greeter, int, 3):
        with pytest.raises(TypeError):
            greeters.register("wrong")(wrong)
    with pytest.raises(ValueError, match="'hello' is registered already"):
        greeters.register("hello")(Loud)
    assert list(greeters) == ["hello"]
    assert isinstance(greeters["hello"], type) is classes


def test_a_plugin_is_imported_when_it_is_asked_for_and_not_before(install: Installer) -> None:
    install("nodding", {"nod": "nodding:Nod"}, nodding=PLUGIN)
    greeters = made()
    assert "hello" in greeters
    assert greeters["hello"]
    assert "nodding" not in sys.modules
    assert greeters["nod"].greet() == ""
    assert greeters.describe() == (
        Described("hello", "Says hello.", Hello.__module__.partition(".")[0]),
        Described("nod", "Nods.", "nodding 1.5"),
    )
    assert greeters.broken() == ()


def test_plugins_of_other_groups_are_not_there(install: Installer) -> None:
    install("nodding", {"nod": "nodding:Nod"}, group="slimfed.others", nodding=PLUGIN)
    assert list(made()) == ["hello"]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("missing_module:Nod", "ModuleNotFoundError: No module named 'missing_module'"),
        ("nodding:Missing", "AttributeError: module 'nodding' has no attribute 'Missing'"),
        ("nodding:Half", "TypeError: Half does not implement greet"),
        ("nodding:sys", "TypeError: <module 'sys' (built-in)> is not an object of Greeter"),
        ("failing:Nod", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_broken_plugin_is_named_and_costs_nothing_else(
    install: Installer, caplog: pytest.LogCaptureFixture, value: str, error: str
) -> None:
    install("nodding", {"bad": value, "nod": "nodding:Nod"}, nodding=PLUGIN, failing="1 / 0")
    greeters = made()
    with caplog.at_level(logging.WARNING):
        assert list(greeters) == list(greeters) == ["hello", "nod"]
        assert greeters.broken() == (Broken("bad", "nodding 1.5", error),)
    assert [record.getMessage() for record in caplog.records] == [
        f"The plug-in 'bad' (slimfed.greeters) of nodding 1.5 cannot be used: {error}"
    ]
    with pytest.raises(InputError) as raised:
        greeters["bad"]
    assert str(raised.value) == f"greeting.name = 'bad': the plug-in of nodding 1.5 cannot be used: {error}"


def test_a_name_that_is_taken_stays_with_who_has_it(install: Installer) -> None:
    install("zealous", {"nod": "nodding:Half", "hello": "nodding:Nod"})
    install("nodding", {"nod": "nodding:Nod"}, nodding=PLUGIN)
    greeters = made()
    assert greeters["hello"].greet() == "hello"
    assert greeters["nod"].greet() == ""
    owner = Hello.__module__.partition(".")[0]
    assert greeters.broken() == (
        Broken("hello", "zealous 1.5", f"{owner} has a method of this name already"),
        Broken("nod", "zealous 1.5", "nodding 1.5 has a method of this name already"),
    )


def test_a_new_method_is_one_file_in_the_package(install: Installer) -> None:
    package = install.site / "greeters"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in ("one", "two"):
        (package / f"{name}.py").write_text(
            "from test_registry_target import greeters, Hello\n"
            f"@greeters.register({name!r})\nclass New(Hello):\n    'New.'\n"
        )
    (package / "heavy.py").write_text("1 / 0")
    greeters = made(package="greeters", helpers=["heavy"])
    target = type(sys)("test_registry_target")
    target.greeters, target.Hello = greeters, Hello  # type: ignore[attr-defined]
    sys.modules["test_registry_target"] = target
    assert list(greeters) == ["hello", "one", "two"]
    assert len(made(package=None)) == 1


def test_slimfeds_own_methods_are_described_in_a_line_without_torch() -> None:
    code = (
        "import sys\nfrom slimfed.platform.registries import REGISTRIES\n"
        "entries = [(each.field, entry) for each in REGISTRIES for entry in each.describe()]\n"
        "heavy = {'torch', 'transformers', 'ray', 'datasets', 'peft', 'onnx', 'gguf', 'flwr'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "bad = [e for e in entries if not 10 < len(e[1].summary) < 120 or e[1].origin != 'slimfed']\n"
        "assert len(entries) > 40 and not bad, bad\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
