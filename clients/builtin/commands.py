"""``builtin:commands``: what people say to the devices in their homes, with the intent as label.

Eighty users, sixteen intents. A sentence names the wanted action and often another one that is *not* wanted: it is
negated, corrected, already done, somebody else's wish, or the condition for the wanted one. Which is which shows only
in the order of the words and in a few small ones, so that counting words does not solve the task. Users differ in
their words for things, verbs, sentence patterns, favourite intents, politeness, fillers, spelling and punctuation.

Everything is generated from fixed seeds: the same rows on every machine.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from slimfed.clients.builtin.household import (
    LABELS,
    PEOPLE,
    PLAIN_TIMES,
    ROOMS,
    THINGS,
    Action,
    Form,
    Noun,
    Thing,
    Verb,
)
from slimfed.clients.builtin.user import CLOSERS, FILLERS, OPENERS, User

USERS = 80
TRAIN_ROWS = 8000
TEST_ROWS = 1000
_SEED = 20250104
_ATTEMPTS = 50


@dataclass(frozen=True)
class Row:
    """One request: the text as typed, its intent, who said it, and what the device answers."""

    text: str
    label: str
    user: str
    answer: str


@dataclass(frozen=True)
class Request:
    """An action on a thing in a user's words; forms are built from it as a sentence needs them."""

    thing: Thing
    action: Action
    verb: Verb
    noun: Noun
    name: str
    split: bool

    def say(self, form: Form = "base") -> str:
        """ "turn the lamp on", "turning the lamp on" or "turned the lamp on"."""
        return self.verb.say(form, self.name, self.split)

    def say_it(self, form: Form = "base") -> str:
        """The same with a pronoun, for a thing that was just named: "turn it on"."""
        return self.verb.say(form, self.noun.pronoun, split=True)

    @property
    def done(self) -> str:
        """ "the lamp is on": the state that the action leads to."""
        return f"{self.name} {self.noun.be} {self.action.state}"

    @property
    def answer(self) -> str:
        """What the device says when it has done it."""
        return f"{self.name} {self.noun.be} {self.action.answer}"


Pattern = Callable[[random.Random, Request, Request, Request], str]
"""Makes a sentence that asks for the first request; the second acts on another thing, the third undoes the first."""


def commands(train_rows: int = TRAIN_ROWS, test_rows: int = TEST_ROWS) -> tuple[list[Row], list[Row]]:
    """Training and test rows; no text occurs twice, be it in other case or punctuation.

    The first rows of a larger set are not those of a smaller one: the number of rows belongs to the definition.
    """
    rng = random.Random(_SEED)
    users = [make_user(rng, f"user-{number:02d}") for number in range(USERS)]
    activity = [rng.lognormvariate(0.0, 0.45) for _ in users]
    owners = rng.choices(users, activity, k=train_rows + test_rows - USERS) + users
    rng.shuffle(owners)
    seen: set[str] = set()
    rows = [_fresh(rng, user, seen) for user in owners]
    return _split(rows, test_rows)


def make_user(rng: random.Random, name: str) -> User:
    """Draw a person: two favourite words for everything, a few habits, and a taste in intents."""
    return User(
        name=name,
        intents=tuple(rng.gammavariate(0.9, 1.0) + 0.03 for _ in LABELS),
        patterns=tuple(weight * rng.gammavariate(2.0, 0.5) for weight, _ in PATTERNS),
        nouns=tuple(tuple(rng.sample(thing.nouns, 3)) for thing in THINGS),
        verbs=tuple(tuple(rng.sample(action.verbs, 2)) for thing in THINGS for action in thing.actions),
        rooms=tuple(rng.sample(ROOMS, 4)),
        openers=tuple(rng.sample(OPENERS, 2)),
        closers=tuple(rng.sample(CLOSERS, 2)),
        fillers=tuple(rng.sample(FILLERS, 2)),
        splits=rng.random(),
        polite=rng.choice((0.05, 0.2, 0.5)),
        names_room=rng.uniform(0.1, 0.5),
        contracts=rng.random(),
        typos=rng.choice((0.0, 0.0, 0.02, 0.06, 0.12)),
        capitals=rng.random() < 0.5,
        stop=rng.choice(("", "", ".", "!")),
    )


