"""Conversations as tokens, through the tokenizer's chat template, with the loss on the assistant's turns alone.

A template is a program that writes a whole conversation as text. Which of the text are the assistant's words is found
by putting marks in their place. What stands before an answer is divided into tokens without it, as it is when the model
answers. A tokenizer that begins every text with a space gets the whole text, and answers are found by their places.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from slimfed.clients.data.conversations import ASSISTANT, Chat, Turn, uses_template
from slimfed.clients.errors import InputError
from slimfed.clients.spec import DataSpec

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' "
    "+ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_MARK = "\ue000{}\ue001"  # of a private area, and long enough that no template takes it for anything else


@dataclass(frozen=True)
class ChatTokens:
    """One conversation: its tokens, which of them are in the loss, and whether some of it was left out."""

    tokens: list[int]
    learnt: list[bool]
    truncated: bool


def use_template(tokenizer: PreTrainedTokenizerBase, data: DataSpec) -> None:
    """Give ``tokenizer`` the template that the job asks for. Raises :class:`InputError` if it has none."""
    if not uses_template(data):
        return
    if data.template == "chatml":
        tokenizer.chat_template = CHATML
    if not tokenizer.chat_template:
        field = f'data.messages = "{data.messages}"' if data.messages is not None else 'data.template = "tokenizer"'
        raise InputError(f'{field}: the model\'s tokenizer has no chat template; set data.template = "chatml"')
    if not isinstance(tokenizer.chat_template, str):
        raise InputError('data.template: the tokenizer has several chat templates; set data.template = "chatml"')
    stop_tokens(tokenizer)


def prompt_text(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> str:
    """The text that ``chat`` is answered from: its turns, and the beginning of the assistant's next."""
    return _render(tokenizer, chat, answer=True)


