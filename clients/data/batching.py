"""Tokenising text, and batches of tokens: texts of similar length together, padded to the longest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from slimfed.clients.data.chat import prompt_text, tokenise_chats
from slimfed.clients.data.conversations import Chat
from slimfed.clients.data.split import TextSplit
from slimfed.clients.errors import InputError

Batch = dict[str, torch.Tensor]
PROMPT_END = "\n"
"""Separator between a prompt and its completion; also append it to a prompt before generating."""
_IGNORED = -100


@dataclass(frozen=True)
class TokenisedSplit:
    """A split as tokens.

    ``tokens``: int32, all examples concatenated; ``offsets``: int64 [examples + 1], the start of each example.
    ``labels``: int64 [examples] for classification, else ``None``. ``prompt_lengths``: int64 [examples], leading tokens
    that are not in the loss (causal-lm with prompts; else 0). Batches are padded with ``pad_id`` on the right to the
    longest example, rounded up to a multiple of ``pad_multiple``. ``learnt``: bool [tokens], those in the loss; None:
    all behind the prompts. ``truncated``: the number of examples with a prompt that were longer, and were cut.
    ``target_bytes``: int64 [examples], of the text that is predicted (UTF-8); None for classification. ``choices``: of
    every example that is a question with choices.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray | None
    prompt_lengths: np.ndarray
    pad_id: int
    pad_multiple: int = 1
    learnt: np.ndarray | None = None
    truncated: int = 0
    target_bytes: np.ndarray | None = None
    choices: "Choices | None" = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, int64 [examples]."""
        return np.diff(self.offsets)

    def collate(self, rows: np.ndarray | Sequence[int]) -> Batch:
        """Examples ``rows`` as one batch, ready for ``model(**batch)``.

        ``input_ids`` and ``attention_mask``: int64 [batch, length]; ``labels``: int64 [batch] for classification, for
        causal-lm [batch, length] with -100 on prompts and padding.
        """
        rows = np.asarray(rows, dtype=np.int64)
        lengths = self.lengths[rows]
        width = -(-int(lengths.max()) // self.pad_multiple) * self.pad_multiple
        columns = np.arange(width)
        inside = columns < lengths[:, None]
        positions = np.minimum(self.offsets[rows, None] + columns, len(self.tokens) - 1)
        ids = np.where(inside, self.tokens[positions], self.pad_id).astype(np.int64)
        if self.labels is not None:
            labels = self.labels[rows]
        else:
            learnt = inside & (columns >= self.prompt_lengths[rows, None])
            if self.learnt is not None:
                learnt &= self.learnt[positions]
            labels = np.where(learnt, ids, _IGNORED)
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(inside.astype(np.int64)),
            "labels": torch.from_numpy(labels),
        }


@dataclass(frozen=True)
class Choices:
    """The choices of all questions as tokens, each behind its question, without an end token.

    ``first``: int64 [questions + 1], the first row of each question. ``right``: int64 [questions], the place of the
    right one among them. ``bytes``: int64 [rows], of the choice.
    """

    split: TokenisedSplit
    first: np.ndarray
    right: np.ndarray
    bytes: np.ndarray

    def span(self, question: int) -> tuple[int, int]:
        """The rows of a question: the first, and the one behind the last."""
        return int(self.first[question]), int(self.first[question + 1])


def training_batches(
    split: TokenisedSplit, rows: np.ndarray, batch_size: int, steps: int, seed: int, turn: int
) -> Iterator[Batch]:
    """``steps`` batches of exactly ``batch_size`` of ``rows``, texts of similar length in one batch.

    Rows are drawn by :func:`row_batches`; those of one pass over the device's rows are sorted by length and assigned to
    the steps of that pass. ``turn`` determines the order of short and long batches: devices with equal ``turn`` have
    texts of similar length at the same step, so that the batches of a cohort also need little padding.
    """
    order = np.random.default_rng(turn).permutation(steps)
    drawn = row_batches(rows, batch_size, seed)
    window = max(1, len(rows) // batch_size)
    for start in range(0, steps, window):
        places = order[start : start + window]
        chosen = np.concatenate([next(drawn) for _ in places])
        chosen = chosen[np.argsort(split.lengths[chosen], kind="stable")].reshape(len(places), batch_size)
        for rank in np.argsort(np.argsort(places)):
            yield split.collate(chosen[rank])


def probe_batches(split: TokenisedSplit, rows: np.ndarray, batch_size: int, count: int, seed: int) -> tuple[Batch, ...]:
    """Up to ``count`` batches of different ``rows``, the last may be smaller; equal for equal seeds.

    Short texts come first, so that batches need little padding.
    """
    chosen = np.random.default_rng(seed).permutation(rows)[: batch_size * count]
    chosen = chosen[np.argsort(split.lengths[chosen], kind="stable")]
    return tuple(split.collate(chosen[i : i + batch_size]) for i in range(0, len(chosen), batch_size))


def row_batches(rows: np.ndarray, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Endless draws of ``batch_size`` rows, int64: every row once before any row again.

    Batches continue across epochs, so that all batches have the same size; with fewer rows than ``batch_size`` some
    rows occur more than once in a batch.
    """
    rng = np.random.default_rng(seed)
    waiting = np.empty(0, dtype=np.int64)
    while True:
        while len(waiting) < batch_size:
            waiting = np.concatenate([waiting, rng.permutation(np.asarray(rows, dtype=np.int64))])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def tokenise(
    split: TextSplit, tokenizer: PreTrainedTokenizerBase, max_length: int, pad_multiple: int = 1
) -> TokenisedSplit:
    """Tokenise ``split``: at most ``max_length`` tokens an example, with labels if the split has them.

    Texts of classification and plain text are truncated at the end. With prompts, an example is the prompt,
    :data:`PROMPT_END`, the completion and the end token; a completion is truncated at the end, and a prompt at the
    beginning. Conversations: see :func:`tokenise_chats`. Raises :class:`InputError` if the model cannot take
    ``max_length`` tokens.
    """
    if max_length > tokenizer.model_max_length:
        raise InputError(
            f"data.max_length = {max_length} is more than the {tokenizer.model_max_length} tokens the model can take"
        )
    examples: list[list[int]]
    learnt, truncated = None, 0
    if not len(split):  # tokenizers refuse empty lists
        examples, prompt_lengths = [], np.zeros(0, dtype=np.int64)
    elif split.chats is not None:
        found = list(tokenise_chats(tokenizer, split.chats, max_length))
        examples, truncated = [each.tokens for each in found], sum(each.truncated for each in found)
        learnt = np.array([flag for each in found for flag in each.learnt], dtype=bool)
        prompt_lengths = np.zeros(len(examples), dtype=np.int64)
    elif split.label is not None:
        examples = tokenizer(list(split.text), truncation=True, max_length=max_length)["input_ids"]
        prompt_lengths = np.zeros(len(examples), dtype=np.int64)
    elif split.prompt is None:
        examples = _plain(tokenizer, split.text, max_length)
        prompt_lengths = np.zeros(len(examples), dtype=np.int64)
    else:
        examples, prompt_lengths, truncated = _pairs(tokenizer, split.prompt, split.text, max_length)
    lengths = np.array([len(example) for example in examples], dtype=np.int64)
    tokens = np.fromiter((token for example in examples for token in example), dtype=np.int32, count=int(lengths.sum()))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    pad_id = int(tokenizer.pad_token_id)  # load_model makes sure there is one
    made = TokenisedSplit(tokens, offsets, split.label, prompt_lengths, pad_id, pad_multiple, learnt, truncated)
    if split.label is not None:
        return made
    choices = _tokenised_choices(split, tokenizer, max_length, pad_id)
    return replace(made, target_bytes=_target_bytes(made, token_bytes(tokenizer)), choices=choices)


