"""What a folder with a PEFT adapter says of itself, without torch."""

import json
from pathlib import Path

from slimfed.clients.errors import InputError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_LARGEST_CONFIG_BYTES = 2**20


def is_adapter(folder: Path) -> bool:
    """True for a folder with an adapter and no model beside it."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").exists()


def base_of(folder: Path) -> str:
    """The base that the adapter says it belongs to. Raises :class:`InputError` if it cannot be merged."""
    config = _read(folder)
    if config.get("peft_type") != "LORA":
        raise refused(folder, f"is of type {config.get('peft_type')!r:.40}; only LORA can be merged")
    if config.get("megatron_config"):
        raise refused(folder, "is for Megatron's layers")
    if not (folder / WEIGHTS).is_file():
        raise refused(folder, f"has no {WEIGHTS}; call save_pretrained again (pickled weights are never read)")
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise refused(folder, "does not name its base; give it as model.base")
    return base


def _read(folder: Path) -> dict[str, object]:
    try:
        if (folder / CONFIG).stat().st_size > _LARGEST_CONFIG_BYTES:
            raise ValueError("too large")
        document = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise refused(folder, f"has a {CONFIG} that cannot be read: {str(error)[:100]}") from None
    if not isinstance(document, dict):
        raise refused(folder, f"has a {CONFIG} that is no object")
    return document


def refused(folder: Path, cause: str) -> InputError:
    """What is wrong with the adapter in ``folder``, as an error to raise."""
    return InputError(f'model.path = "{folder}": the PEFT adapter {cause}')
