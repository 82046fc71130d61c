"""``builtin:commands``: a person, and how a plain sentence sounds in that person's voice."""

import random
from dataclasses import dataclass

from slimfed.clients.builtin.household import Noun, Verb

OPENERS = (
    "hey house",
    "ok home",
    "computer",
    "hello",
    "listen",
    "hi there",
    "house",
    "good evening",
    "yo",
    "excuse me",
)
CLOSERS = ("thanks", "thank you", "will you", "okay", "quickly", "if you can", "my dear", "cheers", "for me", "right")
FILLERS = ("um", "uh", "well", "you know", "like", "so", "hmm", "er", "i guess", "actually")
_CONTRACTIONS = (("do not", "don't"), ("it is", "it's"), ("i am", "i'm"), ("did not", "didn't"), ("cannot", "can't"))
_NEIGHBOURS = dict(zip("abcdefghiklmnoprstuvwy", "snvsrdhjouknmblteyigec", strict=True))


@dataclass(frozen=True)
class User:
    """How one person speaks; every tuple of weights runs over the choices it belongs to."""

    name: str
    intents: tuple[float, ...]
    patterns: tuple[float, ...]
    nouns: tuple[tuple[Noun, ...], ...]
    verbs: tuple[tuple[Verb, ...], ...]
    rooms: tuple[str, ...]
    openers: tuple[str, ...]
    closers: tuple[str, ...]
    fillers: tuple[str, ...]
    splits: float
    polite: float
    names_room: float
    contracts: float
    typos: float
    capitals: bool
    stop: str

    def voiced(self, rng: random.Random, text: str, polite: bool) -> str:
        """A plain sentence as the person types it: dressed up, abbreviated and misspelt."""
        if polite:
            text = rng.choice((f"please {text}", f"{text} please", f"be so kind, {text}"))
        if rng.random() < 0.3:
            text = f"{rng.choice(self.openers)}, {text}"
        if rng.random() < 0.2:
            text = f"{text}, {rng.choice(self.closers)}"
        if rng.random() < 0.25:
            text = _interrupt(rng, text, rng.choice(self.fillers))
        if rng.random() < self.contracts:
            for long, short in _CONTRACTIONS:
                text = text.replace(long, short)
        if rng.random() < self.contracts:
            text = text.replace(",", "")
        if self.typos:
            text = " ".join(_misspell(rng, word) if rng.random() < self.typos else word for word in text.split(" "))
        return (text[0].upper() + text[1:] if self.capitals else text) + self.stop


def _interrupt(rng: random.Random, text: str, filler: str) -> str:
    words = text.split(" ")
    place = rng.randrange(len(words))
    return " ".join([*words[:place], filler, *words[place:]])


def _misspell(rng: random.Random, word: str) -> str:
    """Drop, double, swap or mistype one letter of a word of four letters or more."""
    if len(word) < 4:
        return word
    at = rng.randrange(1, len(word) - 1)
    letter = word[at]
    kind = rng.randrange(4)
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + letter + word[at:]
    if kind == 2:
        return word[:at] + word[at + 1] + letter + word[at + 2 :]
    return word[:at] + _NEIGHBOURS.get(letter, letter) + word[at + 1 :]
