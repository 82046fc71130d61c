"""What a decoder writes, step by step without a cache, and how it is judged."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import DECODERS, build
from small_structures import draw_structure
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from slimfed.clients import builtin
from slimfed.clients.data.batching import PROMPT_END, tokenise
from slimfed.clients.data.split import TextSplit
from slimfed.clients.evaluation.generation import Prompts, collect, complete, likeness
from slimfed.clients.models.discovery import discover
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.spec import GenerationSpec


class Numbers:
    """A tokenizer whose words are its tokens."""

    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2

    def batch_decode(self, rows: torch.Tensor, skip_special_tokens: bool) -> list[str]:
        assert skip_special_tokens
        return [" ".join(str(token) for token in row if token > 2) for row in rows.tolist()]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    folder = Path(next(iter(builtin.__path__))) / "weights" / "tiny-decoder"
    return AutoTokenizer.from_pretrained(folder, model_max_length=256)


def greedily(model: torch.nn.Module, prompt: tuple[int, ...], steps: int) -> str:
    """One prompt alone, every step from the start."""
    ids = list(prompt)
    for _ in range(steps):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == Numbers.eos_token_id:
            break
    return " ".join(str(token) for token in ids[len(prompt) :] if token > 2)


@pytest.mark.parametrize("family", DECODERS)
def test_a_sliced_model_writes_in_a_batch_what_it_writes_alone(family: str) -> None:
    base = build(family, causal=True, seed=3)
    base.config.use_cache = False  # as models are loaded
    model = slice_model(base, draw_structure(discover(base), 5))
    tokens = ((5, 9, 30), (7,), (11, 12, 13, 14, 15, 16), (100, 3))
    written = complete(model, Numbers(), Prompts(tokens, (("x",),) * 4), 6)
    assert written == [greedily(model, prompt, 6) for prompt in tokens]
    assert any(written)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@settings(max_examples=8, deadline=None)
@given(st.lists(st.lists(st.integers(3, 119), min_size=1, max_size=9), min_size=1, max_size=7), st.integers(1, 8))
def test_a_completion_does_not_depend_on_its_batch(family: str, tokens: list[list[int]], rows: int) -> None:
    model = build(family, causal=True, seed=3)
    prompts = Prompts(tuple(map(tuple, tokens)), (("x",),) * len(tokens))
    assert complete(model, Numbers(), prompts, 5, rows=rows) == [greedily(model, tuple(each), 5) for each in tokens]


def test_prompts_are_asked_once_with_all_their_references(tokenizer: PreTrainedTokenizerBase) -> None:
    split = TextSplit(["red", "blue", "round", "crimson"], ["a rose", "the sky", "a ball", "a rose"])
    found = collect(split, tokenizer, GenerationSpec(), 32, 1)
    assert found is not None
    assert found.references == (("red", "crimson"), ("blue",), ("round",))
    trained = tokenise(split, tokenizer, 32)
    for row, tokens in zip((0, 1, 2), found.tokens, strict=True):
        begin = trained.offsets[row]
        assert list(tokens) == trained.tokens[begin : begin + trained.prompt_lengths[row]].tolist()


def test_long_prompts_keep_their_end_and_leave_room(tokenizer: PreTrainedTokenizerBase) -> None:
    split = TextSplit(["x"], ["turn on the light " * 200 + "now"])
    for max_length, longest, room in ((40, 64, 40), (256, 200, 56)):
        found = collect(split, tokenizer, GenerationSpec(max_new_tokens=longest), max_length, 1)
        assert found is not None
        assert len(found.tokens[0]) == room
        assert tokenizer.decode(found.tokens[0]).endswith("now" + PROMPT_END)


def test_the_sample_is_seeded_and_may_be_empty(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = [f"prompt {number}" for number in range(50)]
    split = TextSplit(["x"] * 50, prompts)
    one, same, other = (collect(split, tokenizer, GenerationSpec(examples=9), 32, seed) for seed in (1, 1, 2))
    assert one is not None
    assert len(one) == 9
    assert one == same != other
    assert collect(split, tokenizer, GenerationSpec(examples=0), 32, 1) is None
    assert collect(TextSplit(["plain text"]), tokenizer, GenerationSpec(), 32, 1) is None


def test_measures_take_the_best_of_several_references() -> None:
    written = ["a cheap place by the river", "the  Eagle is a pub"]
    references = [["Alimentum is dear .", "a cheap place by the river"], ["the Eagle is a pub", "a pub"]]
    perfect = likeness(written, references)
    assert (perfect.exact_match, perfect.rouge_l) == (1.0, pytest.approx(1.0))
    assert perfect.bleu == pytest.approx(1.0)
    alone = likeness(written, [each[:1] for each in references])
    assert alone.exact_match == 0.5
    assert alone.rouge_l < perfect.rouge_l
    nothing = likeness(["", ""], references)
    assert (nothing.exact_match, nothing.rouge_l, nothing.bleu) == (0.0, 0.0, 0.0)


def test_bleu_and_rouge_by_hand() -> None:
    """Precisions 5/6, 3/5, 2/4, 1/3 at full length; a common subsequence of 5 words of 6."""
    found = likeness(["the cat sat on a mat"], [["the cat sat on the mat"]])
    assert found.bleu == pytest.approx((5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25, rel=1e-5)
    assert found.rouge_l == pytest.approx(5 / 6, rel=1e-5)


WORDS = st.lists(st.sampled_from(["red", "green", "blue", "rose", "sky"]), min_size=1, max_size=6).map(" ".join)


@settings(max_examples=30)
@given(st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=5), WORDS)
def test_another_reference_never_lowers_rouge_or_exact_match(pairs: list[tuple[str, list[str]]], more: str) -> None:
    written, references = zip(*pairs, strict=True)
    before, after = likeness(written, references), likeness(written, [[*each, more] for each in references])
    assert after.exact_match >= before.exact_match
    assert after.rouge_l >= before.rouge_l - 1e-6
    assert 0 <= after.bleu <= 1 + 1e-6
