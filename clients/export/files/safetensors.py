"""The physically smaller model as a folder of safetensors, and the one function that opens it."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.initialization import no_init_weights

from slimfed.clients.adapters.training.residual_stream import find_stream
from slimfed.clients.adapters.training.width_slicing import narrow_stream
from slimfed.clients.errors import InputError
from slimfed.clients.export import manifest as manifests
from slimfed.clients.export.atomic_folder import whole_folder
from slimfed.clients.export.manifest import CARD, Manifest
from slimfed.clients.export.slim_model import SlimModel
from slimfed.clients.export.stock_config import stock_config
from slimfed.clients.export.vocabulary.model import with_vocabulary
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.loading import quiet
from slimfed.clients.pruning.model_slicing import slice_model


def save_slim(slim: SlimModel, folder: Path, card: str) -> Manifest:
    """Write ``folder``: weights, configuration, tokenizer, manifest, and ``card`` as the model card.

    The folder appears complete or not at all; the manifest with its files' hashes is returned. Raises ``InputError``
    if it exists already.
    """
    with whole_folder(folder) as aside:
        return write_slim(slim, aside, card)


def write_slim(slim: SlimModel, folder: Path, card: str) -> Manifest:
    """The same into an empty folder that exists."""
    structure = slim.manifest.structure(discover(skeleton(slim.manifest)))
    fitting = stock_config(slim.model.config, structure) if slim.manifest.width is None else None
    original = slim.model.config
    slim.model.config = fitting or original
    try:
        with quiet():
            slim.model.save_pretrained(folder, state_dict=_narrowed(slim.model, slim.manifest.weights))
        _note_type(folder / "config.json", slim.manifest.weights)
    finally:
        slim.model.config = original
    slim.tokenizer.save_pretrained(folder)
    (folder / CARD).write_text(card, encoding="utf-8")
    return manifests.write(folder, slim.manifest.model_copy(update={"kind": "safetensors", "stock": bool(fitting)}))


_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _narrowed(model: PreTrainedModel, weights: str) -> dict[str, torch.Tensor]:
    """The tensors of ``model`` in the type ``weights``; shared ones stay shared. The model is not changed.

    Raises ``InputError`` if a weight is too large for float16.
    """
    dtype, once, found = _TYPES[weights], dict[int, torch.Tensor](), {}
    for name, tensor in model.state_dict().items():
        place = tensor.data_ptr()
        if place not in once:
            once[place] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        found[name] = once[place]
        if weights == "fp16" and not bool(once[place].isfinite().all()):
            raise InputError(f"--dtype = 'fp16': tensor {name} has weights beyond 65504; use bf16 or fp32")
    return found


def _note_type(file: Path, weights: str) -> None:
    """Say the type of the weights in a configuration."""
    config = json.loads(file.read_text(encoding="utf-8"))
    config["dtype"] = str(_TYPES[weights]).removeprefix("torch.")
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_slim(folder: Path | str) -> SlimModel:
    """Open a folder that ``slimfed export --format safetensors`` wrote, on the CPU, in evaluation mode.

    Needs neither the run nor the base. Raises ``InputError`` that names a file that is missing or was changed, a
    tensor that is missing, unknown or of another shape, or a structure that does not fit the model.
    """
    folder = Path(folder)
    manifest = manifests.read(folder)
    if manifest.kind != "safetensors":
        raise InputError(f"{str(folder)!r} holds a model as {manifest.kind}; load_slim opens safetensors")
    dense = skeleton(manifest)
    blueprint = discover(dense)
    model = slice_model(dense, manifest.structure(blueprint))
    if manifest.width is not None:
        narrow_stream(model, find_stream(dense, blueprint), torch.tensor(manifest.width))
    model = with_vocabulary(model, manifest)
    _fill(model, folder)
    model.requires_grad_(False)
    model.eval()
    return SlimModel(model, load_tokenizer(folder, manifest), manifest)


def skeleton(manifest: Manifest) -> PreTrainedModel:
    """The unpruned model of a manifest's base, without its weights."""
    return empty_model(AutoConfig.for_model(**manifest.base.config), manifest.task)


def empty_model(config: PreTrainedConfig, task: str) -> PreTrainedModel:
    """A model of a configuration whose weights are whatever the memory held, in fp32."""
    auto = AutoModelForSequenceClassification if task == "classification" else AutoModelForCausalLM
    with no_init_weights():
        model = auto.from_config(config, dtype=torch.float32)
    model.tie_weights()
    return model.eval()


def load_tokenizer(folder: Path, manifest: Manifest) -> PreTrainedTokenizerBase:
    """The tokenizer of an exported folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if manifest.positions is not None:
        tokenizer.model_max_length = manifest.positions
    return tokenizer


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's safetensors. Raises ``InputError`` naming a file that cannot be read."""
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            tensors |= load_file(path)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{str(path)!r} cannot be read: {error}; export the model again") from None
    return tensors


def _fill(model: PreTrainedModel, folder: Path) -> None:
    """Put a folder's tensors into a model of their shapes."""
    tensors = read_tensors(folder)
    wanted = dict(model.named_parameters()) | dict(_persistent_buffers(model))
    for name, parameter in wanted.items():
        if name not in tensors:
            raise InputError(f"{str(folder)!r}: tensor {name} is missing; export the model again")
        if tensors[name].shape != parameter.shape:
            raise InputError(
                f"{str(folder)!r}: tensor {name} has shape {list(tensors[name].shape)}, "
                f"the kept structure wants {list(parameter.shape)}; export the model again"
            )
    unknown = sorted(set(tensors) - set(model.state_dict()))
    if unknown:
        raise InputError(f"{str(folder)!r}: tensor {unknown[0]} does not belong to the model; export the model again")
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(tensors[name])


def _persistent_buffers(model: PreTrainedModel) -> list[tuple[str, torch.Tensor]]:
    state = model.state_dict()
    return [(name, buffer) for name, buffer in model.named_buffers() if name in state]
