"""Unlabelled text about life at home, for pre-training: what people tell each other, and what they say to devices.

Two kinds of lines, half each: stories in the third person (who did what, in which order, why, and how things stood
afterwards) and requests of strangers, made like those of :mod:`commands` by users that the data set does not have.
Texts of the data set's test split never occur.
"""

import random

from slimfed.clients.builtin.commands import commands, make_row, make_user, normalise
from slimfed.clients.builtin.household import PEOPLE, ROOMS, THINGS, Action, Form, Noun, Thing

_SEED = 20250211
_STRANGERS = 400


class _Deed:
    """Somebody's action on a thing, told afterwards."""

    def __init__(self, rng: random.Random, thing: Thing, action: Action, name: str, noun: Noun) -> None:
        self.thing, self.action, self.name, self.noun = thing, action, name, noun
        self._verb = rng.choice(action.verbs)
        self._split = rng.random() < 0.5
        self._be = "were" if noun.plural else "was"

    def say(self, form: Form) -> str:
        return self._verb.say(form, self.name, self._split)

    def say_it(self, form: Form) -> str:
        return self._verb.say(form, self.noun.pronoun, split=True)

    @property
    def result(self) -> str:
        return f"{self.name} {self._be} {self.action.state}"


def prose(lines: int, seed: int = _SEED) -> list[str]:
    """``lines`` different texts, the same ones for the same seed."""
    rng = random.Random(seed)
    strangers = [make_user(rng, f"stranger-{number}") for number in range(_STRANGERS)]
    seen = {normalise(row.text) for row in commands()[1]}
    texts: list[str] = []
    while len(texts) < lines:
        text = _story(rng) if rng.random() < 0.5 else make_row(rng, rng.choice(strangers)).text
        key = normalise(text)
        if key not in seen:
            seen.add(key)
            texts.append(text)
    return texts


def _story(rng: random.Random) -> str:
    first, second = rng.sample(range(len(THINGS)), 2)
    deed, undo = _pair(rng, THINGS[first])
    aside, _ = _pair(rng, THINGS[second])
    who, whom = rng.sample(PEOPLE, 2)
    text = rng.choice(_STORIES)(rng, who, whom, deed, undo, aside)
    return text[0].upper() + text[1:] + "." if rng.random() < 0.5 else text


def _pair(rng: random.Random, thing: Thing) -> tuple[_Deed, _Deed]:
    noun = rng.choice(thing.nouns)
    name = f"the {noun.word}"
    if thing.in_rooms and rng.random() < 0.3:
        name = f"the {rng.choice(ROOMS)} {noun.word}" if rng.random() < 0.5 else f"{name} in the {rng.choice(ROOMS)}"
    one, two = rng.sample(thing.actions, 2)
    return _Deed(rng, thing, one, name, noun), _Deed(rng, thing, two, name, noun)


def _did(rng: random.Random, who: str, whom: str, deed: _Deed, undo: _Deed, aside: _Deed) -> str:
    return f"{who} {deed.say('past')}, so {deed.result}"


def _because(rng: random.Random, who: str, whom: str, deed: _Deed, undo: _Deed, aside: _Deed) -> str:
    need = rng.choice(deed.action.needs)
    return rng.choice((f"it was {need}, so {who} {deed.say('past')}", f"{who} {deed.say('past')}: it was {need}"))


def _order(rng: random.Random, who: str, whom: str, deed: _Deed, undo: _Deed, aside: _Deed) -> str:
    return rng.choice(
        (
            f"after {who} {aside.say('past')}, {whom} {deed.say('past')}",
            f"{who} {deed.say('past')} as soon as {whom} {aside.say('past')}",
            f"first {who} {aside.say('past')} and then {deed.say('past')}",
            f"{aside.result} already when {who} {deed.say('past')}",
        )
    )


def _asked(rng: random.Random, who: str, whom: str, deed: _Deed, undo: _Deed, aside: _Deed) -> str:
    wrong = rng.choice((undo, aside))
    return rng.choice(
        (
            f"{who} asked {whom} to {deed.say('base')}, not to {wrong.say('base')}, and soon {deed.result}",
            f"{who} did not want to {wrong.say('base')} but to {deed.say('base')}, so {deed.result} in the end",
            f"{who} {deed.say('past')} instead of {wrong.say('ing')}, so {deed.result}",
            f"instead of {wrong.say('ing')} {who} {deed.say('past')}, so {deed.result}",
            f"{whom} wanted {who} to {wrong.say('base')}, but {who} would rather {deed.say('base')}, so {deed.result}",
        )
    )


def _changed(rng: random.Random, who: str, whom: str, deed: _Deed, undo: _Deed, aside: _Deed) -> str:
    return rng.choice(
        (
            f"{undo.result} before {who} {deed.say_it('past')}, now {deed.result}",
            f"{who} {deed.say('past')}, then {whom} {undo.say_it('past')}, so at last {undo.result}",
            f"{who} wanted {deed.name} {deed.action.state}, not {undo.action.state}, and {deed.say_it('past')}",
            f"{undo.result}, so {who} {deed.say_it('past')}",
            f"{who} said: {undo.say('base')}, no, {deed.say_it('base')}, and so {deed.result}",
        )
    )


def _kept(rng: random.Random, who: str, whom: str, deed: _Deed, undo: _Deed, aside: _Deed) -> str:
    return rng.choice(
        (
            f"{who} left {aside.name} {aside.action.state} and {deed.say('past')}",
            f"{who} forgot to {deed.say('base')}, so {undo.result} all night",
            f"{who} remembered to {deed.say('base')} and forgot about {aside.say('ing')}",
            f"if {aside.result}, {who} {deed.say('past')}",
        )
    )


_STORIES = (_did, _because, _order, _asked, _changed, _kept)
