"""An exported ONNX graph as a module that is called like a transformers model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn
from transformers import GenerationConfig

from slimfed.clients.errors import InputError
from slimfed.clients.export.files.onnx import GRAPH, KEEP, cache_names
from slimfed.clients.export.manifest import Manifest

_PROVIDERS = ["CPUExecutionProvider"]
_FATAL_ONLY = 3


@contextmanager
def _in_words(path: Path, done: str) -> Iterator[None]:
    """Raise what the runtime finds wrong with a graph as ``InputError``; it names the node or the tensor."""
    try:
        yield
    except Exception as error:  # the runtime has a class of its own for every cause
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{str(path)!r} cannot be {done}: {reason}; export the model again") from None


@dataclass(frozen=True)
class Output:
    """What a model puts out: float32 [batch, classes], or [batch, length, vocabulary]."""

    logits: torch.Tensor


class OnnxModel(nn.Module):
    """``model(input_ids, attention_mask).logits`` by ONNX Runtime, and greedy generation with the cache."""

    def __init__(self, folder: Path, manifest: Manifest, threads: int = 0) -> None:
        """``threads``: 0 leaves their number to the runtime. Raises ``InputError`` if the graph cannot be opened."""
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _FATAL_ONLY
        with _in_words(folder / GRAPH, "opened"):
            self.session = onnxruntime.InferenceSession(folder / GRAPH, options, providers=_PROVIDERS)
        self.cached = manifest.task == "causal-lm"
        inputs = self.session.get_inputs()
        # Graphs of earlier versions always give all.
        self.counts_logits = KEEP in [each.name for each in self.session.get_overridable_initializers()]
        self.cache_shapes = [(each.shape[1], each.shape[3]) for each in inputs if each.name.startswith("past_")]
        self.past_names = cache_names(len(self.cache_shapes) // 2, "past_key_values")
        # Shows where the model lies to those who ask a module's parameters.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)
        with _in_words(folder / GRAPH, "run"):  # shapes that do not fit show only then
            token = torch.ones(1, 1, dtype=torch.int64)
            self.forward(token, token)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, logits_to_keep: int = 0) -> Output:
        """One pass from nothing; int64 [batch, length] both. ``logits_to_keep``: of so many last tokens; 0: of all."""
        ids, mask = input_ids.numpy(), attention_mask.numpy()
        if not self.cached:
            return Output(torch.from_numpy(self.session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]))
        positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
        feed = self._feed(ids, mask, positions, self.empty_cache(len(ids)), logits_to_keep)
        return Output(torch.from_numpy(self.session.run(["logits"], feed)[0]))

    def generate(
        self, ids: torch.Tensor, attention_mask: torch.Tensor, generation_config: GenerationConfig
    ) -> torch.Tensor:
        """``ids`` [batch, prompt], padded on the left, and the likeliest tokens after them; greedy only.

        A text that has come to its end token goes on with pad tokens until all have, or ``max_new_tokens`` are there.
        """
        end, pad = generation_config.eos_token_id, generation_config.pad_token_id
        step, mask, cache = ids.numpy(), attention_mask.numpy(), self.empty_cache(len(ids))
        positions = np.maximum(mask.cumsum(1) - 1, 0)
        open_texts, new = np.ones(len(ids), dtype=bool), []
        for _ in range(generation_config.max_new_tokens):
            logits, *cache = self.step(step, mask, positions, cache)
            token = np.where(open_texts, logits[:, -1].argmax(-1), pad if pad is not None else 0)
            new.append(token)
            open_texts &= token != end
            if not open_texts.any():
                break
            step, positions = token[:, None], positions[:, -1:] + 1
            mask = np.concatenate([mask, np.ones((len(ids), 1), dtype=np.int64)], axis=1)
        return torch.cat([ids, torch.from_numpy(np.stack(new, axis=1).astype(np.int64))], dim=1)

    def step(
        self, ids: np.ndarray, mask: np.ndarray, positions: np.ndarray, cache: list[np.ndarray]
    ) -> list[np.ndarray]:
        """One pass of a decoder: the last token's logits [batch, 1, vocabulary], then the cache with the new tokens."""
        outputs: list[np.ndarray] = self.session.run(None, self._feed(ids, mask, positions, cache, 1))
        return outputs

    def empty_cache(self, batch: int) -> list[np.ndarray]:
        """A decoder's cache before its first token."""
        return [np.zeros((batch, heads, 0, width), dtype=np.float32) for heads, width in self.cache_shapes]

    def _feed(
        self, ids: np.ndarray, mask: np.ndarray, positions: np.ndarray, cache: list[np.ndarray], keep: int
    ) -> dict[str, np.ndarray]:
        feed = {"input_ids": ids, "attention_mask": mask, "position_ids": np.ascontiguousarray(positions)}
        if self.counts_logits:
            feed[KEEP] = np.array(keep)
        return feed | dict(zip(self.past_names, cache, strict=True))