def _tokenised_choices(
    split: TextSplit, tokenizer: PreTrainedTokenizerBase, max_length: int, pad_id: int
) -> Choices | None:
    if split.choices is None or split.prompt is None or split.right is None:
        return None
    every = [(asked, choice) for asked, among in zip(split.prompt, split.choices, strict=True) for choice in among]
    asked, said = [question for question, _ in every], [choice for _, choice in every]
    examples, prompt_lengths, _ = _pairs(tokenizer, asked, said, max_length, ended=False)
    offsets = np.cumsum([0, *map(len, examples)])
    tokens = np.array([token for example in examples for token in example], dtype=np.int32)
    first = np.cumsum([0, *map(len, split.choices)])
    sizes = np.array([len(choice.encode()) for choice in said], dtype=np.int64)
    rows = TokenisedSplit(tokens, offsets, None, prompt_lengths, pad_id)
    return Choices(rows, first, np.array(split.right, dtype=np.int64), sizes)


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Bytes of text (UTF-8) that each token stands for, int64 [tokens]; 0 for special tokens."""
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    backend = getattr(tokenizer, "backend_tokenizer", None)
    byte_level = backend is not None and '"ByteLevel"' in backend.to_str()
    added = tokenizer.added_tokens_decoder
    sizes = np.array([_text_bytes(name, byte_level and index not in added) for index, name in enumerate(names)])
    special = {*tokenizer.all_special_ids, *(index for index, token in added.items() if token.special)}
    sizes[[index for index in special if index < len(sizes)]] = 0
    return sizes.astype(np.int64)


def _text_bytes(name: str | None, byte_level: bool) -> int:
    if name is None:
        return 0
    if byte_level:  # a character stands for a byte
        return len(name)
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):  # a byte of SentencePiece
        return 1
    return len(name.replace("\u2581", " ").encode())


def _target_bytes(split: TokenisedSplit, sizes: np.ndarray) -> np.ndarray:
    """Bytes of the predicted text of each example; the first token of an example is not predicted."""
    example = np.repeat(np.arange(len(split)), split.lengths)
    place = np.arange(len(split.tokens)) - split.offsets[:-1][example]
    counted = place >= np.maximum(split.prompt_lengths, 1)[example]
    if split.learnt is not None:
        counted &= split.learnt
    return np.bincount(example[counted], weights=sizes[split.tokens[counted]], minlength=len(split)).astype(np.int64)


def prompt_tokens(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_length: int, end: str = PROMPT_END
) -> list[list[int]]:
    """The tokens before each completion in :func:`tokenise`: at most ``max_length``, truncated at the beginning.

    ``end`` = "": for texts that are continued as they are.
    """
    begin = begin_tokens(tokenizer)
    heads = tokenizer([prompt + end for prompt in prompts], add_special_tokens=False, verbose=False)["input_ids"]
    room = max_length - len(begin)
    return [begin + head[max(0, len(head) - room) :] for head in heads]


def chat_prompt_tokens(tokenizer: PreTrainedTokenizerBase, chats: Sequence[Chat], max_length: int) -> list[list[int]]:
    """The tokens that conversations are answered from: at most ``max_length``, truncated at the beginning."""
    texts = [prompt_text(tokenizer, chat) for chat in chats]
    if not texts:
        return []
    heads = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return [head[max(0, len(head) - max_length) :] for head in heads]


def _plain(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> list[list[int]]:
    begin, end = begin_tokens(tokenizer), _end(tokenizer)
    bodies = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return [(begin + body + end)[:max_length] for body in bodies]


def _pairs(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    completions: Sequence[str],
    max_length: int,
    ended: bool = True,
) -> tuple[list[list[int]], np.ndarray, int]:
    begin, end = begin_tokens(tokenizer), _end(tokenizer) if ended else []
    heads = tokenizer([prompt + PROMPT_END for prompt in prompts], add_special_tokens=False, verbose=False)["input_ids"]
    tails = tokenizer(list(completions), add_special_tokens=False, verbose=False)["input_ids"]
    examples, prompt_lengths, truncated = [], [], 0
    for head, tail in zip(heads, tails, strict=True):
        # One token at least precedes the completion: the first token of a sequence is never predicted.
        learnt = (tail + end)[: max_length - len(begin) - 1]
        room = max_length - len(begin) - len(learnt)
        before = begin + head[max(0, len(head) - room) :]
        examples.append(before + learnt)
        prompt_lengths.append(len(before))
        truncated += len(begin) + len(head) + len(tail) + len(end) > max_length
    return examples, np.array(prompt_lengths, dtype=np.int64), truncated


def begin_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that the tokenizer adds before a text."""
    token = tokenizer.bos_token_id
    plain = tokenizer("a")["input_ids"]
    return [token] if token is not None and plain and plain[0] == token else []


def _end(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    token = tokenizer.eos_token_id
    return [] if token is None else [token]
