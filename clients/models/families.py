"""Names of the prunable modules in each model family. A new family is one entry."""

from dataclasses import dataclass, replace

from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Family:
    """Module names within one transformer layer.

    ``layers`` is the path of the layer list inside the backbone. Attention: ``query``/``key``/``value`` are cut at
    their outputs and ``output`` at its inputs; a fused projection names all three alike. FFN: every module of ``up`` is
    cut at its outputs (gate and up go together), ``down`` at its inputs. ``up_parts``: 2 if gate and up are row blocks
    of one projection (ModernBERT). ``between``: the module whose input is the residual stream between attention and
    FFN: the norm in front of the FFN, or where norms follow the sums, the first module of the FFN.
    """

    layers: str
    query: str
    key: str
    value: str
    output: str
    up: tuple[str, ...]
    down: str
    between: str
    up_parts: int = 1

    @property
    def fused(self) -> bool:
        """True if query, key and value are blocks of one projection (GPT-2, ModernBERT)."""
        return self.query == self.key

    def stream_between(self, layer: nn.Module) -> str:
        """``between`` for one ``layer``: one size of OPT has its norms behind the sums, unlike the others."""
        return self.between if getattr(layer, "do_layer_norm_before", True) else self.up[0]


_BERT = Family(
    layers="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    output="attention.output.dense",
    up=("intermediate.dense",),
    down="output.dense",
    between="intermediate.dense",
)
_LLAMA = Family(
    layers="layers",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    output="self_attn.o_proj",
    up=("mlp.gate_proj", "mlp.up_proj"),
    down="mlp.down_proj",
    between="post_attention_layernorm",
)
_DISTILBERT = Family(
    layers="transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    output="attention.out_lin",
    up=("ffn.lin1",),
    down="ffn.lin2",
    between="ffn.lin1",
)
_GPT2 = Family(
    layers="h",
    query="attn.c_attn",
    key="attn.c_attn",
    value="attn.c_attn",
    output="attn.c_proj",
    up=("mlp.c_fc",),
    down="mlp.c_proj",
    between="ln_2",
)
_OPT = Family(
    layers="decoder.layers",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    output="self_attn.out_proj",
    up=("fc1",),
    down="fc2",
    between="final_layer_norm",
)
_MODERNBERT = Family(
    layers="layers",
    query="attn.Wqkv",
    key="attn.Wqkv",
    value="attn.Wqkv",
    output="attn.Wo",
    up=("mlp.Wi",),
    down="mlp.Wo",
    between="mlp_norm",
    up_parts=2,
)
_GEMMA2 = replace(_LLAMA, between="pre_feedforward_layernorm")

# By ``config.model_type`` of transformers.
FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _BERT,
    "distilbert": _DISTILBERT,
    "electra": _BERT,
    "modernbert": _MODERNBERT,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
    "smollm3": _LLAMA,
    "granite": _LLAMA,
    "gpt2": _GPT2,
    "opt": _OPT,
}

ENCODERS = frozenset({"bert", "roberta", "distilbert", "electra", "modernbert"})
"""Families with bidirectional attention."""

REFUSED: dict[str, str] = {
    "albert": "all layers share one set of weights (encoder.albert_layer_groups), so no layer can be cut on its own",
    "phi3": "self_attn.qkv_proj holds queries, keys and values in blocks of unequal size, and its forward pass reads "
    "their sizes from the configuration, so heads cannot be cut",
}
"""Model types that cannot be pruned, with the module and the cause; any other type is merely not known."""


def without_cache(model: object) -> dict[str, bool]:
    """Arguments of a forward pass that switch off a decoder's cache of keys and values."""
    decoder = isinstance(model, PreTrainedModel) and model.config.model_type not in ENCODERS
    return {"use_cache": False} if decoder else {}
