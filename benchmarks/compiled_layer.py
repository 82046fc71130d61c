"""Two layers of a cohort, forward and backward on a GPU: as they are, and each through torch.compile.

    python benchmarks/compiled_layer.py [--cases roberta-64 roberta-128 llama-256] [--dynamic]

``--dynamic`` asks for one program for all lengths; otherwise every length is compiled for itself. Both are recorded as
CUDA graphs, as training does it. torch.compile breaks up autograd functions and copies what they change in place, so
here it is given the cohort's product as an operation that it leaves whole. Prints a Markdown table.
"""

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from gpu_cohort import CASES, Case, need_gpu, prepare, seconds_of
from transformers import PreTrainedModel

from slimfed.clients.adapters.training import batched_layers
from slimfed.clients.adapters.training.batched_product import AdaptedProduct
from slimfed.clients.models.families import FAMILIES, without_cache
from slimfed.clients.models.quantised_linear import Source
from slimfed.clients.training.cohort.model import Members, attach_cohort


class _Context:
    """What an autograd function keeps between forward and backward."""

    needs_input_grad = (True,) * 5
    weight: Source

    def __init__(self, *saved: torch.Tensor) -> None:
        self.saved_tensors = saved

    def save_for_backward(self, *tensors: torch.Tensor) -> None:
        """Keep them."""
        self.saved_tensors = tensors


@torch.library.custom_op("slimfed::adapted_product", mutates_args=())
def _product(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, a: torch.Tensor, b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    kept = _Context()
    y = AdaptedProduct.forward(kept, x, lambda: weight, bias, a, b)
    return y, kept.saved_tensors[1]


@_product.register_fake
def _(x: Any, weight: Any, bias: Any, a: Any, b: Any) -> Any:
    return x.new_empty(*x.shape[:-1], len(weight)), x.new_empty(*x.shape[:-1], a.shape[1])


@torch.library.custom_op("slimfed::adapted_slopes", mutates_args=())
def _slopes(
    x: torch.Tensor, hidden: torch.Tensor, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, slope: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    kept = _Context(x, hidden, a, b)
    kept.weight = lambda: weight
    found = AdaptedProduct.backward(kept, slope)
    return found[0], found[3], found[4].contiguous()  # type: ignore[return-value, union-attr]


@_slopes.register_fake
def _(x: Any, hidden: Any, weight: Any, a: Any, b: Any, slope: Any) -> Any:
    return torch.empty_like(x), torch.empty_like(a), torch.empty_like(b)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    x, weight, _, a, b = inputs
    ctx.save_for_backward(x, output[1], weight, a, b)


def _back(ctx: Any, slope: torch.Tensor, _hidden_slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    x_slope, a_slope, b_slope = _slopes(*ctx.saved_tensors, slope.contiguous())
    return x_slope, None, None, a_slope, b_slope


_product.register_autograd(_back, setup_context=_keep)


class _Whole:
    """In the place of :class:`AdaptedProduct`."""

    @staticmethod
    def apply(
        x: torch.Tensor, weight: Source, bias: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor
    ) -> torch.Tensor:
        """The product."""
        return _product(x, weight(), bias, a, b)[0]


def measure(case: Case, dynamic: bool) -> str:
    """A row of the table."""
    config = copy.deepcopy(case.config)
    config.num_hidden_layers = 2
    work = prepare(replace(case, config=config))
    ranks = [assignment.rank for assignment in work.assignments]
    structures = [assignment.structure for assignment in work.assignments]
    cohort = attach_cohort(
        work.base.model, Members(work.adapters, structures, ranks), work.task.adapter, torch.bfloat16
    )
    backbone = cohort.model.base_model.train()
    shape = case.devices * case.batch, case.length, config.hidden_size
    x, slope = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    plain, found = _recorded(backbone, x, slope)
    started = time.perf_counter()
    with patch.object(batched_layers, "AdaptedProduct", _Whole):
        for layer in backbone.get_submodule(FAMILIES[work.blueprint.family].layers):
            layer.compile(dynamic=dynamic)
        compiled, expected = _recorded(backbone, x, slope)
    took = time.perf_counter() - started
    apart = max(float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True))
    times: dict[Callable[[], None], list[float]] = {replay: [] for replay in (plain, compiled)}
    for _ in range(20):
        for replay, seconds in times.items():
            seconds.append(seconds_of(replay))
    first, second = (1e3 * median(seconds) for seconds in times.values())
    return f"| {case.title} | {first:.2f} | {second:.2f} | {second / first - 1:+.0%} | {took:.0f} | {apart:.0e} |"


def _recorded(
    backbone: PreTrainedModel, x: torch.Tensor, slope: torch.Tensor
) -> tuple[Callable[[], None], list[torch.Tensor]]:
    """Forward and backward as a graph, and the gradients that it finds."""
    start = x.clone().requires_grad_()
    trained = [start, *(parameter for parameter in backbone.parameters() if parameter.requires_grad)]
    asked = without_cache(backbone)
    length = x.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril().expand(len(x), 1, length, length)
    mask = causal if asked else None  # ready made: while it is recorded, transformers would make one, and not before

    def step() -> list[torch.Tensor]:
        states = backbone(inputs_embeds=start, attention_mask=mask, **asked).last_hidden_state
        return list(torch.autograd.grad(states, trained, slope))

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    graph.replay()
    torch.cuda.synchronize()

    def replay() -> None:
        assert step  # and so all that the graph reads is still there
        graph.replay()

    return replay, [tensor.float().clone() for tensor in found]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--dynamic", action="store_true")
    options = parser.parse_args()
    need_gpu(parser)
    print("| two layers of | as they are, ms | compiled, ms | change | compiling takes, s | gradients differ by |")
    print("|---|---|---|---|---|---|")
    for name in options.cases:
        print(measure(CASES[name], options.dynamic), flush=True)
    print(f"\n{torch.cuda.get_device_name()}; torch {torch.__version__}; medians of 20.")


if __name__ == "__main__":
    main()
