"""Opening an exported folder of any format, to run it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import softmax
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from slimfed.clients.batches import PROMPT_END
from slimfed.clients.errors import InputError
from slimfed.clients.export import manifest as manifests
from slimfed.clients.export.manifest import Manifest
from slimfed.clients.export.slim import SlimModel, load_slim, load_tokenizer


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of a text: the likeliest label, and the probability of each."""

    label: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class OpenedModel:
    """``model(input_ids=..., attention_mask=...).logits`` whatever the format, on the CPU."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    manifest: Manifest

    @torch.inference_mode()
    def classify(self, texts: Sequence[str], batch_size: int = 32) -> list[Prediction]:
        """The label of each text. Raises ``InputError`` if the model is no classifier."""
        labels = self.manifest.labels
        if self.manifest.task != "classification" or labels is None:
            raise InputError(f"this is a {self.manifest.task} model: it continues texts, it has no labels")
        predictions = []
        for start in range(0, len(texts), batch_size):
            batch = self._encode(list(texts[start : start + batch_size]), self.manifest.max_length)
            chances = softmax(self.model(**batch).logits, -1)
            for row in chances.tolist():
                predictions.append(Prediction(labels[row.index(max(row))], dict(zip(labels, row, strict=True))))
        return predictions

    @torch.inference_mode()
    def complete(self, prompt: str, tokens: int, after_prompt: bool = False) -> str:
        """The likeliest continuation of ``prompt``, of at most ``tokens`` tokens; ends with the model's end token.

        ``after_prompt``: the model was trained on prompts and completions, so what stood between them comes first.
        Raises ``InputError`` if the model is a classifier.
        """
        if self.manifest.task != "causal-lm":
            raise InputError("this is a classification model: it says labels, it does not continue texts")
        ids = self._encode([prompt + PROMPT_END * after_prompt], None)["input_ids"]
        end = self.tokenizer.eos_token_id
        if isinstance(self.model, PreTrainedModel):
            options = {"max_new_tokens": tokens, "do_sample": False, "use_cache": True}
            options |= {"pad_token_id": self.tokenizer.pad_token_id, "eos_token_id": end}
            mask = torch.ones_like(ids)
            new = self.model.generate(ids, attention_mask=mask, **options)[:, ids.shape[1] :]
        else:
            new = self.model.generate(ids, tokens, end)  # type: ignore[operator]  # OnnxModel
        return str(self.tokenizer.decode(new[0], skip_special_tokens=True))

    def _encode(self, texts: list[str], longest: int | None) -> dict[str, torch.Tensor]:
        self.tokenizer.padding_side = "right"
        batch = self.tokenizer(
            texts, padding=True, truncation=longest is not None, max_length=longest, return_tensors="pt"
        )
        return {name: batch[name] for name in ("input_ids", "attention_mask")}


def open_model(folder: Path | str, base: Path | str | None = None, threads: int = 0) -> OpenedModel:
    """Open an exported folder of any format.

    ``base``: for ``peft``, where the unpruned base is, if not where the run had it. ``threads``: for ONNX Runtime; 0
    leaves it to the runtime. Raises ``InputError`` that names what is missing, changed or does not fit.
    """
    folder = Path(folder)
    manifest = manifests.read(folder)
    if base is not None and manifest.kind != "peft":
        raise InputError(f"--base: {str(folder)!r} holds a whole model ({manifest.kind}) and needs no base")
    if manifest.kind == "onnx":
        from slimfed.clients.export.session import OnnxModel

        return OpenedModel(OnnxModel(folder, manifest, threads), load_tokenizer(folder), manifest)
    slim = _opened(folder, manifest, base)
    return OpenedModel(slim.model, slim.tokenizer, slim.manifest)


def _opened(folder: Path, manifest: Manifest, base: Path | str | None) -> SlimModel:
    if manifest.kind == "peft":
        from slimfed.clients.export.peft import load_peft

        return load_peft(folder, manifest, base)
    if manifest.kind == "gguf":
        from slimfed.clients.export.gguf import load_gguf

        return load_gguf(folder, manifest)
    return load_slim(folder)
