"""Unlabelled text about life at home, for pre-training: what people tell each other, and what they say to devices.

Two kinds of lines: requests of strangers, made like those of :mod:`commands` by users that the data set does not have,
and stories in the third person (who did what, in which order, why, and how things stood afterwards). Nothing says what
a request led to, and texts of the data set's test split never occur.
"""

import random
from dataclasses import dataclass

from slimfed.clients.builtin.commands import commands, make_row, make_user, normalise
from slimfed.clients.builtin.household import PEOPLE, ROOMS, THINGS, Action, Form, Noun, Thing

_SEED = 20250211
_STRANGERS = 400
_REQUESTS = 0.6
_OUTCOMES = 0.7


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
        text = make_row(rng, rng.choice(strangers)).text if rng.random() < _REQUESTS else _story(rng)
        key = normalise(text)
        if key not in seen:
            seen.add(key)
            texts.append(text)
    return texts


@dataclass(frozen=True)
class Retelling:
    """An event told twice in different words, and a contrary event told in much the same words."""

    told: str
    retold: str
    event: int
    contrary: str
    contrary_event: int


def retellings(count: int, seed: int = _SEED) -> list[Retelling]:
    """``count`` events told three times over, the same ones for the same seed. Events are numbered: a kind each."""
    rng = random.Random(seed + 1)
    return [_retelling(rng) for _ in range(count)]


def _retelling(rng: random.Random) -> Retelling:
    first, second = rng.sample(range(len(THINGS)), 2)
    side = rng.randrange(2)
    deed, undo = _pair(rng, THINGS[first], side)
    again, undo_again = _pair(rng, THINGS[first], side)
    other_side = rng.randrange(2)
    aside, aside_undo = _pair(rng, THINGS[second], other_side)
    who, whom = rng.sample(PEOPLE, 2)
    one, two = rng.choice(_STORIES), rng.choice(_STORIES)
    undone = rng.random() < 0.6
    contrary = (undo, deed, aside) if undone else (aside, aside_undo, deed)
    return Retelling(
        told=one(rng, who, whom, deed, undo, aside),
        retold=two(rng, whom, who, again, undo_again, aside),
        event=_event(first, side),
        contrary=rng.choice((one, two))(rng, who, whom, *contrary),
        contrary_event=_event(first, 1 - side) if undone else _event(second, other_side),
    )


def _event(thing: int, side: int) -> int:
    return 2 * thing + side


def _story(rng: random.Random) -> str:
    first, second = rng.sample(range(len(THINGS)), 2)
    deed, undo = _pair(rng, THINGS[first], rng.randrange(2))
    aside, _ = _pair(rng, THINGS[second], rng.randrange(2))
    who, whom = rng.sample(PEOPLE, 2)
    told = rng.choice(_STORIES)(rng, who, whom, deed, undo, aside)
    return f"{told}, so {deed.result}" if rng.random() < _OUTCOMES else told


def _pair(rng: random.Random, thing: Thing, side: int) -> tuple[_Deed, _Deed]:
    """Action ``side`` on a thing and its opposite, under the same name."""
    noun = rng.choice(thing.nouns)
    name = f"the {noun.word}"
    if thing.in_rooms and rng.random() < 0.3:
        name = f"the {rng.choice(ROOMS)} {noun.word}" if rng.random() < 0.5 else f"{name} in the {rng.choice(ROOMS)}"
    one, two = thing.actions[side], thing.actions[1 - side]
    return _Deed(rng, thing, one, name, noun), _Deed(rng, thing, two, name, noun)


# Stories: in each, ``deed`` is what was done in the end; ``undo`` is its opposite, ``aside`` is about another thing.


def _did(rng: random.Random, who: str, whom: str, deed: _Deed, undo: _Deed, aside: _Deed) -> str:
    return f"{who} {deed.say('past')}"


def _because(rng: random.Random, who: str, whom: str, deed: _Deed, undo: _Deed, aside: _Deed) -> str:
    need = rng.choice(deed.action.needs)
    return rng.choice(
        (
            f"it was {need} and {who} said so",
            f"{who} said that it was {need}",
            f"{who} {deed.say('past')} since it was {need}",
        )
    )


def _order(rng: random.Random, who: str, whom: str, deed: _Deed, undo: _Deed, aside: _Deed) -> str:
    return rng.choice(
        (
            f"after {who} {undo.say('past')}, {whom} {deed.say_it('past')}",
            f"{who} {deed.say('past')} as soon as {whom} {undo.say_it('past')}",
            f"first {who} {undo.say('past')} and then {deed.say_it('past')}",
            f"{undo.result} already when {who} {deed.say_it('past')}",
        )
    )


def _asked(rng: random.Random, who: str, whom: str, deed: _Deed, undo: _Deed, aside: _Deed) -> str:
    wrong = rng.choice((undo, aside))
    return rng.choice(
        (
            f"{who} asked {whom} to {deed.say('base')}, not to {wrong.say('base')}",
            f"{who} did not want to {wrong.say('base')} but to {deed.say('base')}",
            f"{who} {deed.say('past')} instead of {wrong.say('ing')}",
            f"instead of {wrong.say('ing')} {who} {deed.say('past')}",
            f"{whom} wanted {who} to {wrong.say('base')}, but {who} would rather {deed.say('base')}",
        )
    )


def _changed(rng: random.Random, who: str, whom: str, deed: _Deed, undo: _Deed, aside: _Deed) -> str:
    return rng.choice(
        (
            f"{undo.result} before {who} {deed.say_it('past')}",
            f"{who} {undo.say('past')}, then {whom} {deed.say_it('past')}",
            f"{who} wanted {deed.name} {deed.action.state}, not {undo.action.state}",
            f"{who} said: {undo.say('base')}, no, {deed.say_it('base')}",
            f"{who} wanted to {aside.say('base')} but changed plans and {deed.say('past')}",
        )
    )


def _kept(rng: random.Random, who: str, whom: str, deed: _Deed, undo: _Deed, aside: _Deed) -> str:
    return rng.choice(
        (
            f"{who} left {aside.name} as it was and {deed.say('past')}",
            f"{who} forgot to {undo.say('base')}",
            f"{who} remembered to {deed.say('base')} and forgot about {aside.say('ing')}",
            f"{who} thought that {aside.result} and {deed.say('past')}",
        )
    )


_STORIES = (_did, _because, _order, _asked, _changed, _kept)
