"""The guarantees of loaded text: columns that are there, texts that are text, empty rows as the job says."""

from collections.abc import Sequence
from dataclasses import dataclass

from slimfed.clients.data.columns import Columns
from slimfed.clients.data.conversations import ASSISTANT, Chat, Turn, parse_chat, uses_template, with_system
from slimfed.clients.data.readers.rows import Rows
from slimfed.clients.data.split import Dropped, TextSplit
from slimfed.clients.errors import InputError
from slimfed.clients.spec import DataSpec

_SHOWN = 5


@dataclass(frozen=True)
class Checked:
    """A split with rows that can be used, and its columns as they were read."""

    split: TextSplit
    rows: Rows


def checked(spec: DataSpec, rows: Rows, columns: Columns) -> Checked:
    """``rows`` as a split. Raises :class:`InputError` with field, row and value for what cannot be learnt from."""
    _check_present(spec, rows, columns)
    rows, dropped = _without_empty(spec, rows, columns)
    owner = None if columns.owner is None else [str(value) for value in rows.columns[columns.owner]]
    if columns.messages:
        return Checked(_of_chats(_conversations(spec, rows, columns.text), owner, dropped), rows)
    if columns.choices is not None and columns.prompt is not None:
        _check_text(spec, rows, "data.prompt", columns.prompt)
        choices, right = _choices(spec, rows, columns.choices, columns.text)
        learnt = [each[place] for each, place in zip(choices, right, strict=True)]
        asked = rows.columns[columns.prompt]
        return Checked(TextSplit(learnt, asked, None, owner, dropped, choices=choices, right=right), rows)
    for field, column in columns.fields():
        if column in (columns.text, columns.prompt):
            _check_text(spec, rows, field, column)
    text, prompt = rows.columns[columns.text], rows.columns[columns.prompt] if columns.prompt else None
    if prompt is not None and uses_template(spec):
        pairs = zip(prompt, text, strict=True)
        chats = [with_system((Turn("user", asked), Turn(ASSISTANT, said)), spec.system) for asked, said in pairs]
        return Checked(_of_chats(chats, owner, dropped), rows)
    return Checked(TextSplit(text, prompt, None, owner, dropped), rows)


def _of_chats(chats: Sequence[Chat], owner: Sequence[str] | None, dropped: Dropped | None) -> TextSplit:
    last = [next(turn.content for turn in reversed(chat) if turn.role == ASSISTANT) for chat in chats]
    return TextSplit(last, None, None, owner, dropped, chats)


def _choices(spec: DataSpec, rows: Rows, column: str, answer: str) -> tuple[list[tuple[str, ...]], list[int]]:
    """The choices of every row, and the place of the right one."""
    found, right = [], []
    for row, (value, said) in enumerate(zip(rows.columns[column], rows.columns[answer], strict=True)):
        where = f"{rows.place(row)} of {rows.name} of {spec.path!r}"
        texts = isinstance(value, list | tuple) and all(isinstance(each, str) and each.strip() for each in value)
        if not texts or len(value) < 2 or len(set(value)) < len(value):
            raise InputError(f'data.choices = "{column}": {where} must be a list of two or more different texts')
        place = _place(value, said)
        if place is None:
            raise InputError(
                f'data.answer = "{answer}": {where} is {said!r:.50}, must be the number of a choice from 0, its letter '
                "from A, or its text"
            )
        found.append(tuple(value))
        right.append(place)
    return found, right


def _place(choices: Sequence[str], said: object) -> int | None:
    if isinstance(said, int) and not isinstance(said, bool):
        return said if 0 <= said < len(choices) else None
    if said in choices:
        return choices.index(str(said))
    letter = ord(said.upper()) - ord("A") if isinstance(said, str) and len(said) == 1 else -1
    return letter if 0 <= letter < len(choices) else None


def _conversations(spec: DataSpec, rows: Rows, column: str) -> list[Chat]:
    chats = []
    for row, value in enumerate(rows.columns[column]):
        try:
            chat = parse_chat(value, spec.system)
            if not all(is_unicode(turn.content) for turn in chat):
                raise ValueError("has half of a surrogate pair")
        except ValueError as error:
            raise InputError(
                f'data.messages = "{column}": {rows.place(row)} of {rows.name} of "{spec.path}" {error}'
            ) from None
        chats.append(chat)
    return chats


def _check_present(spec: DataSpec, rows: Rows, columns: Columns) -> None:
    for field, column in columns.fields():
        if rows.columns and column not in rows.columns:
            there = ", ".join(rows.columns)
            raise InputError(f'{field} = "{column}": {rows.name} of "{spec.path}" has no such column, only {there}')
    if not rows.columns or not rows.columns[columns.text]:
        raise InputError(f'data.path = "{spec.path}": {rows.name} has no rows')


def _without_empty(spec: DataSpec, rows: Rows, columns: Columns) -> tuple[Rows, Dropped | None]:
    """The rows without those that lack a needed value, if ``spec.empty`` allows it; else they are refused."""
    lacking: dict[int, str] = {}
    for field, column in columns.fields():
        for row, value in enumerate(rows.columns[column]):
            if value is None or value == [] or (isinstance(value, str) and not value.strip()):
                lacking.setdefault(row, f'{field} = "{column}"')
    if not lacking:
        return rows, None
    every, first = len(rows.columns[columns.text]), sorted(lacking)[:_SHOWN]
    more = ", ..." if len(lacking) > _SHOWN else ""
    places = ", ".join(f"{rows.place(row)} ({lacking[row]})" for row in first) + more
    if spec.empty == "refuse":
        raise InputError(
            f'data.path = "{spec.path}": {len(lacking)} of {every} rows of {rows.name} are empty: {places}; fill them '
            'in, or drop them with data.empty = "drop"'
        )
    if len(lacking) == every:
        raise InputError(f'data.path = "{spec.path}": {rows.name} has no rows that are not empty')
    return rows.only([row for row in range(every) if row not in lacking]), Dropped(
        rows.name, len(lacking), every, places
    )


def _check_text(spec: DataSpec, rows: Rows, field: str, column: str) -> None:
    for row, value in enumerate(rows.columns[column]):
        if not isinstance(value, str) or not is_unicode(value):
            what = "half of a surrogate pair" if isinstance(value, str) else f"{type(value).__name__} {value!r}"
            raise InputError(
                f'{field} = "{column}": {rows.place(row)} of {rows.name} of "{spec.path}" is {what[:60]}, must be text'
            )


def is_unicode(text: str) -> bool:
    """False for half of a surrogate pair, which JSON can write and UTF-8 cannot."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
