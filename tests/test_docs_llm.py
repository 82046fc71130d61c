"""docs/llm.md does what it says, with the smallest decoder in place of a real one."""

import json
import re
import shlex
from pathlib import Path

import pytest
from exported import uniform_structure
from llama_cpp import LlamaCpp
from small_structures import draw_adapter
from typer.testing import CliRunner

from slimfed.clients.data.chat import CHATML
from slimfed.clients.export.formats.registry import FORMATS
from slimfed.clients.export.manifest import Provenance
from slimfed.clients.export.source import Source, digest
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.loading import load_model
from slimfed.clients.spec import AdapterSpec, DataSpec, ModelSpec
from slimfed.platform.cli import app

PAGE = Path(__file__).parents[1] / "docs" / "llm.md"

pytestmark = pytest.mark.timeout(900)


def blocks(language: str) -> list[str]:
    """The blocks of the page in a language; "" for commands."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def write_model(file: Path) -> None:
    """A GGUF file of the built-in decoder, with a chat template."""
    spec = ModelSpec(path="builtin:tiny-decoder", task="causal-lm")
    base = load_model(spec, None, 1)
    base.tokenizer.chat_template = CHATML
    blueprint = discover(base.model)
    adapter = draw_adapter(base.model, blueprint, 0)
    for factors in adapter.factors.values():
        factors.b[:] = 0
    attention, ffn = blueprint.blocks[0].units, blueprint.blocks[1].units
    origin = Source(
        base=base,
        spec=spec,
        structure=uniform_structure(blueprint, attention, ffn),
        adapter=adapter,
        adapter_spec=AdapterSpec(),
        data=DataSpec(),
        prompted=False,
        provenance=Provenance(
            **{"run": "r", "name": "n", "method": "m", "subject": "global", "round": 1, "seed": 0, "sparsity": 0.0},
            **{"created": "2026-01-01T00:00:00+00:00", "versions": {}},
        ),
        figures={},
        base_digest=digest(base),
        weights="q8_0",
    )
    FORMATS["gguf"].write(origin, file.parent / "dense")
    (file.parent / "dense" / "model.gguf").rename(file)


def test_the_page_leads_from_a_gguf_file_to_a_smaller_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "model.gguf")
    (tmp_path / "chat").mkdir()
    (rows,) = blocks("json")
    for name, times in (("train", 8), ("test", 2)):
        (tmp_path / "chat" / f"{name}.jsonl").write_text(rows * times, encoding="utf-8")
    (job,) = blocks("toml")
    (tmp_path / "llm.toml").write_text(job, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLIMFED_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SLIMFED_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SLIMFED_STORE", raising=False)
    commands = [line for block in blocks("") for line in block.splitlines() if line.startswith("slimfed ")]
    said = {line: slimfed(*shlex.split(line)[1:]) for line in commands}
    said = {" ".join(shlex.split(line)[1:3]): words for line, words in reversed(said.items())}
    assert "bits_per_byte" in said["evaluate phone"]
    assert "against the original file" in said["bench phone"]
    assert "base-origin" in slimfed("show", "last")
    manifest = json.loads((tmp_path / "phone" / "slimfed.json").read_text())
    assert manifest["weights"] == "q4_k_m"
    assert manifest["base"]["origin"].startswith("model.gguf (GGUF, Q8_0, SHA-256 ")
    assert manifest["provenance"]["sparsity"] > 0.1
    assert len(manifest["vocabulary"]["kept"]) < manifest["vocabulary"]["before"]
    assert "tokens left" in said["export last"]
    assert "bits a byte" in said["export last"]
    assert "You run a house." in (tmp_path / "phone" / "README.md").read_text()
    opened = LlamaCpp(tmp_path / "phone" / "model.gguf")
    assert len(opened.goes_on(opened.tokens("turn on the light"), 4)) == 4


def slimfed(*arguments: str) -> str:
    """What a command prints."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, f"{arguments}\n{result.output}"
    return result.output
