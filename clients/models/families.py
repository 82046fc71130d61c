"""Names of the prunable modules in each model family. A new family is one entry."""

from dataclasses import dataclass

from transformers import PreTrainedModel


@dataclass(frozen=True)
class Family:
    """Module names within one transformer layer.

    ``layers`` is the path of the layer list inside the backbone. Attention: ``query``/``key``/``value`` are cut at
    their outputs and ``output`` at its inputs; a fused projection names all three alike. FFN: every module of ``up`` is
    cut at its outputs (gate and up go together), ``down`` at its inputs.
    """

    layers: str
    query: str
    key: str
    value: str
    output: str
    up: tuple[str, ...]
    down: str

    @property
    def fused(self) -> bool:
        """True if query, key and value are column blocks of one projection (GPT-2)."""
        return self.query == self.key


_BERT = Family(
    layers="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    output="attention.output.dense",
    up=("intermediate.dense",),
    down="output.dense",
)
_LLAMA = Family(
    layers="layers",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    output="self_attn.o_proj",
    up=("mlp.gate_proj", "mlp.up_proj"),
    down="mlp.down_proj",
)
_DISTILBERT = Family(
    layers="transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    output="attention.out_lin",
    up=("ffn.lin1",),
    down="ffn.lin2",
)
_GPT2 = Family(
    layers="h",
    query="attn.c_attn",
    key="attn.c_attn",
    value="attn.c_attn",
    output="attn.c_proj",
    up=("mlp.c_fc",),
    down="mlp.c_proj",
)

# By ``config.model_type`` of transformers.
FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _BERT,
    "distilbert": _DISTILBERT,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
    "gemma3_text": _LLAMA,
    "gpt2": _GPT2,
}

ENCODERS = frozenset({"bert", "roberta", "distilbert"})
"""Families with bidirectional attention."""


def without_cache(model: object) -> dict[str, bool]:
    """Arguments of a forward pass that switch off a decoder's cache of keys and values."""
    decoder = isinstance(model, PreTrainedModel) and model.config.model_type not in ENCODERS
    return {"use_cache": False} if decoder else {}
