"""The residual stream of a model: the modules that write to it, read it, and normalise over its width."""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from slimfed.clients.errors import InputError
from slimfed.clients.structure import Blueprint

_SCALED = "scales its embeddings by the square root of its width, which a narrower one would do differently"
# Families whose width cannot be cut, and why.
_UNCUTTABLE = {
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), _SCALED),
    "electra": "has embeddings of a width of their own (embeddings_project)",
    "modernbert": "has no norm in front of its first layer that could weigh a mask of its width",
    "opt": "adds positions from a table whose width may differ (decoder.project_in)",
}
_HEAD_READERS = ("classifier.dense", "pre_classifier", "score", "classifier")


@dataclass(frozen=True)
class ResidualStream:
    """Names of modules. ``entry`` sees the sum of the embeddings: as its input if it is a norm, else as its output.

    ``tables``: embeddings whose rows are summed. ``writers``: linear modules whose outputs are added to the stream.
    ``readers``: linear modules whose inputs it is. ``norms``: LayerNorms over it; ``rms``: RMSNorms over it.
    """

    width: int
    entry: str
    tables: tuple[str, ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    norms: tuple[str, ...]
    rms: tuple[str, ...]


def find_stream(model: PreTrainedModel, blueprint: Blueprint) -> ResidualStream:
    """The stream of an unpruned ``model``. Raises ``InputError`` for one whose width cannot be cut exactly."""
    if blueprint.family in _UNCUTTABLE:
        raise InputError(
            f'method.adapter = "pat": a {blueprint.family} model {_UNCUTTABLE[blueprint.family]}; use lora, sora or '
            "sparse, or another model"
        )
    prefix = f"{model.base_model_prefix}." if hasattr(model, model.base_model_prefix) else ""
    width = int(model.get_input_embeddings().weight.shape[1])
    modules = dict(model.named_modules())
    backbone = {name: module for name, module in modules.items() if name.startswith(prefix)}
    norms = tuple(n for n, m in backbone.items() if isinstance(m, nn.LayerNorm) and m.weight.shape == (width,))
    return ResidualStream(
        width=width,
        entry=next(name for name in (f"{prefix}{end}" for end in _ENTRIES) if name in modules),
        tables=tuple(n for n, m in backbone.items() if isinstance(m, nn.Embedding) and m.embedding_dim == width),
        writers=tuple(block.cuts[-1].module for block in blueprint.blocks),
        readers=(*_ups(blueprint), *_heads(model, prefix, modules)),
        norms=norms,
        rms=tuple(name for name, module in backbone.items() if _is_rms(name, module, width)),
    )


_ENTRIES = ("embeddings.LayerNorm", "drop", "embed_tokens")


def _ups(blueprint: Blueprint) -> list[str]:
    return list(dict.fromkeys(cut.module for block in blueprint.blocks for cut in block.cuts[:-1]))


def _heads(model: PreTrainedModel, prefix: str, modules: dict[str, nn.Module]) -> list[str]:
    """The module of the head that reads the stream."""
    unembedding = model.get_output_embeddings()
    if unembedding is not None:
        return [name for name, module in modules.items() if module is unembedding]
    names = (f"{prefix}pooler.dense", *_HEAD_READERS)
    return [next(name for name in names if isinstance(modules.get(name), nn.Module))]


def _is_rms(name: str, module: nn.Module, width: int) -> bool:
    weight = getattr(module, "weight", None)
    over_heads = name.endswith(("q_norm", "k_norm"))
    return type(module).__name__.endswith("RMSNorm") and weight is not None and len(weight) == width and not over_heads
