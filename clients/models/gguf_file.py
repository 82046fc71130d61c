"""A decoder in a GGUF file, as llama.cpp runs it: dequantised once, into a folder that ``from_pretrained`` reads.

The folder is in the cache of the user (``SLIMFED_CACHE``; default ``~/.cache/slimfed``) under the SHA-256 of the file,
so that a second run, and every worker of a machine, maps the same weights. The tokenizer gets the file's own rule for
splitting a text, which transformers leaves out for some names.
"""

import json
import os
import shutil
import tempfile
from collections import Counter
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.initialization import no_init_weights

from slimfed.clients.errors import InputError
from slimfed.clients.models.gguf_cache import Precision, check_file, folder_of, sha256_of

_DIGITS_APART = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
_LIKE_GPT2 = ("gpt-2", "phi-2", "olmo", "default", "mellum", "modern-bert", "gigachat", "a.x-4.0")
_UNMERGED_WORDS = ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken")
_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token", "chat_template")
_UNUSED = 5  # gguf.TokenType.UNUSED: a row of the embedding that no token has
_LAYERS_OF_27B = 62
_ROTARY = "rope_freqs.weight"
_READ_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError, OverflowError)


@dataclass(frozen=True)
class GgufFile:
    """A file that was dequantised. ``folder``: where to. ``weights``: the type of most of its weights, as "Q4_K".

    ``precision``: the type of 16 or 32 bits that holds such weights.
    """

    file: Path
    sha256: str
    folder: Path
    weights: str

    @property
    def precision(self) -> Precision:
        """fp32 or bf16 if the file has these; else fp16, in which llama.cpp keeps the scales of its blocks."""
        wide: dict[str, Precision] = {"F32": "fp32", "BF16": "bf16"}
        return wide.get(self.weights, "fp16")

    def __str__(self) -> str:
        return f"{self.file.name} (GGUF, {self.weights}, SHA-256 {self.sha256})"


def dequantised(file: Path) -> GgufFile:
    """The folder with the weights of ``file`` in fp32, made now if the cache does not have it.

    Raises :class:`InputError` for a file that is none, damaged, of several parts, or of a model or a tokenizer that
    cannot be read from GGUF, and if the cache cannot be written.
    """
    check_file(file)
    sha256 = sha256_of(file)
    try:
        import gguf
    except ImportError:
        raise InputError(f'model.path = "{file}": needs the package gguf: pip install "slimfed[export]"') from None
    try:
        reader = gguf.GGUFReader(file)
    except Exception as error:  # it reads sizes from the file, and fails in as many ways as there are damages
        raise _unreadable(file, error) from None
    found = GgufFile(file, sha256, folder_of(sha256), _type_of_most(reader))
    if not found.folder.is_dir():
        _write(found, reader)
    return found


def _type_of_most(reader: Any) -> str:
    """The type of most of the weights in matrices: vectors are never quantised."""
    sizes: Counter[str] = Counter()
    for tensor in reader.tensors:
        if len(tensor.shape) > 1:
            sizes[tensor.tensor_type.name] += int(tensor.n_elements)
    return sizes.most_common(1)[0][0] if sizes else "F32"


