"""Naming methods takes no seconds: what declares them never imports what trains them."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "peft", "datasets", "ray", "flwr_datasets")
ADAPTERS = """
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.base import Capabilities
flags = {name: {flag: getattr(method, flag) for flag in Capabilities.__annotations__}
         for name, method in ADAPTERS.items()}
assert flags["lora"]["plain_factors"] and flags["pat"]["cuts_width"]
"""
IMPORTANCE = """
from slimfed.clients.importance import IMPORTANCE
needs = {name: (criterion.needs_data, criterion.needs_inputs) for name, criterion in IMPORTANCE.items()}
assert needs["magnitude"] == (False, False) and needs["activation"] == (True, True)
"""
ALLOCATIONS = """
from slimfed.clients.allocation import ALLOCATIONS
needs = {name: allocation.measures for name, allocation in ALLOCATIONS.items()}
assert needs["erk"] is False and needs["cfsp"] is True
"""
COST = "from slimfed.clients.models.cost import AdapterLoad, Dimensions, low_rank_load, training_workload"


@pytest.mark.parametrize(
    "program", [ADAPTERS, IMPORTANCE, ALLOCATIONS, COST], ids=["adapters", "importance", "allocations", "cost"]
)
def test_listing_methods_and_what_they_can_do_imports_no_deep_learning(program: str) -> None:
    loaded = f"import sys\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", f"{program}\n{loaded}"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_method_brings_what_trains_it_only_when_asked() -> None:
    program = (
        "import sys\nfrom slimfed.clients.adapters import ADAPTERS\nlora = ADAPTERS['lora']\n"
        "assert 'torch' not in sys.modules\nlora.training\nassert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
