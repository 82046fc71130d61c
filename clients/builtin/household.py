"""The words of a home: its things, what can be done to them, and how that is said.

Eight things with two opposite actions each give the sixteen intents. Verbs are shared between things on purpose
(lights, music and heating are all "turned off"), so that no single word gives an intent away.
"""

from dataclasses import dataclass
from typing import Literal

Form = Literal["base", "ing", "past"]


@dataclass(frozen=True)
class Verb:
    """A verb with the forms the sentences need, and its particle ("turn ... up") if it has one."""

    base: str
    ing: str
    past: str
    particle: str = ""

    def say(self, form: Form, noun: str, split: bool) -> str:
        """The verb with its object: ``split`` puts the object before the particle, as pronouns must be."""
        word = getattr(self, form)
        if not self.particle:
            return f"{word} {noun}"
        return f"{word} {noun} {self.particle}" if split else f"{word} {self.particle} {noun}"


@dataclass(frozen=True)
class Noun:
    """A name for a thing; ``plural`` decides between "it is" and "they are"."""

    word: str
    plural: bool = False

    @property
    def be(self) -> str:
        """The verb "to be" that goes with it."""
        return "are" if self.plural else "is"

    @property
    def pronoun(self) -> str:
        """What stands for it when it was just named."""
        return "them" if self.plural else "it"


@dataclass(frozen=True)
class Action:
    """One intent: the verbs that ask for it, the state it leads to, what people complain of when they mean it."""

    label: str
    verbs: tuple[Verb, ...]
    state: str
    needs: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class Thing:
    """Something in the home, its names, and its two opposite actions."""

    name: str
    nouns: tuple[Noun, ...]
    actions: tuple[Action, Action]
    in_rooms: bool


def _verb(text: str) -> Verb:
    """``"turn turning turned up"`` or ``"dim dimming dimmed"``."""
    return Verb(*text.split())


def _action(label: str, verbs: str, state: str, needs: str, answer: str) -> Action:
    return Action(
        label,
        tuple(_verb(v.strip()) for v in verbs.split(",")),
        state,
        tuple(n.strip() for n in needs.split(",")),
        answer,
    )


def _thing(name: str, nouns: str, rooms: bool, first: Action, second: Action) -> Thing:
    """Nouns are separated by commas; a star marks a plural."""
    names = tuple(Noun(n.strip().removesuffix("*"), n.strip().endswith("*")) for n in nouns.split(","))
    return Thing(name, names, (first, second), rooms)


