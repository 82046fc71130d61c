"""The real llama.cpp, through its server on a port of this computer."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import xllamacpp


class LlamaCpp:
    """One GGUF file, opened. Keys and values stay in float32, so that logits can be compared."""

    def __init__(self, file: Path) -> None:
        settings = xllamacpp.CommonParams()
        settings.model.path = str(file)
        settings.n_ctx, settings.n_parallel, settings.port = 128, 1, 0
        settings.warmup, settings.verbosity = False, 0
        settings.cpuparams.n_threads = 1
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        self._server = xllamacpp.Server(settings)

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text, with those that are put before it."""
        return self._ask("/tokenize", {"content": text, "add_special": True})["tokens"]

    def goes_on(self, tokens: list[int], count: int) -> list[int]:
        """The greedy continuation."""
        return self._ask("/completion", _greedy(tokens, count))["tokens"]

    def next_token(self, tokens: list[int], count: int) -> dict[int, float]:
        """The log-probabilities of the most likely next tokens; empty if the first is a part of a character."""
        (*found,) = self._ask("/completion", _greedy(tokens, 1) | {"n_probs": count}).get(
            "completion_probabilities", []
        )
        return {each["id"]: each["logprob"] for step in found for each in step["top_logprobs"]}

    def _ask(self, path: str, document: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self._server.listening_address + path,
            json.dumps(document).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


def _greedy(tokens: list[int], count: int) -> dict[str, Any]:
    return {"prompt": tokens, "n_predict": count, "temperature": 0, "return_tokens": True, "cache_prompt": False}
