"""Multiple choice by likelihood, and bits a byte: the same as by hand, alone and in a cohort."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from byte_level import HARD, byte_level
from small_models import build
from smollm2 import smollm2
from training import adapter, narrowed, structure, task

from slimfed.clients.data.batching import PROMPT_END, token_bytes, tokenise
from slimfed.clients.data.split import TextSplit
from slimfed.clients.data.text import load_data
from slimfed.clients.errors import InputError
from slimfed.clients.evaluation.metrics import evaluate
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.loading import LoadedModel, load_model
from slimfed.clients.node.evaluator import ModelEvaluator
from slimfed.clients.spec import DataSpec, ModelSpec
from slimfed.clients.telemetry.stopwatch import Stopwatch
from slimfed.clients.training.cohort.evaluation import evaluate_cohort
from slimfed.clients.training.work import DeviceContext
from slimfed.clients.update import Report, Update, Workload

QUESTIONS = [
    ("turn on", ("the light", "12345 of them", "caf\u00e9"), 1),
    ("leading", ("spaces", "x == 'y'"), 0),
    ("don't", ("HelloWorld", "\u4f60\u597d", "a_b", "ok"), 3),
]


def split() -> TextSplit:
    asked, among, right = zip(*QUESTIONS, strict=True)
    said = [each[place] for each, place in zip(among, right, strict=True)]
    return TextSplit(said, list(asked), choices=list(among), right=list(right))


def by_hand(model: torch.nn.Module, words) -> tuple[float, float]:
    plain, normalised = [], []
    for asked, among, right in QUESTIONS:
        scores = []
        for choice in among:
            head, tail = words(asked + PROMPT_END)["input_ids"], words(choice)["input_ids"]
            with torch.no_grad():
                chances = model(torch.tensor([head + tail])).logits[0].double().log_softmax(-1)
            scores.append(sum(float(chances[len(head) - 1 + n, token]) for n, token in enumerate(tail)))
        plain.append(int(np.argmax(scores)) == right)
        normalised.append(int(np.argmax([s / len(c.encode()) for s, c in zip(scores, among, strict=True)])) == right)
    return float(np.mean(plain)), float(np.mean(normalised))


@pytest.mark.parametrize("seed", range(3))
def test_the_likeliest_choice_is_found(seed: int) -> None:
    words, model = byte_level("smollm"), build("llama", True, seed, 607)
    words.model_max_length = 512
    tokenised = tokenise(split(), words, 64)
    for tokens in (20, 500):
        found = evaluate(model, tokenised, tokens)
        assert (found.accuracy, found.accuracy_normalised) == by_hand(model, words)
    some = evaluate(model, tokenised, rows=np.array([2]))
    assert (some.examples, some.accuracy in (0.0, 1.0)) == (1, True)


def test_choices_are_measured_alike_alone_and_in_a_cohort() -> None:
    words, model = byte_level("smollm"), build("qwen2", True, 1, 607).double()
    words.model_max_length = 512
    base, blueprint = LoadedModel(model, words, None, (), None), discover(model)
    context = DeviceContext(base, blueprint, task(True), Stopwatch())
    test, whole = tokenise(split(), words, 64), adapter(base, blueprint, 3, 4)
    updates = []
    for device in range(3):
        own = structure(blueprint, device, 0.2 * device)
        report = Report(device, 1, 4, 4.0, own, 1.0, 1.0, 0.0, 1, 0.0, 0, Workload(0.0, 0.0, 0.0), None)
        updates.append(Update(report, narrowed(whole, own, 4), np.zeros(blueprint.units, np.float32)))
    together = evaluate_cohort(context, updates, test, np.arange(len(test)))
    for update, found in zip(updates, together, strict=True):
        alone = ModelEvaluator(context, test).one(update.adapter, update.report.structure)
        assert alone == replace(found, loss=pytest.approx(found.loss), bits_per_byte=pytest.approx(found.bits_per_byte))


@pytest.mark.parametrize("kind", ["smollm", "llama-bpe", "tekken"])
def test_bytes_of_tokens_are_those_of_the_text(kind: str) -> None:
    words = byte_level(kind)
    sizes = token_bytes(words)
    for text in HARD:
        ids = words(text, add_special_tokens=False)["input_ids"]
        special = sum(len(token) for token in ("</s>", "<s>") if token in text)
        assert sizes[ids].sum() == len(text.encode()) - special


def test_bits_a_byte_do_not_depend_on_the_vocabulary() -> None:
    """A model that finds all bytes of a text equally likely needs as many bits for each, whatever its tokens."""
    words = byte_level("gpt-2")
    words.model_max_length = 512
    model = build("llama", True, 0, 607)
    tokenised = tokenise(TextSplit(["turn on the light", "12345"], ["a", "b"]), words, 64)
    found = evaluate(model, tokenised)
    targets = int((tokenised.lengths - tokenised.prompt_lengths).sum())
    assert tokenised.target_bytes.tolist() == [17, 5]
    assert found.bits_per_byte == pytest.approx(found.loss * targets / math.log(2) / 22)
    plain = tokenise(TextSplit(["turn on the light"]), words, 64)
    first = len(words.convert_ids_to_tokens(words("turn on the light")["input_ids"])[0])
    assert plain.target_bytes.tolist() == [17 - first]  # the first token is not predicted


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"q": "a", "choices": ["b"], "answer": 0}, "must be a list of two or more different texts"),
        ({"q": "a", "choices": ["b", "b"], "answer": 0}, "must be a list of two or more different texts"),
        ({"q": "a", "choices": "bc", "answer": 0}, "must be a list of two or more different texts"),
        ({"q": "a", "choices": ["b", "c"], "answer": 2}, "line 1 .* is 2, must be the number of a choice from 0"),
        ({"q": "a", "choices": ["b", "c"], "answer": "C"}, "is 'C', must be the number of a choice"),
    ],
    ids=["one", "equal", "text", "number", "letter"],
)
def test_a_row_without_choices_is_refused(row: dict, cause: str, tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=cause):
        load_data(DataSpec(path=str(tmp_path), prompt="q", choices="choices"), "causal-lm")


@pytest.mark.parametrize(("said", "right"), [(1, 1), ("B", 1), ("b", 1), ("dog", 0), ("cat", 1)])
def test_the_right_one_is_told_by_number_letter_or_text(said: object, right: int, tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"q": "a", "c": ["dog", "cat"], "key": said}) + "\n")
    data = load_data(DataSpec(path=str(tmp_path), prompt="q", choices="c", answer="key"), "causal-lm")
    assert (data.test.right, data.test.text) == ([right], [["dog", "cat"][right]])


def test_smollm2_knows_more_than_chance(monkeypatch: pytest.MonkeyPatch, shared_cache: Path) -> None:
    monkeypatch.setenv("SLIMFED_CACHE", str(shared_cache))
    loaded = load_model(ModelSpec(path=str(smollm2()), task="causal-lm"), None, 1)
    asked = [
        ("The capital of France is", ("Paris.", "London.", "bread.", "seven.")),
        ("Water freezes into", ("ice.", "fire.", "gold.", "music.")),
        ("The opposite of hot is", ("cold.", "table.", "green.", "Monday.")),
        ("Two plus two is", ("four.", "purple.", "a dog.", "France.")),
        ("A cat is an", ("animal.", "hour.", "ocean.", "idea.")),
    ]
    among = [each for _, each in asked]
    text = TextSplit([each[0] for each in among], [q for q, _ in asked], choices=among, right=[0] * len(asked))
    found = evaluate(loaded.model, tokenise(text, loaded.tokenizer, 64))
    assert found.accuracy >= 0.8
    assert 0 < found.bits_per_byte < 8
