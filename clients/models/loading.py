"""Loading of the pre-trained model a run tunes: from slimfed itself, a folder, a GGUF file, an adapter, or the hub."""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import find_adapter_config_file
from transformers.utils import logging as transformers_logging

from slimfed.clients.errors import InputError
from slimfed.clients.models.gguf_cache import Precision
from slimfed.clients.models.location import ModelSource, base_spec, builtin_models, locate, model_folder, with_adapter
from slimfed.clients.models.peft_adapter import merged
from slimfed.clients.models.quantised_base import quantise_base
from slimfed.clients.models.start import Start
from slimfed.clients.seeds import derive
from slimfed.clients.spec import ModelSpec

_DROPOUTS = ("dropout", "drop_rate", "pdrop", "layerdrop")  # names in configurations, at any depth


@dataclass(frozen=True)
class LoadedModel:
    """A frozen base in fp32 and evaluation mode, without dropout, with its tokenizer and names.

    Its linear modules may be quantised (``quantised_linear.py``).
    ``head``: names of the parameters that are fully trained: the classifier, and a pooler that the checkpoint lacks;
    empty for causal-lm. ``labels``: names of the classes; ``None`` for causal-lm. ``positions``: the longest text in
    tokens that the model accepts; ``None`` if there is no limit. ``precision``: the type of the weights in the
    checkpoint (of a quantised one: that it is best kept in). ``origin``: the GGUF file or the adapter that the weights
    came from; empty if they were read as they are. ``start``: what was removed already from the finished model of a
    run; None for every other base.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...] | None
    head: tuple[str, ...]
    positions: int | None
    precision: Precision = "fp32"
    origin: str = ""
    start: Start | None = None

    @property
    def pad_id(self) -> int:
        """Id of the padding token."""
        return int(self.tokenizer.pad_token_id)  # load_model makes sure there is one


def load_model(spec: ModelSpec, labels: Sequence[str] | None, seed: int) -> LoadedModel:
    """Load ``spec`` for its task.

    A classifier gets one output for each of ``labels``; a head that the checkpoint lacks is initialised from ``seed``,
    equally in every process. Dropout of the base is 0, so that importance is measured on the exported function. Code
    from a checkpoint is never run, and weights are read from safetensors only. They are quantised if ``spec`` says so.

    Raises :class:`InputError` if it cannot be loaded; within seconds if the hub does not answer.
    """
    source = locate(spec)
    with quiet():
        tokenizer = _load_tokenizer(source)
        config = _load_config(source, spec, labels, tokenizer)
        model, missing = _load_weights(source, spec, config, seed)
    if source.start is not None and spec.task == "classification" and source.start.labels != tuple(labels or ()):
        missing |= _fresh_head(model, seed)
    head = _head(model, missing) if spec.task == "classification" else ()
    _check(source, model, tokenizer, missing, head)
    model.requires_grad_(False)
    model.eval()
    if spec.quantization != "none":
        quantise_base(model, spec.quantization)
    names = tuple(labels) if spec.task == "classification" and labels else None
    positions = _positions(config)
    if positions is not None:
        tokenizer.model_max_length = positions
    precision = source.precision or _precision(base_spec(spec) or spec, config)
    return LoadedModel(model, tokenizer, names, head, positions, precision, source.origin, source.start)


def _load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.words, **source.options)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unreadable(source, "tokenizer", error) from error
    # Without files transformers creates a tokenizer with special tokens only.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise InputError(
            f'model.path = "{source.name}" has no tokenizer: save it into the same folder, save_pretrained'
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise InputError(f'model.path = "{source.name}": its tokenizer has neither a pad nor an eos token')
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _load_config(
    source: ModelSource, spec: ModelSpec, labels: Sequence[str] | None, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedConfig:
    try:
        config = AutoConfig.from_pretrained(source.path, **source.options)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unreadable(source, "config.json", error) from error
    for part in {id(part): part for part in (config, config.get_text_config())}.values():
        for name, value in list(vars(part).items()):
            if any(word in name for word in _DROPOUTS) and isinstance(value, float | None):
                setattr(part, name, 0.0)
    config.pad_token_id = tokenizer.pad_token_id
    if spec.task == "classification":
        if not labels or len(labels) < 2:
            raise InputError(
                f"model.task = classification needs at least two labels, the data has {list(labels or ())}"
            )
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: index for index, label in enumerate(labels)}
        config.problem_type = "single_label_classification"
    else:
        if config.is_encoder_decoder or config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
            raise InputError(
                f'model.task = "causal-lm" needs a decoder, but model.path = "{source.name}" is of type '
                f"{config.model_type}; give a Llama, Mistral, Qwen, Gemma or GPT-2 type, or task = classification"
            )
        config.use_cache = False
    return config


def _load_weights(
    source: ModelSource, spec: ModelSpec, config: PreTrainedConfig, seed: int
) -> tuple[PreTrainedModel, set[str]]:
    """The model, and the names of parameters that the checkpoint did not fill."""
    auto = AutoModelForSequenceClassification if spec.task == "classification" else AutoModelForCausalLM
    try:
        where = {name: value for name, value in source.options.items() if name != "trust_remote_code"}
        if find_adapter_config_file(source.path, **where) is not None:
            raise with_adapter(source.name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "head"))
            model, info = auto.from_pretrained(
                source.path,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                # Not passed on by transformers, which would otherwise retry an unreachable hub.
                adapter_kwargs={"local_files_only": source.options.get("local_files_only", False)},
                **source.options,
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise _unreadable(source, "weights", error) from error
    if source.adapter is not None:
        model = merged(model, source.adapter)
    mismatched = {key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]}
    return model, set(info["missing_keys"]) | mismatched


def _fresh_head(model: PreTrainedModel, seed: int) -> set[str]:
    """Initialise the parameters outside the backbone, which are those of other labels, from ``seed``; their names."""
    prefix = model.base_model_prefix
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "head"))
        fresh = type(model)(model.config)
    own, names = dict(model.named_parameters()), set()
    for name, drawn in fresh.named_parameters():
        if not name.startswith(f"{prefix}."):
            own[name].data.copy_(drawn.data)
            names.add(name)
    return names


def _head(model: PreTrainedModel, missing: set[str]) -> tuple[str, ...]:
    """Parameters outside the backbone, and an untrained pooler, in the model's order."""
    backbone = model.base_model_prefix + "."
    return tuple(
        name
        for name, _ in model.named_parameters()
        if not name.startswith(backbone) or (name in missing and ".pooler." in name)
    )


