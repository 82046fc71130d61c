"""The sliced decoder as one GGUF file, for llama.cpp and what reads its format, with a Modelfile for Ollama.

A GGUF file says heads and channels once for all layers, so the structure must be uniform.
"""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from slimfed.clients.data.chat import stop_tokens
from slimfed.clients.data.conversations import uses_template
from slimfed.clients.errors import InputError
from slimfed.clients.export import manifest as manifests
from slimfed.clients.export.atomic_folder import whole_folder
from slimfed.clients.export.files.gguf_assumptions import check_assumptions
from slimfed.clients.export.files.gguf_vocabulary import add_vocabulary
from slimfed.clients.export.files.gguf_weights import FILE_TYPES, add_tensor
from slimfed.clients.export.files.safetensors import load_tokenizer, skeleton
from slimfed.clients.export.manifest import CARD, Manifest
from slimfed.clients.export.prompt_format import modelfile
from slimfed.clients.export.slim_model import SlimModel
from slimfed.clients.export.stock_config import FFN_FIELD, stock_config
from slimfed.clients.export.vocabulary.model import with_vocabulary
from slimfed.clients.models.discovery import discover
from slimfed.clients.pruning.model_slicing import slice_model

FILE = "model.gguf"
MODELFILE = "Modelfile"
# By model type of transformers: the architecture's name there, and whether rotary pairs lie side by side.
_ARCHITECTURES = {
    "llama": (gguf.MODEL_ARCH.LLAMA, True),
    "mistral": (gguf.MODEL_ARCH.LLAMA, True),
    "qwen2": (gguf.MODEL_ARCH.QWEN2, False),
    "qwen3": (gguf.MODEL_ARCH.QWEN3, False),
    "gpt2": (gguf.MODEL_ARCH.GPT2, False),
    "gemma": (gguf.MODEL_ARCH.GEMMA, False),
    "gemma3_text": (gguf.MODEL_ARCH.GEMMA3, False),
}
TYPES = tuple(_ARCHITECTURES)
"""Model types of transformers that can be written."""


def save_gguf(slim: SlimModel, folder: Path, card: str) -> Manifest:
    """Write ``folder`` with the file, the tokenizer, manifest and card; complete or not at all.

    Raises ``InputError`` if the model is no decoder of a type known here, its layers differ, llama.cpp computes it in
    another way, or
    llama.cpp cannot repeat its tokenizer.
    """
    config = _config(slim)
    with whole_folder(folder) as aside:
        slim.tokenizer.save_pretrained(aside)
        config.save_pretrained(aside)
        _write(slim, config, aside)
        (aside / MODELFILE).write_text(modelfile(slim.manifest, slim.tokenizer, FILE), encoding="utf-8")
        (aside / CARD).write_text(card, encoding="utf-8")
        return manifests.write(aside, slim.manifest.model_copy(update={"kind": "gguf"}))


