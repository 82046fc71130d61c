"""Compare a cohort on a GPU with each device alone on the CPU: updates, structures, scores and losses.

    python benchmarks/gpu_exactness.py [--families bert llama ...]

Small random models of every family, unequal ranks, structures, amounts and lengths of data, two prune events, float64
as in tests/clients/training/cohort/test_trainer.py, which does the same on a CPU; of BERT every importance, every
adapter, FedProx and
HetLoRA's penalty too. Ends with 1 and the names of families that differ by more than 1e-5; scores are compared in
units of the largest.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))

from gpu_cohort import need_gpu
from small_models import CONFIGS, DECODERS
from training import adapter, assignment, begun, device_data, narrowed, opened, structure, task

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.importance import IMPORTANCE
from slimfed.clients.training.cohort.trainer import train_cohort
from slimfed.clients.training.single_device import train_device
from slimfed.clients.training.work import CohortWork, DeviceContext, DeviceWork
from slimfed.clients.update import Update

_FLEET = [(2, 0.0, 0.5, 50), (8, 0.5, 0.7, 3), (4, 0.2, 0.0, 50)]  # rank, sparsity before and after, examples
_LARGEST = 1e-5
_OTHERS: list[dict[str, object]] = [
    *({"importance": name} for name in IMPORTANCE if name != "lora-gradient"),
    *({"adapter": name} for name in ADAPTERS if name != "lora"),
    {"proximal": 1.0},
    {"keep_ranks": 0.7, "tail_penalty": 0.5},
]


def main() -> None:
    """Print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    families = parser.parse_args().families
    need_gpu(parser)
    worst: dict[str, float] = {}
    cases: list[tuple[str, bool, dict[str, object]]] = [
        (family, causal, {}) for family in families for causal in (False, True) if not causal or family in DECODERS
    ]
    cases += [("bert", False, options) for options in _OTHERS]
    for family, causal, options in cases:
        for attempt in (1, 2):  # the first step of a process is not recorded
            largest = difference(family, causal, options)
            worst[family] = max(worst.get(family, 0.0), largest)
            words = " ".join(f"{name} {value}" for name, value in options.items())
            print(f"{family:12} {'causal-lm' if causal else 'classifier':10} {words:32} {attempt} {largest:.1e}")
    print(f"largest difference {max(worst.values()):.1e} on {torch.cuda.get_device_name()}")
    missed = [family for family, largest in worst.items() if not largest <= _LARGEST]
    if missed:
        raise SystemExit(f"{', '.join(missed)}: more than {_LARGEST:.0e}")


def difference(family: str, causal: bool, options: dict[str, object]) -> float:
    """The largest difference between the fleet's updates from the CPU, one by one, and those of a cohort on the GPU."""
    base, blueprint = opened(family, causal)
    job = task(causal, **options)
    whole = begun(job.adapter.name, adapter(base, blueprint, 3, 8), blueprint, 3)
    scores = np.random.default_rng(9).random(blueprint.units).astype(np.float32)
    starts = [structure(blueprint, n, part[1]) for n, part in enumerate(_FLEET)]
    parts = [
        assignment(n, rank, starts[n], max(starts[n].sparsity, goal)) for n, (rank, _, goal, _) in enumerate(_FLEET)
    ]
    sent = [narrowed(whole, a.structure, a.rank) for a in parts]
    alone = [
        train_device(
            DeviceContext(base, blueprint, job), DeviceWork(a, s, scores, device_data(n, causal, _FLEET[n][3]))
        )
        for n, (a, s) in enumerate(zip(parts, sent, strict=True))
    ]
    base.model.to("cuda")
    data = [device_data(n, causal, part[3]) for n, part in enumerate(_FLEET)]
    cohort = train_cohort(DeviceContext(base, blueprint, job), CohortWork(parts, sent, scores, data))
    return max(_between(a, b) for a, b in zip(alone, cohort, strict=True))


def _between(one: Update, other: Update) -> float:
    if one.report.structure != other.report.structure:
        return float("inf")
    pairs = [(one.report.loss_before, other.report.loss_before), (one.report.loss_after, other.report.loss_after)]
    pairs += [(one.scores / one.scores.max(initial=1.0), other.scores / one.scores.max(initial=1.0))]
    pairs += list(zip(one.adapter.tensors(), other.adapter.tensors(), strict=True))
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


if __name__ == "__main__":
    main()
