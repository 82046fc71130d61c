import logging
from collections.abc import Iterator

import pytest

from slimfed.clients.errors import InputError
from slimfed.clients.verbosity import LEVELS, VARIABLE, follow_environment, set_verbosity


@pytest.fixture(autouse=True)
def tree(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    monkeypatch.setenv(VARIABLE, "info")
    tree = logging.getLogger("slimfed")
    level, handlers = tree.level, list(tree.handlers)
    yield tree
    tree.setLevel(level)
    tree.handlers[:] = handlers


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_below_the_level_is_not_logged(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    set_verbosity(level)
    set_verbosity(level)  # does not log twice
    for name in LEVELS:
        logging.getLogger("slimfed.clients.somewhere").log(
            logging.getLevelNamesMapping()[name.upper()], "said %s", name
        )
    said = [line.rsplit(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert said == list(LEVELS[LEVELS.index(level) :])


def test_other_processes_follow(tree: logging.Logger) -> None:
    set_verbosity("debug")
    tree.setLevel(logging.ERROR)
    follow_environment()
    assert tree.level == logging.DEBUG


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(InputError, match="SLIMFED_LOG = 'loud': must be one of debug"):
        follow_environment({VARIABLE: "loud"})
