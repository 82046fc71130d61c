"""An exported decoder as a model of lm-eval (EleutherAI's evaluation harness), whatever its format."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from slimfed.clients.data.batching import PROMPT_END
from slimfed.clients.errors import InputError
from slimfed.clients.export.runtime.opened_model import OpenedModel

_UNLIMITED = 2048
_NEW_TOKENS = 64
_BOOTSTRAPS = 1000  # for the standard errors of perplexity and the like


class ExportedLM(TemplateLM):
    """Scores and continues texts one at a time, on the CPU."""

    def __init__(self, opened: OpenedModel) -> None:
        """Raises ``InputError`` if the model is no causal-lm."""
        if opened.manifest.task != "causal-lm":
            raise InputError("lm-eval takes a causal-lm model; this one says labels")
        super().__init__()
        self.opened = opened
        self.longest = opened.manifest.positions or _UNLIMITED

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text, and stands for an empty context."""
        return int(self.opened.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token that a text began with in training."""
        begin = self.opened.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_kwargs: Any) -> list[int]:
        """Token ids of a text; none are added unless asked for."""
        ids: list[int] = self.opened.tokenizer(string, add_special_tokens=bool(add_special_tokens))["input_ids"]
        return ids

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **_kwargs: Any
    ) -> list[tuple[float, bool]]:
        return [self._score(context, continuation) for _, context, continuation in requests]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of whole texts, in windows of the longest length the model can take."""
        totals = []
        for (text,) in (request.args for request in requests):
            windows = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.longest, 1)
            totals.append(sum(self._score(*make_disjoint_window(window))[0] for window in windows))
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy continuations, cut before the first of the strings in ``until``."""
        return [self._continue(*request.args) for request in requests]

    @torch.inference_mode()
    def _score(self, context: Sequence[int], continuation: Sequence[int]) -> tuple[float, bool]:
        """Log-probability of ``continuation`` after ``context``, and whether every token of it is the likeliest."""
        ids = [*context, *continuation][-(self.longest + 1) :]
        inputs = torch.tensor([ids[:-1]])
        logits = self.opened.model(input_ids=inputs, attention_mask=torch.ones_like(inputs)).logits[0].float()
        logits = logits[-len(continuation) :]
        targets = torch.tensor(ids[-len(continuation) :])
        chances = logits.log_softmax(-1).gather(1, targets[:, None])
        return float(chances.sum()), bool((logits.argmax(-1) == targets).all())

    def _continue(self, context: str, options: dict[str, Any]) -> str:
        until = options.get("until") or []
        limit = min(int(options.get("max_gen_toks", _NEW_TOKENS)), self.longest - 1)
        # A task brings its own prompt as it is to be read.
        ended = context.removesuffix(PROMPT_END) if self.opened.manifest.prompted else context
        text = self.opened.continuations([ended], limit)[0]
        for stop in [until] if isinstance(until, str) else until:
            text = text.split(stop)[0] if stop else text
        return text


def run_tasks(opened: OpenedModel, tasks: Sequence[str], folder: Path | None, limit: int | None) -> dict[str, Any]:
    """Results of lm-eval by task. ``folder``: where task files of one's own are; ``limit``: examples a task.

    Raises ``InputError`` if there is no such task.
    """
    manager = TaskManager(include_path=str(folder) if folder else None, include_defaults=folder is None)
    strange = [task for task in tasks if task not in manager.all_tasks]
    if strange:
        raise InputError(f"--lm-eval = {strange[0]!r}: lm-eval has no such task" + (f" in {folder}" if folder else ""))
    with redirect_stdout(sys.stderr):  # it prints as it goes
        found = simple_evaluate(
            model=ExportedLM(opened),
            tasks=list(tasks),
            task_manager=manager,
            limit=limit,
            bootstrap_iters=_BOOTSTRAPS,
        )
    return {
        task: {
            name.removesuffix(",none"): value
            for name, value in found["results"][task].items()
            if isinstance(value, int | float)
        }
        for task in tasks
    }
