"""What a job file needs of the strategies is imported in no time: neither torch nor Ray comes with it."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "ray", "datasets")
MODULES = ("bandits", "aggregation", "schedule", "settings", "server", "protocols", "server_state")
SPECS = ("bandits.spec", "server.spec", "settings")
NAMES = """
from slimfed.strategies.aggregation import AGGREGATIONS
from slimfed.strategies.bandits import BANDITS
from slimfed.strategies.server import SERVER_OPTIMIZERS
assert "s-ucb" in list(BANDITS) and "coverage" in list(AGGREGATIONS) and "fedadam" in list(SERVER_OPTIMIZERS)
"""


def imported(program: str, names: tuple[str, ...]) -> list[str]:
    """Which of ``names`` a new process has imported after ``program``."""
    said = f"{program}\nimport sys\nprint(*[name for name in {names} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("module", MODULES)
def test_declarations_import_no_deep_learning(module: str) -> None:
    assert imported(f"import slimfed.strategies.{module}", HEAVY) == []


@pytest.mark.parametrize("module", SPECS)
def test_specifications_import_no_flower_either(module: str) -> None:
    assert imported(f"import slimfed.strategies.{module}", (*HEAVY, "flwr")) == []


def test_listing_names_imports_neither() -> None:
    assert imported(NAMES, (*HEAVY, "flwr")) == []
