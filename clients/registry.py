"""Registries of methods by name: slimfed's own, and those of other installed packages (entry points)."""

import importlib
import logging
import pkgutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, distributions
from typing import Any, Generic, TypeVar, overload

from slimfed.clients.errors import InputError

T = TypeVar("T")
E = TypeVar("E")
D = TypeVar("D")

OWN = "slimfed"
"""Origin of slimfed's own methods."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Described:
    """A method that can be used. ``origin``: "slimfed", or the distribution it comes from, as "name version"."""

    name: str
    summary: str
    origin: str


@dataclass(frozen=True)
class Broken:
    """A plug-in that cannot be used, its distribution, and the cause."""

    name: str
    origin: str
    error: str


class Registry(Mapping[str, T], Generic[T]):
    """All methods of one kind by name, as a read-only mapping in the order of the names.

    A method of slimfed registers itself, by a decorator on its class or a call with its object::

        @BANDITS.register("s-ucb")
        class SUcb(Bandit): ...

    All modules of ``package`` are imported at the first use of the registry, so that a new method is one new file
    there. Another installed package names its method in an entry point, without the decorator::

        [project.entry-points."slimfed.bandits"]
        lin-ucb = "my_package.lin_ucb:LinUcb"

    Installed packages are searched once a process, when a name is not one of slimfed's own, or when all names are
    listed. A plug-in is imported only then. A plug-in that cannot be imported, is of the wrong type or has a name that
    is already used is left out: there is one warning, :meth:`broken` lists it, and its name raises ``InputError`` with
    the cause. Thread-safe.
    """

    def __init__(
        self,
        field: str,
        group: str,
        base: type[Any],
        *,
        package: str | None = None,
        helpers: Sequence[str] = (),
        classes: bool = False,
        otherwise: str = "",
    ) -> None:
        """A registry that is filled at its first use.

        ``field``: what errors call the name, such as "bandit.name". ``group``: that of the entry points. ``base``: the
        type of all methods. ``classes``: the methods are subclasses of ``base``; otherwise they are objects of it, and
        a subclass that is registered is called once, without arguments. ``package``: the package of slimfed's own
        methods; None if they are registered by the code that makes the registry. ``helpers``: modules of ``package``
        without methods, which are not imported because that is slow (torch). ``otherwise``: other valid values of the
        field, as the end of the error that lists the names.
        """
        self.field = field
        self.group = group
        self._base = base
        self._otherwise = otherwise
        self._classes = classes
        self._package = package
        self._helpers = frozenset(helpers)
        self._usable: dict[str, T] = {}
        self._origins: dict[str, str] = {}
        self._broken: dict[tuple[str, str], Broken] = {}
        self._plugins: dict[str, EntryPoint] | None = None
        self._imported = package is None
        # Reentrant, since a module may use the registry while it is imported by it.
        self._lock = threading.RLock()

    def register(self, name: str) -> Callable[[E], E]:
        """A decorator that adds a class, or a function to call with an object, under ``name``.

        Raises ``ValueError`` if the name is taken, and ``TypeError`` if what is added is of the wrong type.
        """

        def add(entry: E) -> E:
            if name in self._usable:
                raise ValueError(f"{self.field} = {name!r} is registered already")
            self._usable[name] = self._checked(entry)
            self._origins[name] = entry.__module__.partition(".")[0] if isinstance(entry, type) else OWN
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        """The method called ``name``. Raises ``InputError`` with the valid names, or with the cause."""
        problem = self.problem(name)
        if problem is not None:
            raise InputError(f"{self.field} = {name!r}: {problem}")
        return self._usable[name]

    def __contains__(self, name: object) -> bool:
        """True if there is a method called ``name`` that can be used."""
        return isinstance(name, str) and self.problem(name) is None

    def __iter__(self) -> Iterator[str]:
        """Names of all methods that can be used, in order."""
        self._load_all()
        return iter(sorted(self._usable))

    def __len__(self) -> int:
        """Number of methods that can be used."""
        self._load_all()
        return len(self._usable)

    @overload
    def get(self, name: str, /) -> T | None: ...

    @overload
    def get(self, name: str, /, default: T | D) -> T | D: ...

    def get(self, name: str, /, default: T | D | None = None) -> T | D | None:
        """The method called ``name``, or ``default`` if there is none that can be used."""
        return default if self.problem(name) else self._usable[name]

    def problem(self, name: str) -> str | None:
        """The cause why ``name`` cannot be used, as the end of an error line; None if it can be used."""
        self._import_own()
        if name not in self._usable:
            self._load(name)
        if name in self._usable:
            return None
        causes = [each for each in self._broken.values() if each.name == name]
        if causes:
            return f"the plug-in of {causes[0].origin} cannot be used: {causes[0].error}"
        return f"must be one of {', '.join(repr(each) for each in self)}{self._otherwise}"

    def describe(self) -> tuple[Described, ...]:
        """All methods that can be used, in the order of their names."""
        return tuple(Described(name, summary_of(self._usable[name]), self._origins[name]) for name in self)

    def broken(self) -> tuple[Broken, ...]:
        """All plug-ins that cannot be used, in the order of their names."""
        self._load_all()
        return tuple(self._broken[key] for key in sorted(self._broken))

    def _import_own(self) -> None:
        """Import the modules of the package, each of which registers its methods."""
        with self._lock:
            if self._imported or self._package is None:
                return
            self._imported = True
            try:
                for module in pkgutil.iter_modules(importlib.import_module(self._package).__path__):
                    if module.name not in self._helpers:
                        importlib.import_module(f"{self._package}.{module.name}")
            except BaseException:
                self._imported = False
                raise

    def _found(self) -> dict[str, EntryPoint]:
        """Plug-ins by name, not imported; of several with one name, the first distribution's."""
        if self._plugins is None:
            self._plugins = {}
            for plugin in (each for each in installed() if each.group == self.group):
                holder = self._origins.get(plugin.name) or _origin(self._plugins.get(plugin.name))
                if holder is None:
                    self._plugins[plugin.name] = plugin
                else:
                    self._set_aside(plugin, f"{holder} has a method of this name already")
        return self._plugins

    def _load(self, name: str) -> None:
        """Import the plug-in called ``name``, unless that was tried before."""
        with self._lock:
            plugin = self._found().get(name)
            if plugin is None or name in self._usable or (name, _origin(plugin)) in self._broken:
                return
            try:
                entry = self._checked(plugin.load())
                summary_of(entry)
            except Exception as error:  # no error of a plug-in may stop the others
                self._set_aside(plugin, f"{type(error).__name__}: {error}")
            else:
                self._usable[name], self._origins[name] = entry, _origin(plugin) or ""

    def _load_all(self) -> None:
        self._import_own()
        with self._lock:
            for name in self._found():
                self._load(name)

    def _set_aside(self, plugin: EntryPoint, error: str) -> None:
        broken = Broken(plugin.name, _origin(plugin) or "", error)
        self._broken[broken.name, broken.origin] = broken
        _log.warning("The plug-in %r (%s) of %s cannot be used: %s", broken.name, self.group, broken.origin, error)

    def _checked(self, entry: Any) -> T:
        """The class or object to store for ``entry``. Raises ``TypeError`` if it is of the wrong type."""
        if isinstance(entry, type):
            if not issubclass(entry, self._base):
                raise TypeError(f"{entry.__name__} is no subclass of {self._base.__name__}")
            missing = sorted(getattr(entry, "__abstractmethods__", ()))
            if missing:
                raise TypeError(f"{entry.__name__} does not implement {', '.join(missing)}")
            return entry if self._classes else entry()  # type: ignore[return-value]
        if self._classes or not isinstance(entry, self._base):
            wanted = "a subclass" if self._classes else "an object"
            raise TypeError(f"{entry!r} is not {wanted} of {self._base.__name__}")
        return entry


def summary_of(entry: object) -> str:
    """Summary of a method: its ``summary``, or else the first line of its class's docstring."""
    text = getattr(entry, "summary", None)
    if not isinstance(text, str):
        text = (entry if isinstance(entry, type) else type(entry)).__doc__ or ""
    return text.strip().partition("\n")[0]


@cache
def installed() -> tuple[EntryPoint, ...]:
    """Entry points for slimfed of all installed distributions, ordered by distribution; searched once a process."""
    found: dict[str, list[EntryPoint]] = {}
    for distribution in distributions():
        # The raw text is searched first, since parsing the metadata of every distribution takes part of a second.
        if "slimfed." in (distribution.read_text("entry_points.txt") or ""):
            points = [point for point in distribution.entry_points if point.group.startswith("slimfed.")]
            found.setdefault(distribution.name, points)
    return tuple(point for name in sorted(found) for point in found[name])


def _origin(plugin: EntryPoint | None) -> str | None:
    """The distribution of an entry point, as "name version"."""
    if plugin is None:
        return None
    return f"{plugin.dist.name} {plugin.dist.version}" if plugin.dist else plugin.value
