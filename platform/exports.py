"""The exported models in a run's folder, by their manifests. No torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from slimfed.clients.export.manifest import NAME, Manifest
from slimfed.platform.home import RunFolder

_BENCH = ".bench.json"


@dataclass(frozen=True)
class Exported:
    """An exported folder. ``bytes``: of its files. ``bench``: what ``slimfed bench --json`` measured; None if nobody
    did.
    """

    folder: Path
    manifest: Manifest
    bytes: int
    bench: dict[str, Any] | None

    @property
    def bench_file(self) -> Path:
        """Where a measurement of the folder belongs; beside it, since the folder stays as it was written."""
        return bench_file(self.folder)


def bench_file(folder: Path) -> Path:
    """Where a measurement of an exported folder belongs."""
    return folder.with_name(folder.name + _BENCH)


def exported(run: RunFolder) -> list[Exported]:
    """The exported models of a run, the newest first. Folders without a manifest that can be read are left out."""
    folders = [file.parent for file in run.exports.glob(f"*/{NAME}") if not file.parent.name.startswith(".")]
    found = [each for folder in folders if (each := _read(folder)) is not None]
    return sorted(found, key=lambda each: (each.manifest.provenance.created, each.folder.name), reverse=True)


def export_folder(run: RunFolder, subject: str, format: str, weights: str, round: int) -> Path:
    """The folder for a model after a round; ``weights``: empty for those of the base."""
    parts = (subject.replace(" ", "-"), format, weights, f"round-{round}")
    return run.exports / "-".join(part for part in parts if part)


def _read(folder: Path) -> Exported | None:
    try:
        manifest = Manifest.model_validate_json((folder / NAME).read_bytes())
    except (OSError, ValidationError):
        return None
    measured = bench_file(folder)
    try:
        bench = json.loads(measured.read_bytes()) if measured.is_file() else None
    except (OSError, ValueError):
        bench = None
    return Exported(folder, manifest, sum(entry.bytes for entry in manifest.files.values()), bench)