def _write(found: GgufFile, reader: Any) -> None:
    """Write the folder, complete or not at all; another process may write the same at the same time."""
    aside = found.folder.with_name(f".{found.folder.name}-{os.getpid()}")
    try:
        aside.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f'model.path = "{found.file}": its weights cannot be written to {str(found.folder.parent)!r} '
            f"({error.strerror}); name a folder that can, with SLIMFED_CACHE"
        ) from None
    try:
        # Alone in a folder: transformers would read a tokenizer or a configuration beside the file in its place.
        with tempfile.TemporaryDirectory() as place, redirect_stderr(StringIO()):  # progress bars have no switch
            alone = Path(place) / found.file.name
            alone.symlink_to(found.file.resolve())
            _convert(alone, reader, aside)
        if not found.folder.is_dir():
            aside.rename(found.folder)
    except OSError as error:
        if not found.folder.is_dir():
            raise _unreadable(found.file, error) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _convert(file: Path, reader: Any, folder: Path) -> None:
    """Write the model of ``file``, which is alone in its folder, into ``folder``."""
    try:
        if _field(reader, "split.count", 1) > 1:
            raise InputError(f'model.path = "{file}": is one of several parts; join them with llama-gguf-split --merge')
        config = _config(file, reader)
        tokenizer = _tokenizer(file, reader)
        loaded = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, config=config, dtype=torch.float32, trust_remote_code=False
        )
    except _READ_ERRORS as error:
        raise _unreadable(file, error) from None
    kept = sum(int(tensor.n_elements) for tensor in reader.tensors if tensor.name != _ROTARY)
    if kept != sum(parameter.numel() for parameter in loaded.parameters()):
        raise InputError(
            f'model.path = "{file}": it holds {kept:,} weights, but a {config.model_type} model of its sizes has '
            f"{sum(p.numel() for p in loaded.parameters()):,}: it has tensors that such a model has not"
        )
    # transformers takes the loaded model for a quantised one and would not save it.
    plain = type(config).from_dict({k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"})
    with no_init_weights():
        fresh = type(loaded)(plain)
    fresh.load_state_dict(loaded.state_dict(), assign=True)
    fresh.tie_weights()
    fresh.generation_config = loaded.generation_config
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _config(file: Path, reader: Any) -> PreTrainedConfig:
    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    width = _field(reader, f"{_field(reader, 'general.architecture', '')}.attention.key_length", None)
    if width is not None and hasattr(config, "head_dim"):
        config.head_dim = int(width)
    if config.model_type == "gemma3_text":
        # As llama.cpp does; the file does not say it, and transformers takes 256 for all.
        wide = config.num_hidden_layers == _LAYERS_OF_27B
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads if wide else config.head_dim
    stretch = next((tensor for tensor in reader.tensors if tensor.name == _ROTARY), None)
    if stretch is not None:
        config.rope_parameters = _llama3_rope(file, config, np.asarray(stretch.data, np.float64))
    return config


def _llama3_rope(file: Path, config: PreTrainedConfig, factors: np.ndarray) -> dict[str, Any]:
    """Llama 3's rotary scaling, which a GGUF file stores as factors of the wave lengths only."""
    theta, factor = float(config.rope_parameters["rope_theta"]), float(factors.max())
    found = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    waves = 2 * np.pi * theta ** (np.arange(len(factors)) / len(factors))
    smooth = (8192 / waves - 1.0) / (4.0 - 1.0)
    between = 1.0 / ((1.0 - smooth) / factor + smooth)
    expected = np.where(waves < 8192 / 4.0, 1.0, np.where(waves > 8192 / 1.0, factor, between))
    if not np.allclose(factors, expected, rtol=1e-3):
        raise InputError(f'model.path = "{file}": {_ROTARY} is a rotary scaling other than that of Llama 3')
    return {"rope_type": "llama3", "rope_theta": theta, "factor": factor, **found}


def _tokenizer(file: Path, reader: Any) -> PreTrainedTokenizerBase:
    """The tokenizer with the rule that the file names. Raises ``InputError`` for a rule that is not known."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    if _field(reader, "tokenizer.ggml.model", "") != "gpt2":  # SentencePiece has no such rule
        return _with_file_tokens(tokenizer, _rows(reader, tokenizer))
    rule, inner = _field(reader, "tokenizer.ggml.pre", "default"), tokenizer.backend_tokenizer
    if rule in _DIGITS_APART:
        words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    elif rule not in _LIKE_GPT2 and rule not in GGUF_PRE_TOKENIZER_SPLITS:
        raise InputError(
            f'model.path = "{file}": its tokenizer splits a text by the rule {rule!r:.40}, which is not known here; '
            "give the folder of the original model"
        )
    inner.model.ignore_merges = rule in _UNMERGED_WORDS
    return _with_file_tokens(tokenizer, _rows(reader, tokenizer))


def _rows(reader: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokens of the file up to the last that is used."""
    kinds = _field(reader, "tokenizer.ggml.token_type", [])
    used = [index for index, kind in enumerate(kinds) if kind != _UNUSED]
    return max(used, default=len(tokenizer.backend_tokenizer.get_vocab()) - 1) + 1


def _with_file_tokens(tokenizer: PreTrainedTokenizerBase, rows: int) -> PreTrainedTokenizerBase:
    """Without what stands behind the first ``rows`` tokens: unused rows of the file, and what transformers adds."""
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    document["added_tokens"] = [each for each in document["added_tokens"] if each["id"] < rows]
    vocabulary = document["model"]["vocab"]
    document["model"]["vocab"] = {token: index for token, index in vocabulary.items() if index < rows}
    names = {name: getattr(tokenizer, name) for name in _NAMES}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(document)), **names)


def _field(reader: Any, name: str, default: Any) -> Any:
    field = reader.get_field(name)
    return default if field is None else field.contents()


def _unreadable(file: Path, error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(f'model.path = "{file}": cannot be read as GGUF: {reason}')
