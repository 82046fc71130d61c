"""``slimfed push``: what is shown, what is sent, and what is refused, with a hub on this computer."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import TOKEN, FakeHub, fake_hub
from finished_run import RUN, finished_run
from typer.testing import CliRunner, Result

from slimfed.clients.export import load_slim
from slimfed.platform.cli import app

runner = CliRunner()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an exported folder; the home."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLIMFED_HOME", str(home))
        patch.delenv("SLIMFED_STORE", raising=False)
        finished_run(home)
        result = runner.invoke(app, ["export", RUN, "--out", str(home / "model")])
        assert result.exit_code == 0, result.output
    return home


@pytest.fixture
def hub(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setenv("SLIMFED_HOME", str(exported))
    monkeypatch.delenv("SLIMFED_STORE", raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # `make test` switches hubs off
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # the fake hub has plain uploads alone
    with fake_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub


def push(*arguments: str, said: str = "") -> Result:
    return runner.invoke(app, ["push", *arguments], input=said)


def sent(hub: FakeHub) -> list[str]:
    """What changed the hub."""
    return [each for each in hub.asked if "create" in each or "commit" in each or each.startswith("PUT")]


def test_a_folder_is_sent_whole_private_and_after_asking(hub: FakeHub, exported: Path, tmp_path: Path) -> None:
    result = push(str(exported / "model"), "ann/lights", said="y\n")
    assert result.exit_code == 0, result.output
    assert f"to {hub.address}/ann/lights, as ann" in result.stderr
    assert "private: its owner alone sees it; a new repository" in result.stderr
    assert "model.safetensors" in result.stderr
    assert result.stdout.strip().endswith(f"{hub.address}/ann/lights")
    assert hub.private == {"ann/lights": True}
    files = {path.name: path.read_bytes() for path in (exported / "model").iterdir()}
    assert hub.models["ann/lights"] == files
    assert hub.messages == [f"global model of run {RUN}, by slimfed"]
    back = tmp_path / "back"
    back.mkdir()
    for name, data in hub.models["ann/lights"].items():
        (back / name).write_bytes(data)
    assert load_slim(back).manifest.provenance.run == RUN
    assert files["README.md"].startswith(b"---\nlibrary_name: ")


def test_a_run_is_exported_first(hub: FakeHub) -> None:
    result = push("last", "ann/run", "--format", "onnx", "--yes", "--public", "--json")
    assert result.exit_code == 0, result.output
    assert "PUBLIC: everybody sees it" in result.stderr
    assert "model.onnx" in hub.models["ann/run"]
    assert hub.private == {"ann/run": False}
    assert json.loads(result.stdout)["files"]["model.onnx"] == len(hub.models["ann/run"]["model.onnx"])


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_nothing_is_sent_without_a_yes(hub: FakeHub, exported: Path, answer: str) -> None:
    result = push(str(exported / "model"), "ann/lights", said=answer)
    assert result.exit_code == 1
    assert sent(hub) == []


def test_more_is_added_to_what_is_there_but_nothing_private_to_a_public_one(hub: FakeHub, exported: Path) -> None:
    hub.models["ann/lights"], hub.private["ann/lights"] = {"notes.txt": b"mine"}, False
    refused = push(str(exported / "model"), "ann/lights", "--yes")
    assert refused.exit_code == 2
    assert "is on the hub already and public: give --public" in refused.stderr
    assert sent(hub) == []
    hub.private["ann/lights"] = True
    done = push(str(exported / "model"), "ann/lights", "--yes")
    assert done.exit_code == 0, done.output
    assert "adds a commit to what is there" in done.stderr
    assert not any("create" in each for each in hub.asked)
    assert hub.models["ann/lights"]["notes.txt"] == b"mine"


@pytest.mark.parametrize(
    ("refuse", "words"),
    [
        ({"whoami": 401}, "does not accept the token"),
        ({"repos/create": 403}, "does not let this token write to 'ann/lights': you may not"),
        ({"/commit/": 403}, "does not let this token write to 'ann/lights'"),
        ({"repos/create": 409}, "refused 'ann/lights' (status 409)"),
    ],
    ids=["token", "create", "commit", "conflict"],
)
def test_a_refusal_is_told(hub: FakeHub, exported: Path, refuse: dict[str, int], words: str) -> None:
    hub.refuse = refuse
    result = push(str(exported / "model"), "ann/lights", "--yes")
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("error: ") == 1


def test_a_wrong_token_and_none_at_all(hub: FakeHub, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert "does not accept the token" in push(str(exported / "model"), "ann/lights", "--yes").stderr
    monkeypatch.delenv("HF_TOKEN")
    result = push(str(exported / "model"), "ann/lights", "--yes")
    assert result.exit_code == 2
    assert "there is no token of a hub here: `hf auth login`, or set HF_TOKEN" in result.stderr


def test_a_hub_that_does_not_answer(hub: FakeHub, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    result = push(str(exported / "model"), "ann/lights", "--yes")
    assert result.exit_code == 2
    assert "http://127.0.0.1:9 cannot be reached" in result.stderr


def test_with_hubs_switched_off_nothing_is_asked(hub: FakeHub, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = push(str(exported / "model"), "ann/lights", "--yes")
    assert result.exit_code == 2
    assert "HF_HUB_OFFLINE is set: nothing can be sent; unset it" in result.stderr
    assert hub.asked == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["MODEL", "lights"], "'lights' must be written as user/name"),
        (["MODEL", "ann/li ghts"], "cannot name a model on a hub"),
        (["MODEL", "ann/lights", "--format", "onnx"], "is a folder, which has its format"),
        (["none", "ann/lights"], "there is no such run"),
        (["last", "ann/lights", "--format", "pickle"], "--format = 'pickle': must be one of"),
        ([".", "ann/lights"], "was not written by `slimfed export`"),
    ],
)
def test_bad_input_asks_no_hub(hub: FakeHub, exported: Path, arguments: list[str], words: str) -> None:
    result = push(*(str(exported / "model") if each == "MODEL" else each for each in arguments), "--yes")
    assert result.exit_code == 2
    assert words in result.stderr
    assert hub.asked == []


def test_a_changed_folder_is_not_sent(hub: FakeHub, exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported / "model", tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{}")
    result = push(str(tmp_path / "model"), "ann/lights", "--yes")
    assert result.exit_code == 2
    assert "config.json is not what was exported" in result.stderr
    assert hub.asked == []


def test_places_of_this_computer_are_pointed_out(hub: FakeHub, exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported / "model", tmp_path / "model")
    document = json.loads((tmp_path / "model" / "slimfed.json").read_text())
    document["data"]["path"] = "/home/ann/secret"
    (tmp_path / "model" / "slimfed.json").write_text(json.dumps(document))
    result = push(str(tmp_path / "model"), "ann/lights", said="n\n")
    assert "its slimfed.json names a place of this computer: data.path = '/home/ann/secret'" in result.stderr
