"""Where a model's files are: in slimfed itself, in a folder, or on the hub. Nothing is loaded, torch is not needed."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slimfed.clients.errors import InputError
from slimfed.clients.models.adapter_config import CONFIG, base_of, is_adapter
from slimfed.clients.models.gguf_cache import Precision, cached_folder, check_file, is_gguf
from slimfed.clients.models.start import Start, read_start
from slimfed.clients.sources.safe_paths import check_inside
from slimfed.clients.spec import ModelSpec

BUILTIN = "builtin:"
RUN = "run:"
"""Begins the path of a run's finished model, which is replaced by a folder when the job is read."""

_WEIGHTS = Path(__file__).parents[1] / "builtin" / "weights"


@dataclass(frozen=True)
class ModelSource:
    """Location of the files, and arguments of ``from_pretrained``. ``adapter``: what is merged into the weights.

    ``origin``: what was dequantised or merged, in words. ``precision``: of the weights, if the file's format says it.
    ``start``: of a run's finished model.
    """

    name: str
    path: str
    options: dict[str, Any]
    adapter: Path | None = None
    origin: str = ""
    precision: Precision | None = None
    start: Start | None = None

    @property
    def words(self) -> str:
        """Where the tokenizer is: beside the adapter, if it was saved there."""
        beside = self.adapter is not None and (self.adapter / "tokenizer_config.json").is_file()
        return str(self.adapter) if beside else self.path


def builtin_models() -> list[str]:
    """Names of the models that slimfed ships."""
    return sorted(BUILTIN + folder.name for folder in _WEIGHTS.iterdir() if (folder / "config.json").is_file())


def base_spec(spec: ModelSpec) -> ModelSpec | None:
    """The base of an adapter that ``spec`` names; None if it names no adapter. Raises :class:`InputError`."""
    from slimfed.clients.sources.hub import is_local  # brings the hub's library

    if spec.path.startswith(BUILTIN) or is_gguf(spec.path) or not is_local(spec.path):
        return None
    folder = Path(spec.path).expanduser()
    return _base(spec, folder) if is_adapter(folder) else None


def model_folder(spec: ModelSpec) -> Path | None:
    """The folder on this machine that the model's files are in; None if a hub's cache has no copy of it.

    Of a GGUF file the one that it was dequantised into; None if it was not yet.
    """
    if is_gguf(spec.path):
        return cached_folder(Path(spec.path).expanduser())
    if spec.path.startswith(BUILTIN):
        return _WEIGHTS / spec.path.removeprefix(BUILTIN)
    from huggingface_hub import try_to_load_from_cache

    from slimfed.clients.sources.hub import is_local  # brings the hub's library

    if is_local(spec.path):
        return Path(spec.path).expanduser()
    config = try_to_load_from_cache(spec.path, "config.json", revision=spec.revision or "main")
    return Path(config).parent if isinstance(config, str) else None


def weights_bytes(spec: ModelSpec) -> int | None:
    """Bytes of the files of weights that ``spec`` names; None if they are not here.

    Of an adapter or a run's finished model, those of the base.
    """
    if is_gguf(spec.path):
        file = Path(spec.path).expanduser()
        return file.stat().st_size if file.is_file() else None
    folder = model_folder(base_spec(spec) or spec)
    start = None if folder is None else read_start(folder)
    if start is not None:
        return start.base_bytes
    files = [] if folder is None else list(folder.glob("*.safetensors"))
    return sum(file.stat().st_size for file in files) or None


def locate(spec: ModelSpec) -> ModelSource:
    """The files of ``spec``. Raises :class:`InputError` if they are not there; within seconds if no hub answers.

    A GGUF file is dequantised if the cache does not have it, which needs torch.
    """
    from slimfed.clients.sources.hub import ask_hub, is_local  # brings the hub's library

    _refuse_run(spec)
    options: dict[str, Any] = {"trust_remote_code": False}
    if spec.path.startswith(BUILTIN):
        if spec.path not in builtin_models():
            raise InputError(f'model.path = "{spec.path}" is not built in; valid are {", ".join(builtin_models())}')
        return ModelSource(spec.path, str(_WEIGHTS / spec.path.removeprefix(BUILTIN)), options)
    if is_gguf(spec.path):
        from slimfed.clients.models.gguf_file import dequantised  # brings torch

        found = dequantised(Path(spec.path).expanduser())
        options |= {"local_files_only": True}
        return ModelSource(spec.path, str(found.folder), options, origin=str(found), precision=found.precision)
    if is_local(spec.path):
        folder = Path(spec.path).expanduser()
        if is_adapter(folder):
            return _of_adapter(spec, folder)
        if spec.base is not None:
            raise InputError(f'model.base = "{spec.base}": model.path = "{spec.path}" is no adapter; leave it out')
        check_folder(spec.path, folder)
        start = read_start(folder)
        source = ModelSource(spec.path, str(folder), {**options, "local_files_only": True})
        return source if start is None else replace(source, origin=str(start), precision=start.precision, start=start)
    unreachable = ask_hub("model", "model.path", spec.path, spec.revision) == "unreachable"
    options |= {"revision": spec.revision or "main", "local_files_only": unreachable}
    return ModelSource(spec.path, spec.path, options)


def look_for(spec: ModelSpec) -> None:
    """Raise ``InputError`` if files that ``spec`` names on this machine are not there. No hub is asked."""
    from slimfed.clients.sources.hub import is_local  # brings the hub's library

    if spec.path.startswith(BUILTIN):
        locate(spec)
    elif is_gguf(spec.path):
        check_file(Path(spec.path).expanduser())
    elif is_local(spec.path):
        base = base_spec(spec)
        if base is None:
            check_folder(spec.path, Path(spec.path).expanduser())
        else:
            look_for(base)


def _refuse_run(spec: ModelSpec) -> None:
    if spec.path.startswith(RUN):
        raise InputError(
            f'model.path = "{spec.path}": names a run of one computer; elsewhere give the folder of a model'
        )


def _of_adapter(spec: ModelSpec, folder: Path) -> ModelSource:
    for file in folder.iterdir():
        check_inside(folder, file, "model.path")
    base = _base(spec, folder)
    if base_spec(base) is not None:
        raise InputError(f'model.path = "{spec.path}": its base {base.path!r} is an adapter, too; merge that one first')
    source = locate(base)
    origin = f"{source.origin or base.path} with the adapter {spec.path}"
    return replace(source, name=spec.path, adapter=folder, origin=origin)


def _base(spec: ModelSpec, folder: Path) -> ModelSpec:
    """The base of the adapter in ``folder``; a relative path in the adapter counts from the working folder."""
    return spec.model_copy(update={"path": spec.base or base_of(folder), "base": None})


def check_folder(name: str, folder: Path) -> None:
    """Raise ``InputError`` unless the folder ``model.path = name`` has a configuration and weights to be read."""
    if not folder.is_dir():
        raise InputError(f'model.path = "{name}": there is no such folder')
    if (folder / CONFIG).exists():
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
        f'model.path = "{name}" has a PEFT adapter ({CONFIG}), and whether the model is meant with or without it is '
        "not known: merge it into the weights and save them (PEFT's merge_and_unload, then save_pretrained), or remove "
        "the adapter's files"
    )
