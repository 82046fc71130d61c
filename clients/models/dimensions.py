"""The sizes of a (sliced) model, read from an unpruned one, for :mod:`slimfed.clients.models.cost`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation

from slimfed.clients.models.cost import Dimensions
from slimfed.clients.models.linear import bias_of, is_linear, shape_of
from slimfed.clients.models.quantised_base import quantised_linears
from slimfed.clients.structure import Block, Blueprint, Structure

# Additional numbers for each channel that GELU in elementary operations (GPT-2) keeps, compared with a fused one.
_KEPT_BY_ELEMENTARY_GELU = 3


@dataclass(frozen=True)
class _Anatomy:
    """The parts of a model: (name, rows, columns, has a bias, is the output embedding) of its linears, and more.

    ``quantised``: (side of its units, bytes of a unit) by module; none if the base is not quantised.
    """

    linears: tuple[tuple[str, int, int, bool, bool], ...]
    elementary_gelu: bool
    head_norms: bool
    parameters: int
    quantised: Mapping[str, tuple[str, int]]


@lru_cache(maxsize=1)
def _anatomy(model: PreTrainedModel) -> _Anatomy:
    """Walks through all modules; cached, as many structures of one model are measured."""
    unembedding = model.get_output_embeddings()
    linears = []
    for name, module in model.named_modules():
        if is_linear(module):
            linears.append((name, *shape_of(module), bias_of(module) is not None, module is unembedding))
    quantised = {name: (module.side, module.row_bytes) for name, module in quantised_linears(model)}
    held = sum(rows * columns for name, rows, columns, *_ in linears if name in quantised)
    return _Anatomy(
        tuple(linears),
        any(isinstance(module, NewGELUActivation) for module in model.modules()),
        any(name.endswith(".q_norm") for name, _ in model.named_modules()),
        sum(p.numel() for p in model.parameters()) + held,
        quantised,
    )


def measure(
    model: PreTrainedModel, blueprint: Blueprint, structure: Structure, targets: Sequence[str] | None = None
) -> Dimensions:
    """The sizes of ``model`` (unpruned) sliced to ``structure``; no weight is read.

    ``targets``: the modules that carry an adapter; None: all that can be pruned.
    """
    kept = structure.indices()
    adapted = set(blueprint.modules)
    anatomy = _anatomy(model)
    shapes = {}
    token_weights = head_weights = removed = logits = 0
    for name, rows, columns, bias, unembeds in anatomy.linears:
        if name in adapted:
            out, into = len(kept.get((name, "out"), range(rows))), len(kept.get((name, "in"), range(columns)))
            shapes[name] = out, into
            token_weights += out * into
            removed += rows * columns - out * into + (rows - out if bias else 0)
        elif unembeds:
            token_weights += rows * columns
            logits = rows
        else:
            head_weights += rows * columns
    layers: dict[int, int] = {}
    for block in blueprint.blocks:
        kept_here = _activations(block, shapes, anatomy.elementary_gelu, anatomy.head_norms)
        layers[block.layer] = layers.get(block.layer, 0) + kept_here
    width = shapes[blueprint.modules[0]][1]
    quantised = [shapes[name] for name in anatomy.quantised]
    carrying = shapes.keys() if targets is None else set(targets)
    return Dimensions(
        token_weights=token_weights,
        head_weights=head_weights,
        adapter_parameters_per_rank=sum(sum(shapes[name]) for name in carrying),
        adapted_weights=sum(out * into for out, into in shapes.values()),
        adapted_modules=len(carrying),
        kept_head_width=sum(shapes[b.cuts[-1].module][1] for b in blueprint.blocks if b.kind == "attention"),
        activations=sum(layers.values()),
        layer_inputs=width * len(layers),
        largest_layer=max(layers.values()),
        layers=len(layers),
        logits=logits,
        parameters=anatomy.parameters - removed,
        bytes_per_weight=model.dtype.itemsize,
        quantised_weights=sum(out * into for out, into in quantised),
        quantised_bytes=sum(
            shapes[name][0 if side == "out" else 1] * each for name, (side, each) in anatomy.quantised.items()
        ),
        largest_quantised=max((out * into for out, into in quantised), default=0),
    )


def _activations(block: Block, shapes: dict[str, tuple[int, int]], elementary: bool, head_norms: bool) -> int:
    """Numbers that one block keeps of each token for the backward pass.

    Its input (shared by the projections), their outputs, the input of the output projection, and the sum with the
    residual, which the norm needs. Attention scores are recomputed by fused kernels. Norms of queries and keys (Qwen3,
    Gemma3) keep both once more; a gated FFN keeps its activated gate as well.
    """
    *ups, down = block.cuts
    width, inner = shapes[ups[0].module][1], shapes[down.module][1]
    kept = 2 * width + sum(shapes[cut.module][0] for cut in ups) + inner
    if block.kind == "attention" and head_norms:
        kept += shapes[ups[0].module][0] + shapes[ups[1].module][0]
    if block.kind == "ffn":
        gated = sum(len(cut.starts) for cut in ups) > 1
        kept += inner * (gated + _KEPT_BY_ELEMENTARY_GELU * elementary)
    return kept