THINGS: tuple[Thing, ...] = (
    _thing(
        "light",
        "light, lights*, lamp, lamps*, ceiling light, bulb",
        True,
        _action(
            "light_on",
            "turn turning turned on, switch switching switched on, put putting put on, flip flipping flipped on",
            "on",
            "too dark to read, so dark that i bump into things, pitch black",
            "on now",
        ),
        _action(
            "light_off",
            "turn turning turned off, switch switching switched off, put putting put out, kill killing killed",
            "off",
            "too bright to sleep, so bright that my eyes hurt, glaring",
            "off now",
        ),
    ),
    _thing(
        "heating",
        "heating, heater, radiator, thermostat, radiators*, heat",
        True,
        _action(
            "heat_up",
            "turn turning turned up, raise raising raised, crank cranking cranked up, put putting put up",
            "up",
            "too cold, so cold that i am shivering, freezing",
            "a little higher now",
        ),
        _action(
            "heat_down",
            "turn turning turned down, lower lowering lowered, put putting put down, ease easing eased off",
            "down",
            "too hot, so hot that i am sweating, boiling",
            "a little lower now",
        ),
    ),
    _thing(
        "music",
        "music, radio, playlist, songs*, jazz, record",
        True,
        _action(
            "music_play",
            "play playing played, start starting started, put putting put on, turn turning turned on",
            "playing",
            "too silent for a party, so dull without a tune, boring without a song",
            "playing now",
        ),
        _action(
            "music_stop",
            "stop stopping stopped, pause pausing paused, turn turning turned off, cut cutting cut",
            "silent",
            "too lively to work, so noisy that i cannot think, no time for a tune",
            "silent now",
        ),
    ),
    _thing(
        "volume",
        "volume, sound, speaker, speakers*, tv, bass",
        True,
        _action(
            "volume_up",
            "turn turning turned up, raise raising raised, crank cranking cranked up, boost boosting boosted",
            "loud",
            "too quiet to follow the film, so faint that i miss half of it, hardly a whisper",
            "louder now",
        ),
        _action(
            "volume_down",
            "turn turning turned down, lower lowering lowered, reduce reducing reduced, bring bringing brought down",
            "soft",
            "too loud for the baby, so loud that the neighbours knock, deafening",
            "softer now",
        ),
    ),
    _thing(
        "blinds",
        "blinds*, shutters*, curtains*, shades*, blind, curtain",
        True,
        _action(
            "blinds_open",
            "open opening opened, raise raising raised, pull pulling pulled up, draw drawing drew back",
            "open",
            "a shame to miss the sun, so gloomy with no view, lovely weather out there",
            "open now",
        ),
        _action(
            "blinds_close",
            "close closing closed, shut shutting shut, pull pulling pulled down, lower lowering lowered",
            "closed",
            "like living in a shop window, so sunny that the screen is white, easy for the neighbours to look in",
            "closed now",
        ),
    ),
    _thing(
        "door",
        "front door, back door, garage door, gate, cellar door, door",
        False,
        _action(
            "door_lock",
            "lock locking locked, bolt bolting bolted, secure securing secured, lock locking locked up",
            "locked",
            "late and anyone could walk in, not safe with burglars about, time to go to bed and nobody else comes",
            "locked now",
        ),
        _action(
            "door_unlock",
            "unlock unlocking unlocked, unbolt unbolting unbolted, release releasing released, open opening opened up",
            "unlocked",
            "raining and my guests stand outside, my key that i have lost, the postman who wants to come in",
            "unlocked now",
        ),
    ),
    _thing(
        "alarm",
        "alarm, wake-up call, reminder, alarm clock, morning alarm, timer",
        False,
        _action(
            "alarm_set",
            "set setting set, schedule scheduling scheduled, switch switching switched on, add adding added",
            "set",
            "an early start tomorrow, easy for me to oversleep, a long drive at dawn",
            "set now",
        ),
        _action(
            "alarm_cancel",
            "cancel cancelling cancelled, delete deleting deleted, "
            "switch switching switched off, drop dropping dropped",
            "cancelled",
            "a holiday tomorrow, my day off and i sleep in, sunday and nobody gets up",
            "cancelled now",
        ),
    ),
    _thing(
        "vacuum",
        "vacuum, hoover, robot, cleaner, vacuum cleaner, sweeper",
        False,
        _action(
            "vacuum_start",
            "start starting started, run running ran, send sending sent out, turn turning turned on",
            "cleaning",
            "full of crumbs, so dusty that i sneeze, dog hair all over",
            "cleaning now",
        ),
        _action(
            "vacuum_stop",
            "stop stopping stopped, park parking parked, call calling called back, turn turning turned off",
            "docked",
            "clean enough, the cat that is scared of the robot, under my feet all the time",
            "back at its dock now",
        ),
    ),
)

LABELS: tuple[str, ...] = tuple(action.label for thing in THINGS for action in thing.actions)

ROOMS = (
    "kitchen",
    "bedroom",
    "living room",
    "bathroom",
    "hall",
    "study",
    "attic",
    "nursery",
    "dining room",
    "guest room",
)
PEOPLE = ("my wife", "my husband", "anna", "tom", "the kids", "grandma", "my brother", "my flatmate", "ben", "clara")
PLAIN_TIMES = (
    "now",
    "tonight",
    "at seven",
    "before dinner",
    "in ten minutes",
    "at noon",
    "right away",
    "for the night",
)
