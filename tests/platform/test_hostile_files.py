"""Files that are malformed, enormous or lead elsewhere: one exception, with the cause, and nothing half-read."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slimfed.clients.data.text import load_data
from slimfed.clients.errors import InputError
from slimfed.clients.models.loading import load_model
from slimfed.clients.models.location import model_folder
from slimfed.clients.spec import DataSpec, ModelSpec
from slimfed.platform.fleet.profiles import load_profile
from slimfed.platform.job.job import Job, job_to_dict, load_job, parse_job
from slimfed.platform.job.overrides import parse_sets
from slimfed.platform.server import checkpoint
from slimfed.platform.server.checkpoint import CheckpointError

FUZZ = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
WHOLE = job_to_dict(Job())


@FUZZ
@given(st.binary(max_size=400))
def test_no_bytes_break_the_readers_of_toml(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "any.toml"
    file.write_bytes(data)
    for read in (load_job, load_profile):
        with suppress(InputError):
            read(str(file))


@FUZZ
@given(st.data())
def test_no_value_in_a_field_breaks_the_job(data: st.DataObject) -> None:
    section = data.draw(st.sampled_from(sorted(WHOLE)))
    document: dict[str, Any] = json.loads(json.dumps(WHOLE))
    if isinstance(document[section], dict) and document[section]:
        document[section][data.draw(st.sampled_from(sorted(document[section])))] = data.draw(values)
    else:
        document[section] = data.draw(values)
    with suppress(InputError):
        parse_job(document)


@FUZZ
@given(st.lists(st.text(max_size=30), max_size=3))
def test_no_argument_breaks_set(arguments: list[str]) -> None:
    with suppress(InputError):
        parse_sets(arguments)


def test_deep_and_enormous_files_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "deep.toml").write_text("a = " + "[" * 50_000)
    (tmp_path / "long.toml").write_text("a = " + "9" * 10_000)
    with (tmp_path / "enormous.toml").open("wb") as file:
        file.truncate(2**40)
    for name in ("deep", "long", "enormous"):
        with pytest.raises(InputError, match=f"{name}.toml"):
            load_job(tmp_path / f"{name}.toml")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return checkpoint.save(tmp_path / "checkpoints", 3, {"a": np.arange(6, dtype=np.float32)}, {"round": 3})


@FUZZ
@given(name=st.sampled_from(["tensors.safetensors", "state.json", "manifest.json"]), data=st.binary(max_size=300))
def test_no_bytes_break_the_reader_of_checkpoints(tmp_path: Path, name: str, data: bytes) -> None:
    folder = tmp_path / "checkpoints"
    path = checkpoint.save(folder, 3, {"a": np.arange(6, dtype=np.float32)}, {"round": 3})
    honest = (path / name).read_bytes()
    (path / name).write_bytes(data)
    if data != honest:
        with pytest.raises(CheckpointError):
            checkpoint.load(path)
        with pytest.raises(CheckpointError):
            checkpoint.newest(folder)


@pytest.mark.parametrize(
    "manifest", ["[]", '{"format": 1}', '{"format": 1, "files": 3}', '{"format": 2}', "[" * 99_999]
)
def test_a_manifest_of_another_form_is_damage(saved: Path, manifest: str) -> None:
    (saved / "manifest.json").write_text(manifest)
    with pytest.raises(CheckpointError):
        checkpoint.load(saved)


def test_a_checkpoint_is_not_unpickled(saved: Path) -> None:
    """A file that torch.load would run, with sums that fit."""
    import hashlib
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple:
            return (exec, ("raise SystemExit('a pickle was loaded')",))

    bomb = pickle.dumps(Bomb())
    (saved / "tensors.safetensors").write_bytes(bomb)
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest["files"]["tensors.safetensors"] = {"bytes": len(bomb), "sha256": hashlib.sha256(bomb).hexdigest()}
    (saved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError):
        checkpoint.load(saved)


def test_a_text_file_that_is_a_link_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text('{"text": "a", "label": "b"}\n')
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (folder / "test.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(InputError, match="points outside the folder"):
        load_data(DataSpec(path=str(folder)), "classification")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.binary(min_size=1, max_size=200), st.sampled_from([".jsonl", ".csv", ".tsv", ".parquet"]))
def test_no_bytes_break_the_readers_of_text(tmp_path: Path, data: bytes, ending: str) -> None:
    folder = tmp_path / "data"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for split in ("train", "test"):
        (folder / (split + ending)).write_bytes(data)
    with pytest.raises(InputError):
        load_data(DataSpec(path=str(folder)), "classification")


BUILTIN = Path(str(model_folder(ModelSpec())))
DAMAGES = {
    "weights that are garbage": ("model.safetensors", b"garbage"),
    "a header that promises more than there is": ("model.safetensors", (2**62).to_bytes(8, "little") + b"{}"),
    "no weights": ("model.safetensors", b""),
    "a configuration that is no JSON": ("config.json", b"{"),
    "a configuration of another kind": ("config.json", b"[]"),
    "a configuration of no type": ("config.json", b"{}"),
    "a tokenizer that is no JSON": ("tokenizer.json", b"{"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_folder_is_refused(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(BUILTIN, folder)
    name, content = DAMAGES[damage]
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=r"model\.path"):
        load_model(ModelSpec(path=str(folder)), ("a", "b"), 1)


def test_a_model_folder_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(BUILTIN, folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(BUILTIN / "model.safetensors")
    with pytest.raises(InputError, match="points outside the folder"):
        load_model(ModelSpec(path=str(folder)), ("a", "b"), 1)
