"""A trimmed tokenizer divides the chosen texts as before, and loses no character of any other."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from byte_level import HARD, byte_level
from exported import tokenizer as whole_words
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from trimming import pieces, sentencepiece_bpe, unigram, used, written

from slimfed.clients.builtin.commands import commands
from slimfed.clients.errors import InputError
from slimfed.clients.export.vocabulary.tokens import kept_tokens, trimmed_tokenizer
from slimfed.clients.models.loading import load_model
from slimfed.clients.spec import ModelSpec

TEXTS = [row.text for row in commands()[1][:40]]
OTHERS = [row.text for row in commands()[1][40:200]] + list(HARD)


def wordpiece() -> PreTrainedTokenizerFast:
    return load_model(ModelSpec(path="builtin:tiny-encoder"), ("no", "yes"), 0).tokenizer


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    **{kind: lambda kind=kind: byte_level(kind) for kind in ("gpt-2", "smollm", "qwen2", "llama-bpe", "tekken")},
    "sentencepiece": sentencepiece_bpe,
    "unigram": unigram,
    "wordpiece": wordpiece,
}


def trimmed(words: PreTrainedTokenizerFast, texts: list[str], at_least: int = 0) -> PreTrainedTokenizerFast:
    return trimmed_tokenizer(words, kept_tokens(words, used(words, texts), at_least))


@pytest.mark.parametrize("kind", KINDS)
def test_chosen_texts_have_the_same_tokens_and_others_are_written_back(kind: str) -> None:
    words = KINDS[kind]()
    small = trimmed(words, TEXTS)
    assert len(small) < len(words)
    assert [said for said in TEXTS if pieces(small, said) != pieces(words, said)] == []
    assert [said for said in OTHERS if written(small, said) != written(words, said)] == []
    assert any(pieces(small, said) != pieces(words, said) for said in OTHERS)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(said=st.text(max_size=40), chosen=st.lists(st.sampled_from(OTHERS), max_size=4))
def test_any_text_is_written_back_whatever_was_chosen(kind: str, said: str, chosen: list[str]) -> None:
    words = KINDS[kind]()
    small = trimmed(words, chosen)
    assert written(small, said) == written(words, said)
    assert all(pieces(small, each) == pieces(words, each) for each in chosen)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_chosen_first_is_used_most(kind: str) -> None:
    words = KINDS[kind]()
    least, more = trimmed(words, []), trimmed(words, [], len(words) - 40)
    assert len(least) < len(more)
    assert len(words) - 40 <= len(more) < len(words) - 36
    length = {small: sum(len(pieces(small, said)) for said in OTHERS) for small in (least, more, words)}
    assert length[words] <= length[more] < length[least]
    assert len(trimmed(words, [], len(words))) == len(words)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_same_after_saving(kind: str, tmp_path: Path) -> None:
    words = KINDS[kind]()
    words.chat_template = "{{ messages }}"
    small = trimmed(words, TEXTS)
    small.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert [pieces(again, said) for said in OTHERS] == [pieces(small, said) for said in OTHERS]
    assert again.get_vocab() == small.get_vocab()
    assert sorted(again.get_vocab().values()) == list(range(len(again)))
    names = ("pad_token", "bos_token", "eos_token", "unk_token", "chat_template")
    assert [getattr(again, name) for name in names] == [getattr(words, name) for name in names]
    assert set(words.added_tokens_encoder) == set(again.added_tokens_encoder)
    assert again.convert_ids_to_tokens(again.pad_token_id) == words.pad_token


def test_the_original_is_left_as_it_is() -> None:
    words = byte_level("llama-bpe")
    before = words.backend_tokenizer.to_str()
    trimmed(words, TEXTS)
    assert words.backend_tokenizer.to_str() == before


def test_a_token_that_no_merge_reaches_stays_if_it_is_used() -> None:
    """Llama 3 takes words that are tokens as they are."""
    words = byte_level("llama-bpe")
    inner = words.backend_tokenizer
    document = json.loads(inner.to_str())
    document["model"]["merges"] = [pair for pair in document["model"]["merges"] if "".join(pair) != "light"]
    words = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(document)), pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    small = trimmed(words, ["light", "turn"])
    assert pieces(small, "light") == pieces(words, "light")
    assert written(small, "lightning") == written(words, "lightning")


def test_tokenizers_of_other_kinds_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="--trim-vocabulary: the model's tokenizer is of type WordLevel; valid: BPE"):
        kept_tokens(whole_words(), [])
    inner = Tokenizer(models.BPE({"a</w>": 0, "<pad>": 1}, [], end_of_word_suffix="</w>"))
    ends = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>")
    with pytest.raises(InputError, match="marks the beginnings or the ends of words"):
        kept_tokens(ends, [])
    with pytest.raises(InputError, match="--min-tokens = 601: the model's tokenizer has 600"):
        kept_tokens(byte_level("gpt-2"), [], 601)
