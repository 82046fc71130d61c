"""The files of a folder with text, and the reader of each kind of file."""

from collections.abc import Collection
from pathlib import Path

from slimfed.clients.data.readers.delimited import read_delimited
from slimfed.clients.data.readers.json_rows import read_json
from slimfed.clients.data.readers.rows import Rows
from slimfed.clients.errors import InputError
from slimfed.clients.sources.safe_paths import check_inside
from slimfed.clients.spec import DataSpec

ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_COMPRESSED = (".gz", ".xz", ".bz2", ".zst", ".zip")


def find_split(path: str, folder: Path, split: str) -> Path:
    """The one file of a split in ``folder``, which the job names ``path``. Raises ``InputError``."""
    if not folder.is_dir():
        what = "file" if folder.suffix in ENDINGS else "folder"
        raise InputError(f'data.path = "{path}": there is no such {what}')
    found = split_files(folder, split)
    if not found:
        packed = [f.name for f in folder.iterdir() if f.name.startswith(split + ".") and f.suffix in _COMPRESSED]
        hint = _unpack(min(packed)) if packed else ""
        valid = ", ".join(split + ending for ending in ENDINGS)
        hint = hint or ("; or hold rows of the train file out with data.test_share = 0.1" if split == "test" else "")
        raise InputError(f'data.path = "{path}" has no {split} file; valid are {valid}{hint}')
    if len(found) > 1:
        raise InputError(f'data.path = "{path}" has {" and ".join(f.name for f in found)}: keep one of them')
    check_inside(folder, found[0], "data.path")
    return found[0]


def split_files(folder: Path, split: str) -> list[Path]:
    """The files of a split in ``folder``, whose names are that of the split and one of :data:`ENDINGS`."""
    return [folder / (split + ending) for ending in ENDINGS if (folder / (split + ending)).is_file()]


def read_file(spec: DataSpec, file: Path, needed: Collection[str]) -> Rows:
    """The rows of ``file`` as they are in it now. Raises ``InputError`` if it cannot be read, with the line if it can.

    Files are read anew every time: a cache by name, size and time would give rows that are no longer there.
    """
    where = f'data.path = "{spec.path}": {file.name}'
    if file.suffix not in ENDINGS:
        raise InputError(f"{where} is no text that can be read; valid: {', '.join(ENDINGS)}{_unpack(file.name)}")
    try:
        if file.stat().st_size == 0:
            raise InputError(f"{where} is empty")
        if file.suffix == ".parquet":
            from slimfed.clients.data.readers.parquet import read_parquet  # brings pyarrow and datasets

            return read_parquet(file, where, needed)
        if file.suffix in (".jsonl", ".json"):
            return read_json(file, where, needed)
        if file.suffix == ".tsv":
            return read_delimited(file, where, needed, "\t", quoted=False)
        return read_delimited(file, where, needed, spec.delimiter)
    except OSError as error:
        raise InputError(f"{where} cannot be read ({error.strerror})") from None


def _unpack(name: str) -> str:
    """What to do with a compressed file, or nothing."""
    return f"; unpack {name} first, as compressed files are not read" if name.endswith(_COMPRESSED) else ""
