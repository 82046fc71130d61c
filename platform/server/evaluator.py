"""Evaluation of the pruned global model on the test split by the server."""

from dataclasses import dataclass, field

from slimfed.clients.adapter import Adapter
from slimfed.clients.node.runtime import NodeRuntime
from slimfed.clients.processors import compute_threads
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.structure import Structure
from slimfed.clients.telemetry.meter import Meter
from slimfed.clients.update import Evaluation


@dataclass(frozen=True)
class GlobalEvaluator:
    """Implements ``strategies.protocols.Evaluator``. ``threads``: for evaluation, during which no node computes.

    ``meter`` counts the texts that are evaluated.
    """

    runtime: NodeRuntime
    threads: int
    meter: Meter = field(default_factory=Meter)

    def evaluate(self, adapter: Adapter, structure: Structure, examples: int = 0, *, write: bool = True) -> Evaluation:
        """The base, sliced to ``structure``, with ``adapter`` (all coordinates, full rank) narrowed to it.

        ``examples``: of the test split, a sample drawn by the run's seed, the same in every call; 0: all. ``write``:
        false for no completions.
        """
        with compute_threads(self.threads):  # restored, since nodes may be in this process
            narrowed = narrow(adapter, self.runtime.blueprint.dense(), structure)
            return self.runtime.examine(narrowed, structure, examples, self.meter, write=write)

    def majority(self, examples: int = 0) -> float | None:
        """Accuracy, in [0, 1], of the class that most training texts have on the same ``examples``; None for causal-lm.

        Of classes that are equally frequent the first is taken.
        """
        return self.runtime.majority_accuracy(examples)

    def held_out(self, adapter: Adapter, structure: Structure) -> Evaluation | None:
        """As :meth:`evaluate` on all of the test split; None if that is the split that :meth:`evaluate` measures on."""
        runtime = self.runtime.on_held_out()
        if runtime is None:
            return None
        return GlobalEvaluator(runtime, self.threads, self.meter).evaluate(adapter, structure)
