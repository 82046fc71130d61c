"""Conversations become the tokens that the template writes; the loss is on what the assistant says, token by token."""

import copy
import json
from pathlib import Path

import pytest
import torch
from byte_level import byte_level
from smollm2 import smollm2
from transformers import PreTrainedTokenizerBase

from slimfed.clients.data.batching import tokenise
from slimfed.clients.data.chat import CHATML, before_answer, prompt_text, stop_tokens, use_template
from slimfed.clients.data.conversations import Chat, Turn, with_system
from slimfed.clients.data.split import TextSplit
from slimfed.clients.data.text import load_data
from slimfed.clients.errors import InputError
from slimfed.clients.evaluation.generation import collect
from slimfed.clients.models.loading import load_model
from slimfed.clients.spec import DataSpec, GenerationSpec, ModelSpec

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}<start_of_turn>{{ 'model' if m.role == 'assistant' "
    "else m.role }}\n{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}"
    "<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
PLAIN = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "gemma": GEMMA, "qwen3": QWEN3, "plain": PLAIN}
ENDERS = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>", "gemma": "<end_of_turn>", "qwen3": "<|im_end|>", "plain": ""}
TOKENS = [
    *("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<start_of_turn>", "<end_of_turn>", "<think>", "</think>"),
]
CHAT: Chat = (
    Turn("user", "turn on the light"),
    Turn("assistant", "The light is on."),
    Turn("user", "12345, caf\u00e9 \U0001f600?"),
    Turn("assistant", " Yes: \u4f60\u597d\n"),
)


def speaking(kind: str) -> PreTrainedTokenizerBase:
    words = copy.deepcopy(byte_level("llama-bpe" if kind == "llama3" else "gpt-2"))
    words.add_special_tokens({"additional_special_tokens": TOKENS})
    words.chat_template = TEMPLATES[kind]
    words.model_max_length = 4096
    return words


def split(*chats: Chat) -> TextSplit:
    return TextSplit([chat[-1].content for chat in chats], chats=chats)


def learnt(words: PreTrainedTokenizerBase, chat: Chat, max_length: int = 512) -> tuple[list[int], list[str]]:
    """The tokens of an example, and the texts of the stretches of it that are in the loss."""
    batch = tokenise(split(chat), words, max_length).collate([0])
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
    stretches: list[list[int]] = [[]]
    for token, label in zip(ids, labels, strict=True):
        if label == -100:
            stretches.append([])
        else:
            stretches[-1].append(token)
    return ids, [words.decode(each) for each in stretches if each]


@pytest.mark.parametrize("kind", TEMPLATES)
def test_the_loss_is_on_the_assistants_turns_alone(kind: str) -> None:
    words = speaking(kind)
    messages = [{"role": turn.role, "content": turn.content} for turn in CHAT]
    ids, said = learnt(words, CHAT)
    whole = words.apply_chat_template(messages, tokenize=True, return_dict=False, enable_thinking=False)
    trims, ender = kind in ("llama3", "gemma"), ENDERS[kind]
    last = CHAT[3].content.strip() if trims else CHAT[3].content
    if ender:
        text = words.apply_chat_template(messages, tokenize=False, enable_thinking=False)
        assert text.startswith(words.decode(ids))  # a line break behind the last turn is left out
        assert whole[: len(ids)] == ids
        assert said == [CHAT[1].content + ender, last + ender]
    else:
        assert ids == [*words(words.apply_chat_template(messages, tokenize=False).removesuffix("\n"))["input_ids"], 2]
        assert said == [CHAT[1].content, last + "</s>"]
    prompt = words(prompt_text(words, before_answer(CHAT)), add_special_tokens=False)["input_ids"]
    assert ids[: len(prompt)] == prompt  # what is answered in training is what is answered later
    expected = [words.convert_tokens_to_ids(ender)] if ender else []
    assert stop_tokens(words) == [*expected, words.eos_token_id]


@pytest.mark.parametrize("kind", ["chatml", "llama3"])
def test_a_system_message_is_there_and_not_learnt(kind: str) -> None:
    words, chat = speaking(kind), with_system(CHAT, "Be brief.")
    ids, said = learnt(words, chat)
    assert "Be brief." in words.decode(ids)
    assert len(said) == 2
    assert with_system(chat, "Other.") == chat


@pytest.mark.parametrize("max_length", [60, 30, 12, 5])
def test_a_cut_never_takes_the_whole_answer(max_length: int) -> None:
    words = speaking("chatml")
    found = tokenise(split(with_system(CHAT, "Be brief."), CHAT[:2]), words, max_length)
    assert found.lengths.max() <= max_length
    for row in range(2):
        labels = found.collate([row])["labels"][0]
        assert int((labels != -100).sum()) >= min(max_length // 2, 5)
    assert found.truncated == (1 if max_length >= 30 else 2)


def test_the_oldest_exchange_goes_first_and_the_system_message_stays() -> None:
    words = speaking("chatml")
    chat = with_system(CHAT, "Be brief.")
    shorter = (chat[0], *chat[3:])
    room = len(tokenise(split(shorter), words, 512).tokens)
    assert learnt(words, chat, room) == learnt(words, shorter)


def test_what_is_generated_from_is_what_stands_before_the_last_answer() -> None:
    words = speaking("chatml")
    prompts = collect(split(CHAT, CHAT[:2]), words, GenerationSpec(), 512, 0)
    assert prompts is not None
    assert prompts.references == ((CHAT[3].content,), (CHAT[1].content,))
    assert prompts.stops == tuple(stop_tokens(words))
    assert words.decode(prompts.tokens[1]).endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize(
    ("template", "cause"),
    [
        (None, 'has no chat template; set data.template = "chatml"'),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "changes what the assistant says"),
        ("{{ messages[0].content }}", "does not write every turn of the assistant once"),
        ("{{ raise_exception('no') }}", "does not take these turns: no"),
        ("{{ messages[", "does not take these turns"),
    ],
    ids=["none", "upper", "first", "raises", "broken"],
)
def test_a_template_that_cannot_be_used_is_refused(template: str | None, cause: str) -> None:
    words = speaking("chatml")
    words.chat_template = template
    with pytest.raises(InputError, match=cause):
        use_template(words, DataSpec(messages="messages"))
    use_template(words, DataSpec(messages="messages", template="chatml"))
    assert learnt(words, CHAT)[1][0] == "The light is on.<|im_end|>"


def test_turns_that_a_template_does_not_take() -> None:
    with pytest.raises(InputError, match="roles must alternate"):
        tokenise(split((Turn("user", "a"), Turn("user", "b"), Turn("assistant", "c"))), speaking("gemma"), 64)


def write(folder: Path, rows: list[object]) -> Path:
    for name in ("train", "test"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def messages(*turns: tuple[str, str]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def test_rows_with_messages_and_rows_with_prompts_are_conversations(tmp_path: Path) -> None:
    said = write(tmp_path, [messages(("user", "a"), ("assistant", "b")) | {"q": "a", "a": "b"}])
    first = load_data(DataSpec(path=str(said), messages="messages", system="Be brief."), "causal-lm")
    pairs = DataSpec(path=str(said), prompt="q", completion="a", template="tokenizer", system="Be brief.")
    second = load_data(pairs, "causal-lm")
    for data in (first, second):
        assert data.train.prompted
        assert data.train.chats == [(Turn("system", "Be brief."), Turn("user", "a"), Turn("assistant", "b"))]
    plain = load_data(DataSpec(path=str(said), prompt="q", completion="a"), "causal-lm")
    assert (plain.train.chats, plain.train.prompt) == (None, ["a"])


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        ("text", "line 2 .* is str, must be a list of turns"),
        ([{"role": "user"}], r"has a turn \(1\) without role and content"),
        ([{"role": "user", "content": "a"}], "has no turn of the role assistant"),
        ([{"role": "assistant", "content": " "}], "has no turn of the role assistant"),
        ([], "1 of 2 rows of train.jsonl are empty: line 2"),
    ],
    ids=["text", "turn", "assistant", "blank", "empty"],
)
def test_a_row_that_is_no_conversation_is_refused_with_its_line(value: object, cause: str, tmp_path: Path) -> None:
    write(tmp_path, [messages(("user", "a"), ("assistant", "b")), {"messages": value}])
    with pytest.raises(InputError, match=cause):
        load_data(DataSpec(path=str(tmp_path), messages="messages"), "causal-lm")


def test_fields_that_do_not_go_together() -> None:
    for fields, cause in (
        ({"messages": "m", "prompt": "p", "completion": "c"}, "give one of them"),
        ({"messages": "m", "template": "none"}, "are written by a template"),
        ({"system": "s"}, "needs data.messages"),
    ):
        with pytest.raises(ValueError, match=cause):
            DataSpec(**fields)
    with pytest.raises(InputError, match=r'needs model\.task = "causal-lm"'):
        load_data(DataSpec(messages="m"), "classification")


def test_smollm2_is_tuned_on_the_tokens_that_it_speaks(monkeypatch: pytest.MonkeyPatch, shared_cache: Path) -> None:
    monkeypatch.setenv("SLIMFED_CACHE", str(shared_cache))
    loaded = load_model(ModelSpec(path=str(smollm2()), task="causal-lm"), None, 1)
    words = loaded.tokenizer
    ids, said = learnt(words, CHAT)
    assert said == ["The light is on.<|im_end|>", " Yes: \u4f60\u597d\n<|im_end|>"]
    turns = [{"role": turn.role, "content": turn.content} for turn in CHAT]
    assert words.apply_chat_template(turns, return_dict=False)[: len(ids)] == ids
    asked = (Turn("user", "What is the capital of France?"), Turn("assistant", "The capital of France is Paris."))
    ids, _ = learnt(words, asked)
    with torch.no_grad():
        chances = loaded.model(torch.tensor([ids])).logits[0].softmax(-1)
    assert float(chances[-2, ids[-1]]) > 0.5  # the model itself ends its turn here
