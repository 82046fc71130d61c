"""Fine-tune language models across fleets of unequal devices, and prune the model for each device while it trains.

The public face of slimfed in Python::

    import slimfed

    job = slimfed.load_job("job.toml", set={"training.rounds": 5})
    result = slimfed.run(job, runtime="local")
    result.rounds                     # a pandas frame, a row a round
    result.export("slim")             # a folder that opens anywhere
    result.model()                    # the pruned model in memory

Names are imported when they are first used, so that ``import slimfed`` costs nothing. What is not listed in
``__all__`` may change without notice.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import version

    from slimfed.clients.adapters.base import AdapterMethod as AdapterMethod
    from slimfed.clients.allocation.base import Allocation as Allocation
    from slimfed.clients.errors import InputError as InputError
    from slimfed.clients.errors import SlimfedError as SlimfedError
    from slimfed.clients.export import load_slim as load_slim
    from slimfed.clients.export.slim_model import SlimModel as SlimModel
    from slimfed.clients.importance.base import Importance as Importance
    from slimfed.clients.verbosity import set_verbosity as set_verbosity
    from slimfed.platform.api.jobs import load_job as load_job
    from slimfed.platform.api.results import RunResult as RunResult
    from slimfed.platform.api.rounds import RoundFigures as RoundFigures
    from slimfed.platform.api.runs import resume as resume
    from slimfed.platform.api.runs import run as run
    from slimfed.platform.api.searches import search as search
    from slimfed.platform.api.store import RunStore as RunStore
    from slimfed.platform.api.store import open_store as open_store
    from slimfed.platform.api.sweeps import ComparedRuns as ComparedRuns
    from slimfed.platform.api.sweeps import compare as compare
    from slimfed.platform.api.sweeps import sweep as sweep
    from slimfed.platform.job.job import Job as Job
    from slimfed.platform.launch.flwr_cli import LaunchError as LaunchError
    from slimfed.platform.search.result import SearchResult as SearchResult
    from slimfed.strategies.aggregation.base import Aggregator as Aggregator
    from slimfed.strategies.bandits.base import Bandit as Bandit
    from slimfed.strategies.selection.base import Selector as Selector
    from slimfed.strategies.server.base import ServerOptimizer as ServerOptimizer

    __version__ = version("slimfed")

_HOMES = {
    "AdapterMethod": "clients.adapters.base",
    "Aggregator": "strategies.aggregation.base",
    "Allocation": "clients.allocation.base",
    "Bandit": "strategies.bandits.base",
    "ComparedRuns": "platform.api.sweeps",
    "Importance": "clients.importance.base",
    "InputError": "clients.errors",
    "Job": "platform.job.job",
    "LaunchError": "platform.launch.flwr_cli",
    "RoundFigures": "platform.api.rounds",
    "RunResult": "platform.api.results",
    "RunStore": "platform.api.store",
    "SearchResult": "platform.search.result",
    "Selector": "strategies.selection.base",
    "ServerOptimizer": "strategies.server.base",
    "SlimModel": "clients.export.slim_model",
    "SlimfedError": "clients.errors",
    "compare": "platform.api.sweeps",
    "load_job": "platform.api.jobs",
    "load_slim": "clients.export",
    "open_store": "platform.api.store",
    "resume": "platform.api.runs",
    "run": "platform.api.runs",
    "search": "platform.api.searches",
    "set_verbosity": "clients.verbosity",
    "sweep": "platform.api.sweeps",
}

__all__ = [
    "AdapterMethod",
    "Aggregator",
    "Allocation",
    "Bandit",
    "ComparedRuns",
    "Importance",
    "InputError",
    "Job",
    "LaunchError",
    "RoundFigures",
    "RunResult",
    "RunStore",
    "SearchResult",
    "Selector",
    "ServerOptimizer",
    "SlimModel",
    "SlimfedError",
    "__version__",
    "compare",
    "load_job",
    "load_slim",
    "open_store",
    "resume",
    "run",
    "search",
    "set_verbosity",
    "sweep",
]


def __getattr__(name: str) -> Any:
    """A public name, imported from where it is defined. Raises ``AttributeError`` for any other."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("slimfed")
    elif name in _HOMES:
        value = getattr(import_module(f"slimfed.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'slimfed' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted({*globals(), *__all__})
