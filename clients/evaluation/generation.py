"""Completions of test prompts by a language model, and their comparison with references."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from slimfed.clients.data.batching import chat_prompt_tokens, prompt_tokens
from slimfed.clients.data.chat import before_answer, stop_tokens
from slimfed.clients.data.conversations import Chat
from slimfed.clients.data.split import TextSplit
from slimfed.clients.evaluation.batch_size import rows_to_complete
from slimfed.clients.plain_text import clean_lines
from slimfed.clients.spec import GenerationSpec
from slimfed.clients.update import Sample

SAMPLES = 16
"""Completions that are kept for reading."""
_LONGEST, _REFERENCES = 2000, 3


@dataclass(frozen=True)
class Prompts:
    """Different prompts as tokens, and every completion that the test split has for each.

    ``stops``: the tokens that end a completion; empty: the tokenizer's end token.
    """

    tokens: tuple[tuple[int, ...], ...]
    references: tuple[tuple[str, ...], ...]
    stops: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)


def collect(
    split: TextSplit, tokenizer: PreTrainedTokenizerBase, spec: GenerationSpec, max_length: int, seed: int
) -> Prompts | None:
    """A seeded sample of ``spec.examples`` different prompts of ``split``; None if it has none, or none is wanted.

    Rows with the same prompt are one example with several references. A prompt is truncated at the beginning if it is
    longer than ``max_length`` tokens, or than what the model can take leaves beside ``spec.max_new_tokens``.
    """
    if not split.prompted or spec.examples == 0:
        return None
    room = min(max_length, tokenizer.model_max_length - spec.max_new_tokens)
    if split.chats is not None:
        asked = [before_answer(chat) for chat in split.chats]
        chats, references = _sample(asked, split.text, spec.examples, seed)
        tokens = tuple(map(tuple, chat_prompt_tokens(tokenizer, chats, room)))
        return Prompts(tokens, references, tuple(stop_tokens(tokenizer)))
    texts, references = _sample(split.prompt or (), split.text, spec.examples, seed)
    return Prompts(tuple(map(tuple, prompt_tokens(tokenizer, texts, room))), references)


_Asked = TypeVar("_Asked", str, Chat)


def _sample(
    asked: Sequence[_Asked], said: Sequence[str], examples: int, seed: int
) -> tuple[list[_Asked], tuple[tuple[str, ...], ...]]:
    """A seeded sample of different prompts, and every text that answers each."""
    references: dict[_Asked, list[str]] = {}
    for prompt, text in zip(asked, said, strict=True):
        references.setdefault(prompt, []).append(text)
    every = list(references)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(every))[:examples])
    return [every[index] for index in chosen], tuple(tuple(references[every[index]]) for index in chosen)


def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Prompts,
    max_new_tokens: int,
    dtype: torch.dtype = torch.float32,
    rows: int | None = None,
    done: Callable[[int], object] = lambda _prompts: None,
) -> list[str]:
    """Greedy completions of each prompt by ``model``, to its end token or ``max_new_tokens``, in order.

    Prompts of similar length share a batch, padded on the left; keys and values are kept from step to step. Completions
    do not depend on the batches but for rounding. ``rows``: most prompts in a batch; default: by the device and its
    free memory (:func:`prompts_at_once`). The batches of a call have equal sizes, to within one prompt.
    ``done`` is called with the number of prompts after every batch.
    """
    device = next(model.parameters()).device
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=list(prompts.stops) or tokenizer.eos_token_id,
    )
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts.tokens[index]))
    count = -(-len(order) // (rows or prompts_at_once(model, prompts, max_new_tokens)))
    written = [""] * len(prompts)
    with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        for places in (part.tolist() for part in np.array_split(order, count)):
            ids, mask = _padded([prompts.tokens[place] for place in places], tokenizer.pad_token_id)
            made = model.generate(ids.to(device), attention_mask=mask.to(device), generation_config=config)
            texts = tokenizer.batch_decode(made[:, ids.shape[1] :].cpu(), skip_special_tokens=True)
            for place, text in zip(places, texts, strict=True):
                written[place] = text.strip()
            done(len(places))
    return written


def some_samples(tokenizer: PreTrainedTokenizerBase, prompts: Prompts, written: Sequence[str]) -> tuple[Sample, ...]:
    """The first :data:`SAMPLES` completions with their prompts and references, to be read by people."""
    count = min(SAMPLES, len(prompts))
    asked = tokenizer.batch_decode([list(tokens) for tokens in prompts.tokens[:count]], skip_special_tokens=True)
    return tuple(
        Sample(clean_lines(prompt, _LONGEST), tuple(clean_lines(each, _LONGEST) for each in others[:_REFERENCES]), text)
        for prompt, others, text in zip(
            asked, prompts.references[:count], (clean_lines(each, _LONGEST) for each in written[:count]), strict=True
        )
    )


def prompts_at_once(model: PreTrainedModel, prompts: Prompts, max_new_tokens: int) -> int:
    """Prompts that ``model`` continues at once, by the speed of its device and the free memory."""
    longest = max(map(len, prompts.tokens), default=1)
    return rows_to_complete(model, next(model.parameters()).device, longest, max_new_tokens)


@dataclass(frozen=True)
class Likeness:
    """Similarity of completions and references, each measure in [0, 1]."""

    exact_match: float
    rouge_l: float
    bleu: float


def likeness(written: Sequence[str], references: Sequence[Sequence[str]]) -> Likeness:
    """Compare each text with all of its references.

    * ``exact_match``: share of texts that equal one of their references, ignoring white space. * ``rouge_l``: F-measure
    of the longest common subsequence with the best reference, mean over the texts (Lin 2004); tokens are runs of
    letters and digits, in lower case. * ``bleu``: of the whole corpus, n-grams up to 4 that any reference has, brevity
    against the closest length, no smoothing (Papineni et al. 2002; tokenised as mteval-v13a does, like sacreBLEU).
    """
    # Only here: it brings matplotlib and seconds with it, into nodes that never compare a text.
    from torchmetrics.functional.text import rouge_score, sacre_bleu_score

    pairs = list(zip(written, references, strict=True))
    matches = [any(_plain(text) == _plain(other) for other in others) for text, others in pairs]
    others = [list(each) for each in references]
    rouge = rouge_score(list(written), others, accumulate="best", rouge_keys="rougeL")
    bleu = sacre_bleu_score(list(written), others, tokenize="13a")
    return Likeness(float(np.mean(matches)), float(rouge["rougeL_fmeasure"]), float(bleu))


def _plain(text: str) -> str:
    return " ".join(text.split())


def _padded(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, int64 [rows, length], padded on the left."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask
