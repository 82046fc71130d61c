"""Small random models of every supported family, built from configs: no hub, no weights."""

import copy

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    ModernBertConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    SmolLM3Config,
)

VOCABULARY = 120
_TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_BERT = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 6, "intermediate_size": 40} | _TOKENS
_LLAMA = _BERT | {"num_key_value_heads": 3, "intermediate_size": 36}

CONFIGS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**_BERT),
    "roberta": RobertaConfig(**_BERT),
    "distilbert": DistilBertConfig(dim=48, n_layers=2, n_heads=6, hidden_dim=40, **_TOKENS),
    "llama": LlamaConfig(**_LLAMA),
    "mistral": MistralConfig(**_LLAMA),
    "qwen2": Qwen2Config(**_LLAMA),
    "qwen3": Qwen3Config(**_LLAMA, head_dim=16),
    "gemma": GemmaConfig(**_LLAMA, head_dim=16),
    "gpt2": GPT2Config(n_embd=48, n_layer=2, n_head=6, **_TOKENS),
}
DECODERS = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gpt2")

_SLIDING = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
# Kin of those above: each is tried in fewer tests.
KIN: dict[str, PreTrainedConfig] = {
    "gemma2": Gemma2Config(**_LLAMA, **_SLIDING, head_dim=8),
    "gemma3_text": Gemma3TextConfig(**_LLAMA, **_SLIDING, head_dim=8),
    "smollm3": SmolLM3Config(**_LLAMA, no_rope_layers=[1, 0]),
    "granite": GraniteConfig(
        **_LLAMA, embedding_multiplier=2.0, residual_multiplier=0.5, attention_multiplier=0.3, logits_scaling=3.0
    ),
    "opt": OPTConfig(
        **_TOKENS,
        hidden_size=48,
        word_embed_proj_dim=32,
        num_hidden_layers=2,
        num_attention_heads=6,
        ffn_dim=40,
        dropout=0.0,
    ),
    "electra": ElectraConfig(**_BERT, embedding_size=32),
    "modernbert": ModernBertConfig(**_BERT, cls_token_id=1, sep_token_id=2, **_SLIDING),
}
# As llama.cpp takes every Gemma 3 to be: five layers of six have a window.
SIX_LAYERS: dict[str, PreTrainedConfig] = {
    "gemma3-six": Gemma3TextConfig(
        **_LLAMA | {"num_hidden_layers": 6},
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=4,
        layer_types=["sliding_attention"] * 5 + ["full_attention"],
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
    )
}
KIN_DECODERS = ("gemma2", "gemma3_text", "smollm3", "granite", "opt")


def build(family: str, causal: bool = False, seed: int = 0, vocabulary: int = VOCABULARY) -> PreTrainedModel:
    """A frozen random model without dropout; biases are random too, so that forgetting one shows."""
    torch.manual_seed(seed)
    kind = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    config = copy.deepcopy((CONFIGS | KIN | SIX_LAYERS)[family])
    config.vocab_size = vocabulary
    model = kind.from_config(config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    return model.requires_grad_(False)


def tokens(seed: int = 0, rows: int = 3, length: int = 9) -> dict[str, torch.Tensor]:
    """A batch with one padded row."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (rows, length), generator=draw)
    mask = torch.ones_like(ids)
    ids[-1, -3:], mask[-1, -3:] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}
