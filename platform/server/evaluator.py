"""The server's own measurement: the pruned global model on the test split."""

from dataclasses import dataclass

import torch

from slimfed.clients.adapter import Adapter
from slimfed.clients.node.runtime import NodeRuntime
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.structure import Structure
from slimfed.clients.update import Evaluation


@dataclass(frozen=True)
class GlobalEvaluator:
    """Implements ``strategies.protocols.Evaluator``. ``threads``: nothing else computes while the server measures."""

    runtime: NodeRuntime
    threads: int

    def evaluate(self, adapter: Adapter, structure: Structure) -> Evaluation:
        """The base, sliced to ``structure``, with ``adapter`` (all coordinates, full rank) narrowed to it."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            return self.runtime.examine(narrow(adapter, self.runtime.blueprint.dense(), structure), structure)
        finally:  # where nodes share the process, they go on in one thread: the order of a sum hangs on it
            torch.set_num_threads(before)
