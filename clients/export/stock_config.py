"""Structures that a stock configuration can express, so that plain ``from_pretrained`` opens them.

A configuration holds one number of heads and one of FFN channels for all layers. Llama-like models may have any number
of heads if ``head_dim`` is explicit. BERT-like models and GPT-2 compute the width of a head as hidden size / heads, so
they cannot express fewer heads, but fewer FFN channels.
"""

import copy

from transformers import PreTrainedConfig

from slimfed.clients.structure import Structure

# By model type: the field of the FFN's width, and whether heads can be fewer than hidden size / head width.
FFN_FIELD = {"distilbert": "hidden_dim", "gpt2": "n_inner", "opt": "ffn_dim"}
FREE_HEADS = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")


def uniform_counts(structure: Structure) -> tuple[int, int] | None:
    """Attention units and FFN channels that every layer keeps; ``None`` if layers differ."""
    counts: dict[str, set[int]] = {"attention": set(), "ffn": set()}
    for index, block in enumerate(structure.blueprint.blocks):
        counts[block.kind].add(len(structure.kept(index)))
    if any(len(each) != 1 for each in counts.values()):
        return None
    return counts["attention"].pop(), counts["ffn"].pop()


def stock_config(config: PreTrainedConfig, structure: Structure) -> PreTrainedConfig | None:
    """The configuration of the sliced model, from that of the unpruned one; ``None`` if no configuration can say it."""
    counts = uniform_counts(structure)
    if counts is None:
        return None
    units, channels = counts
    attention = structure.blueprint.blocks[0]
    sliced = copy.deepcopy(config)
    setattr(sliced, FFN_FIELD.get(config.model_type, "intermediate_size"), channels)
    if units == attention.units:
        return sliced
    if config.model_type not in FREE_HEADS:
        return None
    sliced.head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    sliced.num_attention_heads = config.num_attention_heads // attention.units * units
    sliced.num_key_value_heads = units
    return sliced
