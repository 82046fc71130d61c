"""An exported ONNX graph as a module that is called like a transformers model."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from slimfed.clients.errors import InputError
from slimfed.clients.export.manifest import Manifest
from slimfed.clients.export.onnx import GRAPH, cache_names

_PROVIDERS = ["CPUExecutionProvider"]
_FATAL_ONLY = 3


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
        try:
            self.session = onnxruntime.InferenceSession(folder / GRAPH, options, providers=_PROVIDERS)
        except Exception as error:  # the runtime has a class of its own for every cause
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{str(folder / GRAPH)!r} cannot be opened: {reason}; export the model again") from None
        self.cached = manifest.task == "causal-lm"
        inputs = self.session.get_inputs()
        self.cache_shapes = [(each.shape[1], each.shape[3]) for each in inputs if each.name.startswith("past_")]
        self.past_names = cache_names(len(self.cache_shapes) // 2, "past_key_values")
        # Shows where the model lies to those who ask a module's parameters.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Output:
        """One pass from nothing; int64 [batch, length] both."""
        ids, mask = input_ids.numpy(), attention_mask.numpy()
        if not self.cached:
            return Output(torch.from_numpy(self.session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]))
        positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
        feed = self._feed(ids, mask, positions, self._empty(len(ids)))
        return Output(torch.from_numpy(self.session.run(["logits"], feed)[0]))

    def generate(self, ids: torch.Tensor, length: int, end: int | None) -> torch.Tensor:
        """The likeliest tokens after ``ids`` [1, prompt], up to ``length`` of them or the token ``end``."""
        new: list[int] = []
        cache, step, done = self._empty(1), ids.numpy(), 0
        while len(new) < length:
            done += step.shape[1]
            mask = np.ones((1, done), dtype=np.int64)
            positions = np.arange(done - step.shape[1], done)[None]
            logits, *cache = self.session.run(None, self._feed(step, mask, positions, cache))
            token = int(logits[0, -1].argmax())
            if token == end:
                break
            new.append(token)
            step = np.array([[token]])
        return torch.tensor([new], dtype=torch.int64)

    def _feed(
        self, ids: np.ndarray, mask: np.ndarray, positions: np.ndarray, cache: list[np.ndarray]
    ) -> dict[str, np.ndarray]:
        feed = {"input_ids": ids, "attention_mask": mask, "position_ids": np.ascontiguousarray(positions)}
        return feed | dict(zip(self.past_names, cache, strict=True))

    def _empty(self, batch: int) -> list[np.ndarray]:
        return [np.zeros((batch, heads, 0, width), dtype=np.float32) for heads, width in self.cache_shapes]
