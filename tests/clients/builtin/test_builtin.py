import hashlib
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from slimfed.clients import builtin
from slimfed.clients.builtin.commands import commands, normalise
from slimfed.clients.builtin.household import LABELS
from slimfed.clients.builtin.prose import prose

WEIGHTS = Path(builtin.__file__).parent / "weights"


def test_the_same_rows_on_every_machine() -> None:
    train, test = commands()
    digest = hashlib.sha256(repr([*train, *test]).encode()).hexdigest()
    assert digest[:16] == "ad817db08491bd9b"


def test_size_users_and_intents() -> None:
    started = time.process_time()
    train, test = commands()
    assert time.process_time() - started < 3
    assert (len(train), len(test)) == (8000, 1000)
    assert {row.label for row in train} == {row.label for row in test} == set(LABELS)
    users = Counter(row.user for row in train)
    assert len(users) == 80
    assert min(users.values()) >= 10
    assert {row.user for row in test} <= set(users)


def test_no_text_twice() -> None:
    train, test = commands()
    texts = [normalise(row.text) for row in (*train, *test)]
    assert len(set(texts)) == len(texts)


def test_users_differ_in_intents_and_words() -> None:
    train, _ = commands()
    overall = np.array([sum(row.label == label for row in train) for label in LABELS]) / len(train)
    distances = []
    for user in {row.user for row in train}:
        own = [row for row in train if row.user == user]
        shares = np.array([sum(row.label == label for row in own) for label in LABELS]) / len(own)
        distances.append(np.abs(shares - overall).sum() / 2)
    assert np.mean(distances) > 0.25


def test_words_alone_do_not_solve_it_but_tell_something() -> None:
    train, test = commands()
    words = TfidfVectorizer(token_pattern=r"[\w']+")
    model = LogisticRegression(C=10, max_iter=500)
    model.fit(words.fit_transform([row.text for row in train]), [row.label for row in train])
    accuracy = model.score(words.transform([row.text for row in test]), [row.label for row in test])
    assert 0.65 < accuracy < 0.80


def test_answers_name_what_was_asked_for() -> None:
    train, _ = commands()
    for row in train[:500]:
        assert row.answer.startswith(("Okay, the ", "Of course, the "))
        assert "please" not in row.text.lower() or row.answer.startswith("Of course")


def test_pretraining_text_knows_no_test_text_and_no_labels() -> None:
    texts = prose(3000)
    assert texts == prose(3000)
    keys = {normalise(text) for text in texts}
    assert len(keys) == 3000
    assert not keys & {normalise(row.text) for row in commands()[1]}
    assert not any(label in text for text in texts for label in LABELS)


@pytest.mark.parametrize("name", ["tiny-encoder", "tiny-decoder"])
def test_shipped_folders_are_small_and_not_pickled(name: str) -> None:
    files = list((WEIGHTS / name).iterdir())
    assert {file.suffix for file in files} == {".json", ".safetensors"}
    assert sum(file.stat().st_size for file in files) < 5_000_000
