"""A pruned model in memory, with its tokenizer and manifest."""

from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from slimfed.clients.export.manifest import Manifest


@dataclass(frozen=True)
class SlimModel:
    """A plain transformers model, sliced, its adapter folded in, and what belongs to it.

    It runs and generates as any model of its type; only its shapes differ from its configuration.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    manifest: Manifest
