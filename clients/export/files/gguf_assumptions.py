"""What llama.cpp takes for granted of a type of model, which a file cannot say otherwise."""

from typing import Any

from transformers import PreTrainedConfig

from slimfed.clients.errors import InputError

_PERIOD = 6  # every sixth layer of a Gemma 3 attends to the whole text
_LOCAL_THETA = 10_000.0
_GELU, _GELU_OLD = "gelu_pytorch_tanh", "gelu_new"  # one function, two names


def check_assumptions(config: PreTrainedConfig) -> None:
    """Raise ``InputError`` if ``config`` differs from what llama.cpp computes for its type."""
    assumed = {"gpt2": _gpt2, "gemma": _gemma, "gemma3_text": _gemma3}.get(config.model_type)
    for name, (value, valid) in (assumed(config) if assumed is not None else {}).items():
        if value not in valid:
            raise InputError(
                f"--format = 'gguf': {name} = {value!r}: llama.cpp computes every {config.model_type} model with "
                f"{valid[0]!r}; export onnx or safetensors"
            )


def _gpt2(config: PreTrainedConfig) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    return {
        "activation_function": (config.activation_function, (_GELU_OLD, _GELU)),
        "scale_attn_weights": (config.scale_attn_weights, (True,)),
        "scale_attn_by_inverse_layer_idx": (config.scale_attn_by_inverse_layer_idx, (False,)),
    }


def _gemma(config: PreTrainedConfig) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    activation = getattr(config, "hidden_activation", None) or config.hidden_act
    return {"hidden_activation": (activation, (_GELU, _GELU_OLD))}


def _gemma3(config: PreTrainedConfig) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    layers = [_kind(number) for number in range(len(config.layer_types))]
    local = config.rope_parameters.get("sliding_attention", {})
    return {
        "layer_types": (list(config.layer_types), (layers,)),
        "query_pre_attn_scalar": (config.query_pre_attn_scalar, (config.head_dim,)),
        "attn_logit_softcapping": (config.attn_logit_softcapping, (None,)),
        "final_logit_softcapping": (config.final_logit_softcapping, (None,)),
        "hidden_activation": (config.hidden_activation, (_GELU, _GELU_OLD)),
        "rope_parameters.sliding_attention.rope_theta": (local.get("rope_theta"), (_LOCAL_THETA,)),
        "rope_parameters.sliding_attention.rope_type": (local.get("rope_type", "default"), ("default",)),
    }


def _kind(layer: int) -> str:
    return "full_attention" if (layer + 1) % _PERIOD == 0 else "sliding_attention"