def load_gguf(folder: Path, manifest: Manifest) -> SlimModel:
    """Read the file back into a transformers model. Raises ``InputError`` naming a tensor that does not fit."""
    dense = skeleton(manifest)
    model = slice_model(dense, manifest.structure(discover(dense)))
    model = with_vocabulary(model, manifest)
    config = stock_config(model.config, manifest.structure(discover(dense)))
    if config is None or manifest.base.model_type not in _ARCHITECTURES:
        raise InputError(f"{str(folder)!r}: its structure is not one that GGUF can say; export the model again")
    reader = gguf.GGUFReader(folder / FILE)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    transposed = _transposed(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            stored = tensors.pop(_stored_name(config, name), None)
            if stored is None:
                raise InputError(f"{str(folder)!r}: tensor {name} is missing from {FILE}; export the model again")
            value = gguf.quants.dequantize(stored.data, stored.tensor_type).reshape(tuple(stored.shape[::-1]))
            if name in transposed:
                value = value.T
            value = _norm(_rotary(value, name, config, back=True), name, config, back=True)
            if value.shape != tuple(parameter.shape):
                raise InputError(
                    f"{str(folder)!r}: tensor {name} has shape {list(value.shape)}, the kept structure wants "
                    f"{list(parameter.shape)}; export the model again"
                )
            parameter.copy_(torch.from_numpy(np.array(value)))
    if tensors:
        raise InputError(f"{str(folder)!r}: tensor {next(iter(tensors))} in {FILE} does not belong to the model")
    model.requires_grad_(False)
    return SlimModel(model.eval(), load_tokenizer(folder, manifest), manifest)


def _config(slim: SlimModel) -> PreTrainedConfig:
    """The sliced model's configuration, if GGUF can say all of it."""
    model_type, wanted = slim.model.config.model_type, ", ".join(_ARCHITECTURES)
    if slim.manifest.task != "causal-lm" or model_type not in _ARCHITECTURES:
        raise InputError(
            f"--format = 'gguf': {slim.manifest.task} with a {model_type} model cannot be written; valid: causal-lm "
            f"with {wanted}; export onnx or safetensors"
        )
    if slim.manifest.width is not None:
        raise InputError("--format = 'gguf': a model of cut width cannot be written; export safetensors or onnx")
    config = stock_config(slim.model.config, slim.manifest.structure(discover(skeleton(slim.manifest))))
    if config is None:
        raise InputError(
            "--format = 'gguf': layers keep different numbers of heads or channels; train with "
            'pruning.scope = "uniform", or export onnx or safetensors'
        )
    kind = _rope(config).get("rope_type", "default")
    if kind != "default":
        raise InputError(f"--format = 'gguf': rotary scaling {kind!r} is not written; export onnx or safetensors")
    check_assumptions(config)
    return config


def _write(slim: SlimModel, config: PreTrainedConfig, folder: Path) -> None:
    architecture, _ = _architecture(config)
    writer = gguf.GGUFWriter(folder / FILE, gguf.MODEL_ARCH_NAMES[architecture])
    writer.add_name(f"{slim.manifest.provenance.name} {slim.manifest.provenance.subject}")
    writer.add_file_type(FILE_TYPES[slim.manifest.weights])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(getattr(config, FFN_FIELD.get(config.model_type, "intermediate_size")))
    writer.add_head_count(config.num_attention_heads)
    if config.model_type == "gpt2":
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        _add_llama_like(writer, config)
    writer.add_vocab_size(config.vocab_size)
    add_vocabulary(writer, slim.tokenizer, config.vocab_size, folder)
    if uses_template(slim.manifest.data):
        writer.add_eot_token_id(stop_tokens(slim.tokenizer)[0])
    tied, weights = bool(config.tie_word_embeddings), slim.manifest.weights
    transposed = _transposed(slim.model)
    for name, parameter in slim.model.named_parameters():
        value = _norm(_rotary(parameter.detach().float().numpy(), name, config), name, config)
        if name in transposed:
            value = np.ascontiguousarray(value.T)
        add_tensor(writer, _stored_name(config, name), value, weights, config.num_hidden_layers, tied)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_llama_like(writer: gguf.GGUFWriter, config: PreTrainedConfig) -> None:
    """What a model with rotary positions and grouped queries says of itself."""
    head_dim = _head_width(config)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(_rope(config)["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if config.model_type == "gemma3_text":
        writer.add_sliding_window(config.sliding_window)


def _architecture(config: PreTrainedConfig) -> tuple[gguf.MODEL_ARCH, bool]:
    """The architecture's name in the file, and whether rotary pairs lie side by side.

    llama.cpp's Qwen2 has queries as wide as the hidden states, which they are not once heads are removed. Its Llama has
    no such limit, and adds biases where a file has them, so it computes the same.
    """
    if config.model_type == "qwen2" and config.num_attention_heads * _head_width(config) != config.hidden_size:
        return _ARCHITECTURES["llama"]
    return _ARCHITECTURES[config.model_type]


def _head_width(config: PreTrainedConfig) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _stored_name(config: PreTrainedConfig, name: str) -> str:
    architecture, _ = _architecture(config)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise InputError(f"--format = 'gguf': tensor {name} has no name in a {config.model_type} file")
    return found


def _rotary(value: np.ndarray, name: str, config: PreTrainedConfig, back: bool = False) -> np.ndarray:
    """Rows of queries and keys in the order of the format's rotary embedding (halves become pairs), or ``back``."""
    _, pairs = _architecture(config)
    if not pairs:
        return value
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = next((n for part, n in heads.items() if f".{part}." in name), 0)
    if not count:
        return value
    half = value.shape[0] // count // 2
    split = value.reshape(count, *((half, 2) if back else (2, half)), *value.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(value.shape))


def _rope(config: PreTrainedConfig) -> dict[str, Any]:
    """The rotary embedding; of a model with two, that of the layers with full attention."""
    found: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    return found.get("full_attention", found)


def _norm(value: np.ndarray, name: str, config: PreTrainedConfig, back: bool = False) -> np.ndarray:
    """Weights of norms as the format has them: Gemma's model adds one to them, llama.cpp does not; or ``back``."""
    if not config.model_type.startswith("gemma") or "norm" not in name.rsplit(".", 2)[-2]:
        return value
    return value - 1 if back else value + 1


def _transposed(model: PreTrainedModel) -> set[str]:
    """Weights that GPT-2 keeps as inputs times outputs; the format has outputs times inputs."""
    return {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}
