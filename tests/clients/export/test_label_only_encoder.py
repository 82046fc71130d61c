"""The lean pass of an encoder says what transformers' own modules say, for texts of any number and length."""

from pathlib import Path

import onnxruntime
import pytest
import torch
from exported import close, logits, source
from small_models import build, tokens

from slimfed.clients.export.bench.bench import write_dense_twin
from slimfed.clients.export.formats.registry import FORMATS
from slimfed.clients.export.label_only_encoder import LeanEncoder, can_be_lean
from slimfed.clients.export.manifest import read
from slimfed.clients.export.runtime.opened_model import open_model
from slimfed.clients.models.discovery import discover

ENCODERS = ("bert", "roberta", "distilbert")


def batches() -> list[dict[str, torch.Tensor]]:
    full = {name: value[:2] for name, value in tokens(7).items()}
    one = {name: value[:1, :1] for name, value in tokens(8).items()}
    return [tokens(4), tokens(5, rows=5, length=14), full, one]


@pytest.mark.parametrize("family", ENCODERS)
def test_it_is_the_same_model(family: str) -> None:
    origin = source(family, causal=False)
    for model in (origin.model(), build(family)):
        lean = LeanEncoder(model).eval()
        for batch in batches():
            close(logits(lean, batch), logits(model, batch))


@pytest.mark.parametrize("family", ENCODERS)
def test_folders_are_opened_lean_and_their_dense_twins_as_asked(family: str, tmp_path: Path) -> None:
    manifest = FORMATS["safetensors"].write(source(family, causal=False), tmp_path / "out")
    assert manifest.lean
    assert isinstance(open_model(tmp_path / "out").model, LeanEncoder)
    for lean in (True, False):
        twin = write_dense_twin(tmp_path / "out", manifest, tmp_path / str(lean), lean)
        assert isinstance(open_model(twin).model, LeanEncoder) == lean
        assert read(twin).structure(discover(build(family))).sparsity == 0


def test_decoders_and_other_tasks_are_left_alone(tmp_path: Path) -> None:
    assert not can_be_lean(build("llama"), "classification")
    assert not can_be_lean(build("gpt2", True), "causal-lm")
    assert not FORMATS["safetensors"].write(source("llama", causal=True), tmp_path / "out").lean


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_onnx_decoder_gives_all_logits_or_the_last(family: str, tmp_path: Path) -> None:
    origin = source(family, causal=True)
    FORMATS["onnx"].write(origin, tmp_path / "out")
    opened, batch = open_model(tmp_path / "out").model, tokens(4)
    whole = logits(origin.model(), batch)
    with torch.no_grad():
        close(opened(**batch, logits_to_keep=1).logits, whole[:, -1:])
        close(opened(**batch, logits_to_keep=3).logits, whole[:, -3:])
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    assert "num_logits_to_keep" not in [each.name for each in session.get_inputs()]  # nobody has to know of it
    ids, mask = (batch[name].numpy() for name in ("input_ids", "attention_mask"))
    feed = opened._feed(
        ids, mask, torch.arange(ids.shape[1]).expand(ids.shape).numpy(), opened.empty_cache(len(ids)), 0
    )
    del feed["num_logits_to_keep"]
    close(torch.from_numpy(session.run(["logits"], feed)[0]), whole)
