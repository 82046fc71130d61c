"""A split of a data set: rows of text whose columns have been checked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slimfed.clients.data.conversations import Chat


@dataclass(frozen=True)
class Dropped:
    """The empty rows of a file that were dropped: ``rows`` of ``of`` in all, and where the first of them are."""

    name: str
    rows: int
    of: int
    places: str

    def __str__(self) -> str:
        return (
            f'{self.rows} of {self.of} rows of {self.name} are empty and dropped, as data.empty = "drop" says: '
            f"{self.places}"
        )


@dataclass(frozen=True)
class TextSplit:
    """Examples as columns of equal length.

    ``text``: the text (classification), or the completion to learn (causal-lm). ``prompt``: the text before it, which
    is not in the loss. ``label``: int64 [examples], positions in :attr:`TextData.labels`. ``owner``: its owner
    (training split of a natural partition only). ``dropped``: the empty rows that were left out, if there were any.
    ``chats``: conversations that a chat template writes; ``text`` is then what the assistant says last, and ``prompt``
    is None. ``choices``: of every question, which is then ``prompt``; ``text`` is the right one, at position ``right``.
    """

    text: Sequence[str]
    prompt: Sequence[str] | None = None
    label: np.ndarray | None = None
    owner: Sequence[str] | None = None
    dropped: Dropped | None = None
    chats: Sequence[Chat] | None = None
    choices: Sequence[tuple[str, ...]] | None = None
    right: Sequence[int] | None = None

    @property
    def prompted(self) -> bool:
        """True if something stands before what is to be learnt."""
        return self.prompt is not None or self.chats is not None

    def __len__(self) -> int:
        return len(self.text)
