"""A model without the rows of its embeddings that belong to tokens it no longer has."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from slimfed.clients.errors import InputError
from slimfed.clients.export.manifest import NAME, Manifest

_LISTS = ("suppress_tokens", "begin_suppress_tokens")


def fixed_tokens(model: PreTrainedModel) -> set[int]:
    """Tokens that a model's configuration names, and those before RoBERTa's pad token.

    RoBERTa counts positions from the number of its pad token, which must therefore stay.
    """
    named = [config for config in (model.config, getattr(model, "generation_config", None)) if config is not None]
    found = {index for config in named for _, ids in _special(config) for index in _as_list(ids)}
    if "roberta" in model.config.model_type and model.config.pad_token_id is not None:
        found |= set(range(model.config.pad_token_id))
    return found


def with_vocabulary(model: PreTrainedModel, manifest: Manifest) -> PreTrainedModel:
    """``model`` with the tokens that a manifest says are left. Raises ``InputError`` if they are none of its own."""
    if manifest.vocabulary is None:
        return model
    kept = np.asarray(manifest.vocabulary.kept, dtype=np.int64)
    rows = model.get_input_embeddings().weight.shape[0]
    if not len(kept) or kept[0] < 0 or kept[-1] >= rows or np.any(np.diff(kept) < 1):
        raise InputError(
            f"{NAME}: vocabulary.kept are not ascending tokens of the base's {rows}; export the model again"
        )
    return trimmed_model(model, kept)


def trimmed_model(model: PreTrainedModel, kept: Sequence[int] | np.ndarray) -> PreTrainedModel:
    """A copy whose tokens are ``kept``, ascending ids of ``model``; all other tensors are shared. Ties stay.

    ``model`` itself is not changed.
    """
    shared: list[torch.Tensor] = [*model.parameters(), *model.buffers()]
    trimmed = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    rows = torch.as_tensor(np.asarray(kept, dtype=np.int64))
    before = model.get_input_embeddings().weight.shape[0]
    place = {int(index): new for new, index in enumerate(rows.tolist())}
    into, out = trimmed.get_input_embeddings(), _output(trimmed)
    _keep_rows(trimmed, [into, *([] if out is None else [out])], rows)
    into.num_embeddings = len(rows)
    if out is not None and hasattr(out, "out_features"):
        out.out_features = len(rows)
    for module in trimmed.modules():
        for name in ("padding_idx", "vocab_size"):
            value = getattr(module, name, None)
            if isinstance(value, int) and (name == "padding_idx" or value == before):
                setattr(module, name, len(rows) if name == "vocab_size" else place.get(value))
    _renumber(trimmed.config, place)
    trimmed.config.vocab_size = len(rows)
    if getattr(trimmed, "generation_config", None) is not None:
        _renumber(trimmed.generation_config, place)
    return trimmed


def _output(model: PreTrainedModel) -> Any:
    """The output embedding of a decoder; None for a classifier, whose head has labels."""
    found = model.get_output_embeddings()
    rows = model.get_input_embeddings().weight.shape[0]
    return found if found is not None and found.weight.shape[0] == rows else None


def _keep_rows(model: nn.Module, modules: Sequence[nn.Module], rows: torch.Tensor) -> None:
    """Cut the parameters of ``modules``, wherever in ``model`` they are."""
    old = {id(parameter): parameter for module in modules for parameter in module.parameters(recurse=False)}
    new = {key: nn.Parameter(each.detach().index_select(0, rows), requires_grad=False) for key, each in old.items()}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) in new:
                module._parameters[name] = new[id(parameter)]


def _special(config: Any) -> list[tuple[str, Any]]:
    """Names and values of the fields of a configuration that hold tokens' ids."""
    names = [name for name in vars(config) if name.endswith("_token_id") or name in _LISTS]
    return [(name, getattr(config, name)) for name in names if getattr(config, name) is not None]


def _as_list(ids: Any) -> list[int]:
    return [int(index) for index in (ids if isinstance(ids, list | tuple) else [ids])]


def _renumber(config: PreTrainedConfig | Any, place: dict[int, int]) -> None:
    for name, ids in _special(config):
        found = [place[index] for index in _as_list(ids) if index in place]
        whole = found if isinstance(ids, list | tuple) else (found[0] if found else None)
        setattr(config, name, whole)
