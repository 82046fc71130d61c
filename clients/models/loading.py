"""Loading of the pre-trained model a run tunes: from slimfed itself, a folder, a GGUF file, an adapter, or the hub."""

import json
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
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
from slimfed.clients.models import gguf_file, peft_adapter
from slimfed.clients.models.gguf_file import Precision
from slimfed.clients.seeds import derive
from slimfed.clients.sources.hub import ask_hub, is_local
from slimfed.clients.sources.safe_paths import check_inside
from slimfed.clients.spec import ModelSpec

BUILTIN = "builtin:"
_WEIGHTS = Path(__file__).parents[1] / "builtin" / "weights"
_ADAPTER = "adapter_config.json"
_DROPOUTS = ("dropout", "drop_rate", "pdrop", "layerdrop")  # names in configurations, at any depth


@dataclass(frozen=True)
class LoadedModel:
    """A frozen base in fp32 and evaluation mode, without dropout, with its tokenizer and names.

    ``head``: names of the parameters that are fully trained: the classifier, and a pooler that the checkpoint lacks;
    empty for causal-lm. ``labels``: names of the classes; ``None`` for causal-lm. ``positions``: the longest text in
    tokens that the model accepts; ``None`` if there is no limit. ``precision``: the type of the weights in the
    checkpoint (of a quantised one: that it is best kept in). ``origin``: the GGUF file or the adapter that the weights
    came from; empty if they were read as they are.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...] | None
    head: tuple[str, ...]
    positions: int | None
    precision: Precision = "fp32"
    origin: str = ""

    @property
    def pad_id(self) -> int:
        """Id of the padding token."""
        return int(self.tokenizer.pad_token_id)  # load_model makes sure there is one


@dataclass(frozen=True)
class _Source:
    """Location of the files, and arguments of ``from_pretrained``. ``adapter``: what is merged into the weights."""

    name: str
    path: str
    options: dict[str, Any]
    adapter: Path | None = None
    origin: str = ""
    precision: Precision | None = None

    @property
    def words(self) -> str:
        """Where the tokenizer is: beside the adapter, if it was saved there."""
        beside = self.adapter is not None and (self.adapter / "tokenizer_config.json").is_file()
        return str(self.adapter) if beside else self.path


def builtin_models() -> list[str]:
    """Names of the models that slimfed ships."""
    return sorted(BUILTIN + folder.name for folder in _WEIGHTS.iterdir() if (folder / "config.json").is_file())


def load_model(spec: ModelSpec, labels: Sequence[str] | None, seed: int) -> LoadedModel:
    """Load ``spec`` for its task.

    A classifier gets one output for each of ``labels``; a head that the checkpoint lacks is initialised from ``seed``,
    equally in every process. Dropout of the base is 0, so that importance is measured on the exported function. Code
    from a checkpoint is never run, and weights are read from safetensors only.

    Raises :class:`InputError` if it cannot be loaded; within seconds if the hub does not answer.
    """
    source = _locate(spec)
    with quiet():
        tokenizer = _load_tokenizer(source)
        config = _load_config(source, spec, labels, tokenizer)
        model, missing = _load_weights(source, spec, config, seed)
    head = _head(model, missing) if spec.task == "classification" else ()
    _check(source, model, tokenizer, missing, head)
    model.requires_grad_(False)
    model.eval()
    names = tuple(labels) if spec.task == "classification" and labels else None
    positions = _positions(config)
    if positions is not None:
        tokenizer.model_max_length = positions
    precision = source.precision or _precision(spec if source.adapter is None else _base(spec, source.adapter), config)
    return LoadedModel(model, tokenizer, names, head, positions, precision, source.origin)


def is_gguf(path: str) -> bool:
    """True if ``model.path`` means a GGUF file."""
    return path.endswith(gguf_file.ENDING)


def base_spec(spec: ModelSpec) -> ModelSpec | None:
    """The base of an adapter that ``spec`` names; None if it names no adapter. Raises :class:`InputError`."""
    folder = Path(spec.path).expanduser()
    return _base(spec, folder) if is_local(spec.path) and peft_adapter.is_adapter(folder) else None


def model_folder(spec: ModelSpec) -> Path | None:
    """The folder on this machine that the model's files are in; None if a hub's cache has no copy of it.

    Of a GGUF file the one that it was dequantised into; None if it was not yet.
    """
    if is_gguf(spec.path):
        return gguf_file.cached_folder(Path(spec.path).expanduser())
    if spec.path.startswith(BUILTIN):
        return _WEIGHTS / spec.path.removeprefix(BUILTIN)
    if is_local(spec.path):
        return Path(spec.path).expanduser()
    config = try_to_load_from_cache(spec.path, "config.json", revision=spec.revision or "main")
    return Path(config).parent if isinstance(config, str) else None


def weights_bytes(spec: ModelSpec) -> int | None:
    """Bytes of the files of weights that ``spec`` names (of an adapter: of its base); None if they are not here."""
    if is_gguf(spec.path):
        file = Path(spec.path).expanduser()
        return file.stat().st_size if file.is_file() else None
    folder = model_folder(base_spec(spec) or spec)
    files = [] if folder is None else list(folder.glob("*.safetensors"))
    return sum(file.stat().st_size for file in files) or None


def _locate(spec: ModelSpec) -> _Source:
    options: dict[str, Any] = {"trust_remote_code": False}
    if spec.path.startswith(BUILTIN):
        if spec.path not in builtin_models():
            raise InputError(f'model.path = "{spec.path}" is not built in; valid are {", ".join(builtin_models())}')
        return _Source(spec.path, str(_WEIGHTS / spec.path.removeprefix(BUILTIN)), options)
    if is_gguf(spec.path):
        found = gguf_file.dequantised(Path(spec.path).expanduser())
        options |= {"local_files_only": True}
        return _Source(spec.path, str(found.folder), options, origin=str(found), precision=found.precision)
    if is_local(spec.path):
        folder = Path(spec.path).expanduser()
        if peft_adapter.is_adapter(folder):
            return _of_adapter(spec, folder)
        if spec.base is not None:
            raise InputError(f'model.base = "{spec.base}": model.path = "{spec.path}" is no adapter; leave it out')
        _check_folder(spec.path, folder)
        return _Source(spec.path, str(folder), {**options, "local_files_only": True})
    unreachable = ask_hub("model", "model.path", spec.path, spec.revision) == "unreachable"
    options |= {"revision": spec.revision or "main", "local_files_only": unreachable}
    return _Source(spec.path, spec.path, options)


def _of_adapter(spec: ModelSpec, folder: Path) -> _Source:
    for file in folder.iterdir():
        check_inside(folder, file, "model.path")
    base = _base(spec, folder)
    if base_spec(base) is not None:
        raise InputError(f'model.path = "{spec.path}": its base {base.path!r} is an adapter, too; merge that one first')
    source = _locate(base)
    origin = f"{source.origin or base.path} with the adapter {spec.path}"
    return replace(source, name=spec.path, adapter=folder, origin=origin)


def _base(spec: ModelSpec, folder: Path) -> ModelSpec:
    """The base of the adapter in ``folder``; a relative path in the adapter counts from the working folder."""
    named = peft_adapter.base_of(folder)
    return spec.model_copy(update={"path": spec.base or named, "base": None})


def _check_folder(name: str, folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f'model.path = "{name}": there is no such folder')
    if (folder / _ADAPTER).exists():
        raise _with_adapter(name)
    if not (folder / "config.json").is_file():
        raise InputError(f'model.path = "{name}" has no config.json: give a folder written by save_pretrained')
    for file in folder.iterdir():
        check_inside(folder, file, "model.path")
    _check_index(name, folder)
    if not any(folder.glob("*.safetensors")):
        pickled = next(folder.glob("*.bin"), None)
        found = f"only {pickled.name}, which is pickled and never read" if pickled else "none"
        raise InputError(
            f'model.path = "{name}" needs its weights as .safetensors, found {found}: '
            "load the model where you trust it and call save_pretrained again"
        )


def _check_index(name: str, folder: Path) -> None:
    """Weights in several files: the index may name files of the folder only."""
    for index in folder.glob("*.safetensors.index.json"):
        try:
            files = set(json.loads(index.read_bytes())["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f'model.path = "{name}": {index.name} cannot be read: {error!r:.100}') from None
        for file in files:
            if not isinstance(file, str) or Path(file).name != file or not (folder / file).is_file():
                raise InputError(
                    f'model.path = "{name}": {index.name} names {file!r:.100}, which is no file of the folder; '
                    "call save_pretrained again"
                )


def _with_adapter(name: str) -> InputError:
    """transformers would load the adapter on top of the weights, or on top of another base that it names."""
    return InputError(
        f'model.path = "{name}" has a PEFT adapter ({_ADAPTER}), and whether the model is meant with or without it is '
        "not known: merge it into the weights and save them (PEFT's merge_and_unload, then save_pretrained), or remove "
        "the adapter's files"
    )


def _load_tokenizer(source: _Source) -> PreTrainedTokenizerBase:
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
    source: _Source, spec: ModelSpec, labels: Sequence[str] | None, tokenizer: PreTrainedTokenizerBase
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
    source: _Source, spec: ModelSpec, config: PreTrainedConfig, seed: int
) -> tuple[PreTrainedModel, set[str]]:
    """The model, and the names of parameters that the checkpoint did not fill."""
    auto = AutoModelForSequenceClassification if spec.task == "classification" else AutoModelForCausalLM
    try:
        where = {name: value for name, value in source.options.items() if name != "trust_remote_code"}
        if find_adapter_config_file(source.path, **where) is not None:
            raise _with_adapter(source.name)
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
        model = peft_adapter.merged(model, source.adapter)
    mismatched = {key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]}
    return model, set(info["missing_keys"]) | mismatched


def _head(model: PreTrainedModel, missing: set[str]) -> tuple[str, ...]:
    """Parameters outside the backbone, and an untrained pooler, in the model's order."""
    backbone = model.base_model_prefix + "."
    return tuple(
        name
        for name, _ in model.named_parameters()
        if not name.startswith(backbone) or (name in missing and ".pooler." in name)
    )


def _check(
    source: _Source,
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


def _unreadable(source: _Source, what: str, error: Exception) -> InputError:
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
