"""SHA-256 of the files that a run reads: its text, its tokenizer, the model's configuration and weights."""

import hashlib
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

from slimfed.clients.data.readers.files import ENDINGS
from slimfed.clients.errors import InputError
from slimfed.clients.models.gguf_cache import is_gguf
from slimfed.clients.models.location import base_spec, model_folder
from slimfed.clients.spec import DataSpec, ModelSpec, TaskSpec

_SPLITS = ("train", "test")
_MODEL_FILES = (
    *("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json"),
    "adapter_config.json",
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "*.model"),
)

Digests = dict[str, str]
"""By name of the file in its folder: the SHA-256 of its content."""


def data_digests(data: DataSpec) -> Digests:
    """Of one file, or of the files of a folder with text; nothing for built-in text and data sets of a hub."""
    from slimfed.clients.sources.hub import is_local  # brings the hub's library

    if data.path.startswith("builtin:") or not is_local(data.path):
        return {}
    folder = Path(data.path).expanduser()
    if folder.is_file():
        return {folder.name: file_digest(folder)}
    splits = (*_SPLITS, "validation") if data.validation == "use" else _SPLITS
    names = [split + ending for split in splits for ending in ENDINGS]
    return {name: file_digest(folder / name) for name in names if (folder / name).is_file()}


def of_hub(model: ModelSpec) -> bool:
    """True for a model of a hub: its cache on a machine may have none or only some of its files."""
    from slimfed.clients.sources.hub import is_local  # brings the hub's library

    return not model.path.startswith("builtin:") and not model.path.endswith(".gguf") and not is_local(model.path)


def model_digests(model: ModelSpec) -> Digests:
    """Of the files that decide what a model and its tokenizer compute; nothing if they are not on this machine."""
    if is_gguf(model.path):
        file = Path(model.path).expanduser()
        return {file.name: file_digest(file)}
    base = base_spec(model)
    if base is not None:
        own = _digests(Path(model.path).expanduser())
        return own | {f"base/{name}": digest for name, digest in model_digests(base).items()}
    folder = model_folder(model)
    return {} if folder is None else _digests(folder)


def _digests(folder: Path) -> Digests:
    files = sorted(file for file in folder.iterdir() if any(fnmatch(file.name, pattern) for pattern in _MODEL_FILES))
    return {file.name: file_digest(file) for file in files if file.is_file()}


def file_digest(file: Path) -> str:
    """Of one file, which may be larger than memory. Raises ``InputError`` if it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{str(file)!r}: cannot be read ({error.strerror})") from None


def joined(digests: Mapping[str, Digests]) -> str:
    """One digest of all files, by field of the job and name."""
    lines = [f"{field} {name} {digest}" for field in sorted(digests) for name, digest in sorted(digests[field].items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def inputs_digest(task: TaskSpec) -> str:
    """One digest of all files of text and model; of a hub's model its revision, as files come when they are needed."""
    return files_digest(task.model, data_digests(task.data), {} if of_hub(task.model) else model_digests(task.model))


def files_digest(model: ModelSpec, data: Digests, files: Digests) -> str:
    """One digest of the files of text and of the model, which do not count if it is a hub's."""
    return joined({"data.path": data, "model.path": {"revision": str(model.revision)} if of_hub(model) else files})


def check_inputs(task: TaskSpec) -> None:
    """Raise ``InputError`` if the files are not those that ``task.inputs`` was taken of; "" asks for no check."""
    if task.inputs and inputs_digest(task) != task.inputs:
        raise InputError(
            f'data.path = "{task.data.path}" or model.path = "{task.model.path}": the files there are not those that '
            "the run began with; stop the run, and `slimfed resume` names them"
        )
