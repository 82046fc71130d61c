import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from slimfed.platform.server import checkpoint
from slimfed.platform.server.checkpoint import CheckpointError

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "bits": np.array([1, 255], dtype=np.uint8)}
STATE = {"round": 3, "bandits": [{"state": 2**127 + 1}], "clock": 0.1 + 0.2}

kinds = st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_])
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
tensors = st.dictionaries(st.text(st.characters(codec="ascii"), max_size=8), hnp.arrays(kinds, shapes), max_size=4)
states = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tensors, st.dictionaries(st.text(max_size=5), states, max_size=3))
def test_what_is_saved_is_loaded_to_the_bit(tmp_path: Path, saved: dict, state: dict) -> None:
    loaded, same = checkpoint.load(checkpoint.save(tmp_path, 1, saved, state))
    assert set(loaded) == set(saved)
    for name, tensor in saved.items():
        assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape)
        assert loaded[name].tobytes() == tensor.tobytes()
    assert same == state


def test_transposed_and_sliced_tensors_keep_their_values(tmp_path: Path) -> None:
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    loaded, _ = checkpoint.load(checkpoint.save(tmp_path, 1, {"t": base.T, "s": base[::2, 1:4]}, {}))
    np.testing.assert_array_equal(loaded["t"], base.T)
    np.testing.assert_array_equal(loaded["s"], base[::2, 1:4])


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for number in range(1, 6):
        checkpoint.save(tmp_path, number, TENSORS, STATE)
    assert checkpoint.rounds(tmp_path) == [4, 5]
    assert checkpoint.newest(tmp_path) == checkpoint.path_of(tmp_path, 5)
    assert checkpoint.newest(tmp_path, at_most=4) == checkpoint.path_of(tmp_path, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round-00004", "round-00005"]


def test_an_older_course_replaces_a_newer_one(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        checkpoint.save(tmp_path, number, TENSORS, STATE)
    checkpoint.save(tmp_path, 2, TENSORS, {"other": True})
    assert checkpoint.rounds(tmp_path) == [2]
    assert checkpoint.load(checkpoint.path_of(tmp_path, 2))[1] == {"other": True}


def test_the_digest_depends_on_contents_alone(tmp_path: Path) -> None:
    one = checkpoint.describe(checkpoint.save(tmp_path / "a", 3, TENSORS, STATE))
    same = checkpoint.describe(checkpoint.save(tmp_path / "b", 3, TENSORS, STATE))
    other = checkpoint.describe(checkpoint.save(tmp_path / "c", 3, TENSORS, {**STATE, "clock": 0.3}))
    assert one == same
    assert one.digest != other.digest
    assert (one.round, len(one.digest)) == (3, 64)
    assert one.bytes > 24


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["cut", "flip", "remove", "empty"])
def test_a_damaged_one_is_refused_and_the_one_before_taken(
    tmp_path: Path, name: str, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        checkpoint.save(tmp_path, number, TENSORS, STATE)
    file = checkpoint.path_of(tmp_path, 2) / name
    content = bytearray(file.read_bytes())
    if harm == "flip":
        # Within the manifest: one digit of a digest, so that it still is JSON.
        place = content.index(b"sha256") + 11 if name == "manifest.json" else len(content) // 2
        content[place] = ord("0") if content[place] != ord("0") else ord("1")
    if harm == "remove":
        file.unlink()
    else:
        file.write_bytes({"cut": content[:-7], "flip": content, "empty": b""}[harm])
    with pytest.raises(CheckpointError, match=r"round-00002.*is damaged.*delete the folder"):
        checkpoint.load(checkpoint.path_of(tmp_path, 2))
    with caplog.at_level(logging.WARNING):
        assert checkpoint.newest(tmp_path) == checkpoint.path_of(tmp_path, 1)
    assert "round-00002" in caplog.text
    found, refused = checkpoint.survey(tmp_path)
    assert found == checkpoint.path_of(tmp_path, 1)
    assert len(refused) == 1


def test_nothing_is_none_and_only_damaged_ones_are_an_error(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "missing") is None
    path = checkpoint.save(tmp_path, 1, TENSORS, STATE)
    assert checkpoint.newest(tmp_path, at_most=0) is None
    (path / "state.json").unlink()
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.newest(tmp_path)


def test_half_written_ones_do_not_count_and_are_cleared(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, TENSORS, STATE)
    shutil.copytree(checkpoint.path_of(tmp_path, 1), tmp_path / ".writing-99")
    assert checkpoint.rounds(tmp_path) == [1]
    checkpoint.save(tmp_path, 2, TENSORS, STATE)
    assert not list(tmp_path.glob(".*"))


def test_a_failed_write_leaves_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, 1, TENSORS, STATE)

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("slimfed.platform.server.checkpoint.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, 1, TENSORS, {"new": 1})
    assert checkpoint.load(checkpoint.path_of(tmp_path, 1))[1] == STATE


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, TENSORS, STATE)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(CheckpointError, match="has format 2; valid: 1"):
        checkpoint.load(path)