def whole_text(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> str:
    """The text of a whole conversation."""
    return _render(tokenizer, chat)


def before_answer(chat: Chat) -> Chat:
    """The turns before the assistant's last."""
    return chat[: _answers(chat)[-1]]


def stop_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end what the assistant says: the template's own, and the tokenizer's end token."""
    spans = _spans(tokenizer, (Turn("user", "a"), Turn(ASSISTANT, "b")))
    found = [] if spans.ender is None else [int(tokenizer.convert_tokens_to_ids(spans.ender))]
    end = tokenizer.eos_token_id
    return list(dict.fromkeys([*found, *([] if end is None else [int(end)])]))


def tokenise_chats(tokenizer: PreTrainedTokenizerBase, chats: Sequence[Chat], max_length: int) -> Iterator[ChatTokens]:
    """The tokens of each conversation up to the end of the assistant's last turn, at most ``max_length``.

    Of a longer one the oldest exchanges are left out, but for a system message; of a single exchange that is longer,
    the beginning of what stands before the answer, and the end of an answer only as far as it takes more than half of
    ``max_length``. Raises :class:`InputError` for a conversation that the template cannot write.
    """
    for chat in chats:
        left, found = chat, _tokens(tokenizer, chat)
        while len(found.tokens) > max_length and (shorter := _without_oldest(left)) is not None:
            left, found = shorter, _tokens(tokenizer, shorter)
        if len(found.tokens) > max_length:
            found = _cut(found, max_length)
        yield ChatTokens(found.tokens, found.learnt, len(left) < len(chat) or found.truncated)


@dataclass(frozen=True)
class _Spans:
    """A conversation as text, the places of what is learnt in it, and the token that ends the last answer."""

    text: str
    learnt: tuple[tuple[int, int], ...]
    ender: str | None


def _tokens(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> ChatTokens:
    spans = _spans(tokenizer, chat)
    ids, learnt = _as_one(tokenizer, spans) if _adds_space(tokenizer) else _in_parts(tokenizer, spans)
    if spans.ender is None and tokenizer.eos_token_id is not None:  # the template does not say where an answer ends
        ids.append(int(tokenizer.eos_token_id))
        learnt.append(True)
    return ChatTokens(ids, learnt, False)


def _in_parts(tokenizer: PreTrainedTokenizerBase, spans: _Spans) -> tuple[list[int], list[bool]]:
    bounds = [0, *(bound for span in spans.learnt for bound in span)]
    parts = [spans.text[start:end] for start, end in pairwise(bounds)]
    ids: list[int] = []
    learnt: list[bool] = []
    for place, part in enumerate(tokenizer(parts, add_special_tokens=False, verbose=False)["input_ids"]):
        ids += part
        learnt += [place % 2 == 1] * len(part)
    return ids, learnt


def _as_one(tokenizer: PreTrainedTokenizerBase, spans: _Spans) -> tuple[list[int], list[bool]]:
    encoded = tokenizer(spans.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    starts = [start for start, _ in encoded["offset_mapping"]]
    return list(encoded["input_ids"]), [any(first <= start < last for first, last in spans.learnt) for start in starts]


def _adds_space(tokenizer: PreTrainedTokenizerBase) -> bool:
    return bool(tokenizer.tokenize("a")[0].startswith("\u2581"))


def _spans(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> _Spans:
    """Raises :class:`InputError` if the template changes what the assistant says."""
    answers = _answers(chat)
    chat = chat[: answers[-1] + 1]
    marks = {place: _MARK.format(place) for place in answers}
    marked = tuple(Turn(turn.role, marks.get(place, turn.content)) for place, turn in enumerate(chat))
    rest, gaps = _render(tokenizer, marked), []
    for mark in marks.values():
        gap, found, rest = rest.partition(mark)
        if not found or mark in rest:
            raise _refused("does not write every turn of the assistant once")
        gaps.append(gap)
    whole = _render(tokenizer, chat)
    for said in ([chat[place].content for place in answers], [chat[place].content.strip() for place in answers]):
        if whole == "".join(part for pair in zip(gaps, said, strict=True) for part in pair) + rest:
            return _placed(tokenizer, gaps, said, rest)
    raise _refused("changes what the assistant says")


def _placed(tokenizer: PreTrainedTokenizerBase, gaps: Sequence[str], said: Sequence[str], rest: str) -> _Spans:
    enders = sorted({token.content for token in tokenizer.added_tokens_decoder.values()}, key=len, reverse=True)
    text, learnt, last = "", [], None
    for gap, words, after in zip(gaps, said, [*gaps[1:], rest], strict=True):
        text += gap
        ended, last = _ending(after, enders)
        learnt.append((len(text), len(text) + len(words) + len(ended)))
        text += words
    return _Spans(text + ended, tuple(learnt), last)


def _ending(after: str, enders: Sequence[str]) -> tuple[str, str | None]:
    """The beginning of ``after`` through the token that ends a turn, and this token; empty if there is none."""
    bare = after.lstrip()
    ender = next((token for token in enders if token and bare.startswith(token)), None)
    return ("", None) if ender is None else (after[: len(after) - len(bare) + len(ender)], ender)


def _without_oldest(chat: Chat) -> Chat | None:
    """``chat`` without its oldest exchange; None if it has one only."""
    answers = _answers(chat)
    if len(answers) == 1:
        return None
    system = chat[:1] if chat[0].role == "system" else ()
    return (*system, *chat[answers[0] + 1 :])


def _cut(found: ChatTokens, max_length: int) -> ChatTokens:
    begin = found.learnt.index(True) if True in found.learnt else len(found.tokens)
    answer = min(len(found.tokens) - begin, max(max_length - begin, max_length // 2))
    before = max_length - answer
    kept = slice(begin - before, begin + answer)
    return ChatTokens(found.tokens[kept], found.learnt[kept], True)


def _answers(chat: Chat) -> list[int]:
    return [place for place, turn in enumerate(chat) if turn.role == ASSISTANT]


def _render(tokenizer: PreTrainedTokenizerBase, chat: Chat, answer: bool = False) -> str:
    messages: list[dict[str, Any]] = [{"role": turn.role, "content": turn.content} for turn in chat]
    try:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=answer, enable_thinking=False
        )
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise _refused(f"does not take these turns: {' '.join(str(error).split())[:150]}") from None
    return text


def _refused(cause: str) -> InputError:
    return InputError(f'data.template: the tokenizer\'s chat template {cause}; try data.template = "chatml"')