def make_row(rng: random.Random, user: User) -> Row:
    """One sentence of ``user``, its intent and the device's answer."""
    index = rng.choices(range(len(LABELS)), user.intents)[0]
    other = rng.choice([i for i in range(len(LABELS)) if i // 2 != index // 2])
    goal, distractor = _request(rng, user, index), _request(rng, user, other)
    opposite = _reverse(rng, user, index, goal)
    pattern = rng.choices(PATTERNS, user.patterns)[0][1]
    polite = rng.random() < user.polite
    plain = pattern(rng, goal, distractor, opposite)
    reply = ("of course, " if polite else "okay, ") + goal.answer + "."
    return Row(user.voiced(rng, plain, polite), goal.action.label, user.name, reply[0].upper() + reply[1:])


def normalise(text: str) -> str:
    """Lower case, words only: two texts that agree in this count as the same."""
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def _fresh(rng: random.Random, user: User, seen: set[str]) -> Row:
    for _ in range(_ATTEMPTS):
        row = make_row(rng, user)
        key = normalise(row.text)
        if key not in seen:
            seen.add(key)
            return row
    raise RuntimeError(f"{user.name} has run out of things to say: ask for fewer rows")


def _split(rows: list[Row], test_rows: int) -> tuple[list[Row], list[Row]]:
    """The last ``test_rows`` that do not rob a user of all training rows become the test split."""
    kept = {row.user: row for row in rows}  # one row a user always stays in the training split
    stays = set(map(id, kept.values()))
    test: list[Row] = []
    train: list[Row] = []
    for row in rows:
        (test if len(test) < test_rows and id(row) not in stays else train).append(row)
    return train, test


def _request(rng: random.Random, user: User, index: int) -> Request:
    thing = THINGS[index // 2]
    noun = rng.choice(user.nouns[index // 2])
    name = _name(rng, user, thing, noun)
    return Request(
        thing, thing.actions[index % 2], rng.choice(user.verbs[index]), noun, name, rng.random() < user.splits
    )


def _reverse(rng: random.Random, user: User, index: int, goal: Request) -> Request:
    """The opposite action on the same thing, under the same name."""
    index ^= 1
    verb = rng.choice(user.verbs[index])
    return Request(goal.thing, goal.thing.actions[index % 2], verb, goal.noun, goal.name, rng.random() < user.splits)


def _name(rng: random.Random, user: User, thing: Thing, noun: Noun) -> str:
    if not thing.in_rooms or rng.random() > user.names_room:
        return f"the {noun.word}"
    room = rng.choice(user.rooms)
    return f"the {room} {noun.word}" if rng.random() < user.splits else f"the {noun.word} in the {room}"


# Sentences: (share, pattern). g is wanted, d acts on another thing, o is the opposite of g.


def _plain(rng: random.Random, g: Request, d: Request, o: Request) -> str:
    return g.say()


def _timed(rng: random.Random, g: Request, d: Request, o: Request) -> str:
    time = rng.choice(PLAIN_TIMES)
    return rng.choice((f"{g.say()} {time}", f"{time} {g.say()}"))


def _need(rng: random.Random, g: Request, d: Request, o: Request) -> str:
    return f"it is {rng.choice(g.action.needs)}"


def _need_not(rng: random.Random, g: Request, d: Request, o: Request) -> str:
    yes, no = rng.choice(g.action.needs), rng.choice(o.action.needs)
    return rng.choice((f"it is {yes}, not {no}", f"it is not {no}, it is {yes}", f"no longer {no}, now it is {yes}"))


def _correction(rng: random.Random, g: Request, d: Request, o: Request) -> str:
    wrong = rng.choice((d, o))
    sorry = rng.choice(("no wait", "sorry i mean", "scratch that", "no i meant", "wait no", "on second thought"))
    return f"{wrong.say()}, {sorry}, {_after(rng, wrong, g)}"


def _negation(rng: random.Random, g: Request, d: Request, o: Request) -> str:
    wrong = rng.choice((d, o))
    return rng.choice(
        (
            f"do not {wrong.say()}, {_after(rng, wrong, g)}",
            f"{g.say()}, do not {_after(rng, g, wrong)}",
            f"{g.say()}, but by no means {_after(rng, g, wrong)}",
            f"not that you {wrong.say()}, you should {_after(rng, wrong, g)}",
        )
    )


def _instead(rng: random.Random, g: Request, d: Request, o: Request) -> str:
    wrong = rng.choice((d, o))
    link = rng.choice(("instead of", "rather than"))
    if rng.random() < 0.5:
        return f"{link} {wrong.say('ing')}, {_after(rng, wrong, g)}"
    return f"{g.say()} {link} {_after(rng, g, wrong, 'ing')}"


def _sequence(rng: random.Random, g: Request, d: Request, o: Request) -> str:
    when = rng.choice(("after", "once", "as soon as", "when"))
    who = rng.choice(("you have", "i have", f"{rng.choice(PEOPLE)} has"))
    if rng.random() < 0.5:
        return f"{when} {who} {d.say('past')}, {g.say()}"
    return f"{g.say()} {when} {who} {d.say('past')}"


def _already(rng: random.Random, g: Request, d: Request, o: Request) -> str:
    who = rng.choice(("i", rng.choice(PEOPLE)))
    return rng.choice(
        (
            f"{who} already {d.say('past')}, so {g.say()}",
            f"{g.say()}, {who} already {d.say('past')}",
            f"{d.done} already, now {g.say()}",
            f"why is it that {o.done}, {g.say_it()}",
        )
    )


def _condition(rng: random.Random, g: Request, d: Request, o: Request) -> str:
    state = rng.choice((d, o))
    return rng.choice((f"if {state.done}, {_after(rng, state, g)}", f"{g.say()} if {state.done}"))


def _wish(rng: random.Random, g: Request, d: Request, o: Request) -> str:
    wrong, who = rng.choice((d, o)), rng.choice(PEOPLE)
    return rng.choice(
        (
            f"{who} wants you to {wrong.say()}, but i want you to {_after(rng, wrong, g)}",
            f"{g.say()}, even if {who} asks you to {_after(rng, g, wrong)}",
            f"i asked you to {g.say()}, not to {_after(rng, g, wrong)}",
            f"i did not ask you to {wrong.say()}, i asked you to {_after(rng, wrong, g)}",
            f"listen to me and {g.say()}, {who} may tell you to {_after(rng, g, wrong)}",
        )
    )


def _state(rng: random.Random, g: Request, d: Request, o: Request) -> str:
    yes, no, name, be = g.action.state, o.action.state, g.name, g.noun.be
    return rng.choice(
        (
            f"i want {name} {yes}, not {no}",
            f"i want {name} not {no} but {yes}",
            f"{name} {be} {no} and should be {yes}",
            f"{name} should be {yes} but {be} {no}",
        )
    )


def _keep(rng: random.Random, g: Request, d: Request, o: Request) -> str:
    keep = rng.choice(("leave", "keep"))
    left = f"{keep} {d.name} {d.action.state}"
    return rng.choice((f"{left} and {g.say()}", f"{g.say()} but {left}", f"{left}, just {g.say()}"))


def _choice(rng: random.Random, g: Request, d: Request, o: Request) -> str:
    first, last = ("forget the second", "only the first"), ("forget the first", "only the second")
    no = rng.choice(("no", "hang on", "wait"))
    if rng.random() < 0.5:
        return f"{g.say()} and {d.say()}, {no}, {rng.choice(first)}"
    return f"{d.say()} and {g.say()}, {no}, {rng.choice(last)}"


def _remember(rng: random.Random, g: Request, d: Request, o: Request) -> str:
    return rng.choice(
        (
            f"do not forget to {g.say()}",
            f"{d.done}, do not forget to {g.say()}",
            f"never mind about {d.say('ing')}, remember to {g.say()}",
            f"remember to {g.say()} and forget about {d.say('ing')}",
        )
    )


def _after(rng: random.Random, first: Request, then: Request, form: Form = "base") -> str:
    """``then``, said after ``first``: mostly with a pronoun if it is about the same thing."""
    if then.thing is first.thing and rng.random() < 0.7:
        return then.say_it(form)
    return then.say(form)


PATTERNS: tuple[tuple[float, Pattern], ...] = (
    (20, _plain),
    (8, _timed),
    (5, _need),
    (4, _need_not),
    (9, _correction),
    (10, _negation),
    (7, _instead),
    (8, _sequence),
    (6, _already),
    (5, _condition),
    (8, _wish),
    (5, _state),
    (4, _keep),
    (5, _choice),
    (5, _remember),
)
