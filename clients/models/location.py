"""Where a model's files are: in slimfed itself, in a folder, or on the hub. Nothing is loaded, torch is not needed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimfed.clients.errors import InputError
from slimfed.clients.sources.safe_paths import check_inside
from slimfed.clients.spec import ModelSpec

BUILTIN = "builtin:"
_WEIGHTS = Path(__file__).parents[1] / "builtin" / "weights"
_ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class ModelSource:
    """Location of the files, and arguments of ``from_pretrained``."""

    name: str
    path: str
    options: dict[str, Any]


def builtin_models() -> list[str]:
    """Names of the models that slimfed ships."""
    return sorted(BUILTIN + folder.name for folder in _WEIGHTS.iterdir() if (folder / "config.json").is_file())


def model_folder(spec: ModelSpec) -> Path | None:
    """The folder on this machine that the model's files are in; None if a hub's cache has no copy of it."""
    if spec.path.startswith(BUILTIN):
        return _WEIGHTS / spec.path.removeprefix(BUILTIN)
    from huggingface_hub import try_to_load_from_cache

    from slimfed.clients.sources.hub import is_local  # brings the hub's library

    if is_local(spec.path):
        return Path(spec.path).expanduser()
    config = try_to_load_from_cache(spec.path, "config.json", revision=spec.revision or "main")
    return Path(config).parent if isinstance(config, str) else None


def locate(spec: ModelSpec) -> ModelSource:
    """The files of ``spec``. Raises :class:`InputError` if they are not there; within seconds if no hub answers."""
    from slimfed.clients.sources.hub import ask_hub, is_local  # brings the hub's library

    options: dict[str, Any] = {"trust_remote_code": False}
    if spec.path.startswith(BUILTIN):
        if spec.path not in builtin_models():
            raise InputError(f'model.path = "{spec.path}" is not built in; valid are {", ".join(builtin_models())}')
        return ModelSource(spec.path, str(_WEIGHTS / spec.path.removeprefix(BUILTIN)), options)
    if is_local(spec.path):
        folder = Path(spec.path).expanduser()
        check_folder(spec.path, folder)
        return ModelSource(spec.path, str(folder), {**options, "local_files_only": True})
    unreachable = ask_hub("model", "model.path", spec.path, spec.revision) == "unreachable"
    options |= {"revision": spec.revision or "main", "local_files_only": unreachable}
    return ModelSource(spec.path, spec.path, options)


def check_folder(name: str, folder: Path) -> None:
    """Raise ``InputError`` unless the folder ``model.path = name`` has a configuration and weights to be read."""
    if not folder.is_dir():
        raise InputError(f'model.path = "{name}": there is no such folder')
    if (folder / _ADAPTER).exists():
        raise with_adapter(name)
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


def with_adapter(name: str) -> InputError:
    """transformers would load the adapter on top of the weights, or on top of another base that it names."""
    return InputError(
        f'model.path = "{name}" has a PEFT adapter ({_ADAPTER}), and whether the model is meant with or without it is '
        "not known: merge it into the weights and save them (PEFT's merge_and_unload, then save_pretrained), or remove "
        "the adapter's files"
    )