def _check(
    source: ModelSource,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    missing: set[str],
    head: tuple[str, ...],
) -> None:
    unfilled = sorted(missing - set(head))
    if unfilled:
        raise InputError(
            f'model.path = "{source.name}": its weights do not fit its config.json, '
            f"{len(unfilled)} tensors are missing or of another shape, such as {unfilled[0]}"
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise InputError(
            f'model.path = "{source.name}": its tokenizer has {len(tokenizer)} tokens, its embedding only {rows} rows'
        )


def _positions(config: PreTrainedConfig) -> int | None:
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)  # GPT-2 maps n_positions to it
    if limit is None:
        return None
    # RoBERTa types count positions from the pad token's id + 1.
    offset = config.pad_token_id + 1 if "roberta" in config.model_type or config.model_type == "camembert" else 0
    return int(limit) - offset


def _precision(spec: ModelSpec, config: PreTrainedConfig) -> Precision:
    """The type of most of the weights in the files; of what is not here as files, that of the configuration."""
    sizes: Counter[str] = Counter()
    folder = model_folder(spec)
    for file in folder.glob("*.safetensors") if folder is not None else ():
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping
                part = tensors.get_slice(name)
                sizes[part.get_dtype()] += math.prod(part.get_shape())
    found = sizes.most_common(1)[0][0] if sizes else str(getattr(config, "dtype", None))
    narrow: dict[str, Precision] = {"F16": "fp16", "BF16": "bf16", "torch.float16": "fp16", "torch.bfloat16": "bf16"}
    return narrow.get(found, "fp32")


def _unreadable(source: ModelSource, what: str, error: Exception) -> InputError:
    if source.options.get("local_files_only") and "revision" in source.options:
        return InputError(
            f'model.path = "{source.name}" is not a folder here, the hub cannot be reached, and the local cache has no '
            f"copy of its {what}; give a folder written by save_pretrained, or one of {', '.join(builtin_models())}"
        )
    reason = " ".join(str(error).split())[:200]
    return InputError(f'model.path = "{source.name}": its {what} cannot be read: {reason}')


@contextmanager
def quiet() -> Iterator[None]:
    """Disable transformers' loading reports and progress bars; missing weights are checked here."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
