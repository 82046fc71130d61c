"""Small random models of every supported family, built from configs: no hub, no weights."""

import copy

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
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


def build(family: str, causal: bool = False, seed: int = 0, vocabulary: int = VOCABULARY) -> PreTrainedModel:
    """A frozen random model without dropout; biases are random too, so that forgetting one shows."""
    torch.manual_seed(seed)
    kind = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    config = copy.deepcopy(CONFIGS[family])
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
