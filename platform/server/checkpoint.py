"""Checkpoints on disk: tensors as safetensors, the rest as JSON, written atomically. No pickle.

A checkpoint is a folder ``round-00012`` with ``tensors.safetensors``, ``state.json`` and ``manifest.json``, which holds
size and SHA-256 of the other two. It is written under another name, synced to disk and then renamed.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from slimfed.clients.errors import InputError

KEEP = 2
"""Number of checkpoints to keep: the newest, and the one before in case it is damaged or not in the store."""

_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_NAME = re.compile(r"round-(\d{5,})")

_log = logging.getLogger(__name__)


class CheckpointError(InputError):
    """A damaged or incomplete checkpoint; the text has the checkpoint, the fault and the remedy."""


@dataclass(frozen=True)
class Manifest:
    """The manifest of a checkpoint. ``digest``: SHA-256 over its files; ``bytes``: their size."""

    round: int
    bytes: int
    digest: str


def save(folder: Path, round: int, tensors: dict[str, np.ndarray], state: dict[str, Any]) -> Path:
    """Write the checkpoint of ``round`` into ``folder`` and return its path; a second one of it replaces the first.

    Keeps the newest two up to ``round``; those of later rounds are removed, as they belong to an abandoned course.
    Raises ``OSError`` if the disk is full or not writable; earlier checkpoints are then unchanged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(folder)
    parts = {
        _TENSORS: save_tensors({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}),
        _STATE: json.dumps(state).encode(),
    }
    aside, final = folder / f".writing-{os.getpid()}", folder / f"round-{round:05d}"
    aside.mkdir()
    for name, content in parts.items():
        _write(aside / name, content)
    _write(aside / _MANIFEST, json.dumps(_manifest(round, parts), indent=1).encode())
    _sync_folder(aside)
    if final.exists():
        final.rename(folder / f".replaced-{os.getpid()}")
    aside.rename(final)
    _sync_folder(folder)
    _clear_leftovers(folder)
    _prune(folder, round)
    return final


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and state of a checkpoint. Raises :class:`CheckpointError` unless every byte is unchanged."""
    manifest = _read_manifest(path)
    contents = {name: _read_checked(path, name, manifest) for name in (_TENSORS, _STATE)}
    try:
        return load_tensors(contents[_TENSORS]), json.loads(contents[_STATE])
    except (SafetensorError, ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from None


def describe(path: Path) -> Manifest:
    """Round, size and digest of a checkpoint, from its manifest. Raises :class:`CheckpointError`."""
    manifest = _read_manifest(path)
    try:
        files = manifest["files"]
        total = sum(int(files[name]["bytes"]) for name in (_TENSORS, _STATE))
        joined = "".join(files[name]["sha256"] for name in (_TENSORS, _STATE))
        return Manifest(int(manifest["round"]), total, hashlib.sha256(joined.encode()).hexdigest())
    except (KeyError, TypeError, ValueError):
        raise _damaged(path, f"{_MANIFEST} lacks fields") from None


def rounds(folder: Path) -> list[int]:
    """Rounds that have a checkpoint, damaged or not, ascending."""
    names = [_NAME.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(match[1]) for match in names if match)


def path_of(folder: Path, round: int) -> Path:
    """Path of the checkpoint of a round, or None."""
    return folder / f"round-{round:05d}"


def newest(folder: Path, at_most: int | None = None) -> Path | None:
    """The newest complete checkpoint, up to round ``at_most``; None if there is none at all.

    A damaged one is passed over with a warning in the log (:func:`survey` gives the texts). Raises
    :class:`CheckpointError` if all are damaged, since starting anew would silently lose the run.
    """
    found, refused = survey(folder, at_most)
    for text in refused:
        _log.warning("%s", text)
    if found is None and refused:
        raise CheckpointError("; ".join(refused))
    return found


def survey(folder: Path, at_most: int | None = None) -> tuple[Path | None, list[str]]:
    """The newest complete checkpoint up to round ``at_most``, and the causes for which newer ones were refused."""
    refused: list[str] = []
    for number in reversed(rounds(folder)):
        if at_most is not None and number > at_most:
            continue
        path = path_of(folder, number)
        try:
            load(path)
        except CheckpointError as error:
            refused.append(str(error))
            continue
        return path, refused
    return None, refused


def _manifest(round: int, parts: dict[str, bytes]) -> dict[str, Any]:
    files = {name: {"bytes": len(part), "sha256": hashlib.sha256(part).hexdigest()} for name, part in parts.items()}
    return {"format": 1, "round": round, "files": files}


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
    except OSError as error:
        raise _damaged(path, f"{_MANIFEST} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise _damaged(path, f"{_MANIFEST} is no JSON") from None
    if not isinstance(manifest, dict):
        raise _damaged(path, f"{_MANIFEST} is no JSON object")
    if manifest.get("format") != 1:
        raise CheckpointError(
            f"checkpoint {str(path)!r}: has format {manifest.get('format')!r}; valid: 1; upgrade slimfed"
        )
    return manifest


def _read_checked(path: Path, name: str, manifest: dict[str, Any]) -> bytes:
    try:
        content = (path / name).read_bytes()
        expected = manifest["files"][name]["sha256"]
    except OSError as error:
        raise _damaged(path, f"{name} cannot be read ({error.strerror})") from None
    except (KeyError, TypeError):
        raise _damaged(path, f"{_MANIFEST} lacks fields") from None
    if hashlib.sha256(content).hexdigest() != expected:
        raise _damaged(path, f"{name} is not what was written (SHA-256 differs)")
    return content


def _damaged(path: Path, cause: str) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {str(path)!r}: is damaged: {cause}; delete the folder to resume from an earlier one"
    )


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _clear_leftovers(folder: Path) -> None:
    """Remove incomplete checkpoints of killed processes, and replaced ones."""
    for pattern in (".writing-*", ".replaced-*"):
        for path in folder.glob(pattern):
            shutil.rmtree(path)


def _prune(folder: Path, round: int) -> None:
    present = rounds(folder)
    kept = [number for number in present if number <= round][-KEEP:]
    for number in set(present) - set(kept):
        shutil.rmtree(path_of(folder, number))
