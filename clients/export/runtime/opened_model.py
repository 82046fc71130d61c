"""Opening an exported folder of any format, to run it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import softmax
from transformers import PreTrainedTokenizerBase

from slimfed.clients.data.batching import PROMPT_END, chat_prompt_tokens, prompt_tokens, tokenise
from slimfed.clients.data.chat import stop_tokens
from slimfed.clients.data.conversations import Turn, uses_template, with_system
from slimfed.clients.data.split import TextSplit
from slimfed.clients.errors import InputError
from slimfed.clients.evaluation.generation import Prompts, collect, complete, likeness
from slimfed.clients.evaluation.metrics import evaluate
from slimfed.clients.export import manifest as manifests
from slimfed.clients.export.formats.registry import FORMATS
from slimfed.clients.export.manifest import Manifest
from slimfed.clients.spec import GenerationSpec
from slimfed.clients.update import Evaluation

_ENDLESS = 1_000_000


@dataclass(frozen=True)
class Prediction:
    """The prediction of a classifier: the most probable label, and the probability of each label."""

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
        """The label of each text, cut to the length of training. Raises ``InputError`` if the model has no labels."""
        labels = self.manifest.labels
        if self.manifest.task != "classification" or labels is None:
            raise InputError(f"this is a {self.manifest.task} model: it continues texts, it has no labels")
        predictions = []
        for start in range(0, len(texts), batch_size):
            chances = softmax(self.model(**self._encode(texts[start : start + batch_size])).logits, -1)
            for row in chances.tolist():
                predictions.append(Prediction(labels[row.index(max(row))], dict(zip(labels, row, strict=True))))
        return predictions

    def continuations(self, texts: Sequence[str], tokens: int) -> list[str]:
        """The likeliest continuation of each text, of at most ``tokens`` tokens, to the model's end token.

        A model that learnt completions of prompts takes each text as a prompt, one that learnt conversations as what
        the user says first. Raises ``InputError`` if the model is a
        classifier, or ``tokens`` is more than it can take.
        """
        if self.manifest.task != "causal-lm":
            raise InputError("this is a classification model: it says labels, it does not continue texts")
        room = (self.manifest.positions or _ENDLESS) - tokens
        if room < 1:
            raise InputError(f"{tokens} new tokens are more than the {self.manifest.positions} that the model can take")
        stops: tuple[int, ...] = ()
        if uses_template(self.manifest.data):
            asked = [with_system((Turn("user", text),), self.manifest.data.system) for text in texts]
            heads, stops = chat_prompt_tokens(self.tokenizer, asked, room), tuple(stop_tokens(self.tokenizer))
        else:
            heads = prompt_tokens(self.tokenizer, texts, room, PROMPT_END if self.manifest.prompted else "")
        prompts = Prompts(tuple(map(tuple, heads)), tuple(() for _ in heads), stops)
        return complete(self.model, self.tokenizer, prompts, tokens)

    def evaluate(self, split: TextSplit, spec: GenerationSpec) -> Evaluation:
        """The measures of training, on ``split``; with prompts, of ``spec.examples`` completions, too."""
        tokenised = tokenise(split, self.tokenizer, self.manifest.data.max_length)
        found = evaluate(self.model, tokenised)
        seed = self.manifest.provenance.seed
        prompts = collect(split, self.tokenizer, spec, self.manifest.data.max_length, seed)
        if self.manifest.task == "classification" or prompts is None:
            return found
        written = complete(self.model, self.tokenizer, prompts, spec.max_new_tokens)
        return replace(found, **vars(likeness(written, prompts.references)), generated=len(written))

    def _encode(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        batch = self.tokenizer(
            list(texts),
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=self.manifest.data.max_length,
            return_tensors="pt",
        )
        return {name: batch[name] for name in ("input_ids", "attention_mask")}


def open_model(folder: Path | str, base: Path | str | None = None, threads: int = 0) -> OpenedModel:
    """Open an exported folder of any format.

    ``base``: for ``peft``, where the unpruned base is, if not where the run had it. ``threads``: for ONNX Runtime; 0
    leaves it to the runtime. Raises ``InputError`` that names what is missing, changed or does not fit.
    """
    folder = Path(folder)
    manifest = manifests.read(folder)
    try:
        format = FORMATS[manifest.kind]
    except InputError as error:
        raise InputError(f"{str(folder)!r}: {error}; install what brings this format") from None
    if base is not None and not format.needs_base:
        raise InputError(f"--base: {str(folder)!r} holds a whole model ({manifest.kind}) and needs no base")
    model, tokenizer = format.open(folder, manifest, base=base, threads=threads)
    return OpenedModel(model.eval(), tokenizer, manifest)
