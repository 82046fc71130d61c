"""How each kind of tokenizer makes its tokens, and which of them it needs so that no text is lost without the others.

A text that is divided into tokens that stay is divided in the same way when the others are gone. Byte-pair encoding
applies the merge of lowest rank again and again: those that a token is made of are applied inside it alone, in the same
order as if it were the whole text, so the tokens on the way to it must stay and no others. WordPiece takes the longest
token that fits, and Unigram the most probable division: what was chosen among all tokens is also chosen among fewer.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from slimfed.clients.errors import InputError

_FALLBACK = "<0x{:02X}>"
_SPACE = (
    "\u2581"  # SentencePiece's space, which must not be written as bytes: spaces are put back before bytes are joined
)


class Pieces(ABC):
    """The model of a tokenizer: ``document`` is the part ``model`` of its ``tokenizer.json``."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    @abstractmethod
    def vocabulary(self) -> dict[str, int]:
        """The ids of the tokens, without those that were added to the model."""

    @abstractmethod
    def base(self) -> set[str]:
        """The tokens without which some text that can be written now could not be."""

    def parts(self, token: str) -> Iterator[str]:
        """The tokens that are made on the way to ``token``; none here."""
        yield from ()

    @abstractmethod
    def by_use(self) -> Iterator[tuple[str, ...]]:
        """Groups of tokens, those first that most texts need; a group is of use only as a whole."""

    @abstractmethod
    def trimmed(self, ids: dict[str, int]) -> dict[str, Any]:
        """The part ``model`` with the tokens in ``ids`` alone, under these ids, in ascending order."""


def pieces_of(document: dict[str, Any]) -> Pieces:
    """The kind of the tokenizer whose ``tokenizer.json`` is ``document``. Raises ``InputError`` for another kind."""
    model = document["model"]
    kinds: dict[str, type[MergedPieces | LongestPieces | LikeliestPieces]] = {
        "BPE": MergedPieces,
        "WordPiece": LongestPieces,
        "Unigram": LikeliestPieces,
    }
    kind = kinds.get(model["type"])
    if kind is None:
        raise InputError(
            f"--trim-vocabulary: the model's tokenizer is of type {model['type']}; valid: BPE, WordPiece, Unigram; "
            "export without it"
        )
    if model["type"] == "BPE" and (model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")):
        raise InputError(
            "--trim-vocabulary: the model's tokenizer marks the beginnings or the ends of words in its merges, which "
            "is not known here; export without it"
        )
    return kind(model)


class MergedPieces(Pieces):
    """Byte-pair encoding, on bytes (GPT-2, Llama 3, Qwen) or on characters with bytes for others (Llama 2, Gemma)."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__(document)
        self.merges = [tuple(each.split(" ") if isinstance(each, str) else each) for each in document["merges"]]
        self.ranks = {(pair[0], pair[1]): rank for rank, pair in enumerate(self.merges)}

    def vocabulary(self) -> dict[str, int]:
        """The ids of the tokens."""
        return dict(self.document["vocab"])

    def base(self) -> set[str]:
        """The tokens of one character; if there are tokens of bytes, these, ASCII and SentencePiece's space."""
        vocabulary = self.document["vocab"]
        single = {token for token in vocabulary if len(token) == 1 or token == self.document.get("unk_token")}
        if not self.document.get("byte_fallback"):
            return single
        fallback = {token for token in map(_FALLBACK.format, range(256)) if token in vocabulary}
        if len(fallback) < 256:
            return single | fallback
        return fallback | {token for token in single if len(token) > 1 or token.isascii() or token == _SPACE}

    def parts(self, token: str) -> Iterator[str]:
        """The characters of ``token``, and what each of its merges makes."""
        symbols = list(token)
        yield from symbols
        while len(symbols) > 1:
            pairs = [self.ranks.get(pair, len(self.ranks)) for pair in pairwise(symbols)]
            rank = min(pairs)
            if rank == len(self.ranks):
                return
            place = pairs.index(rank)
            symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
            yield symbols[place]

    def by_use(self) -> Iterator[tuple[str, ...]]:
        """In the order of the merges, which is that of their frequency in the text the tokenizer was made of."""
        for one, two in self.merges:
            yield one, two, one + two

    def trimmed(self, ids: dict[str, int]) -> dict[str, Any]:
        """Merges stay if both parts and the whole do."""
        merges = [[one, two] for one, two in self.merges if one in ids and two in ids and one + two in ids]
        return self.document | {"vocab": ids, "merges": merges}


class LongestPieces(Pieces):
    """WordPiece: BERT and its kin."""

    def vocabulary(self) -> dict[str, int]:
        """The ids of the tokens."""
        return dict(self.document["vocab"])

    def base(self) -> set[str]:
        """Every character, beginning a word and inside it, and tokens with a character that has no token of its own."""
        vocabulary, inside = self.document["vocab"], self.document["continuing_subword_prefix"]

        def spelt(token: str) -> bool:
            begins, text = not token.startswith(inside), token.removeprefix(inside)
            return all(
                (character if begins and place == 0 else inside + character) in vocabulary
                for place, character in enumerate(text)
            )

        single = {token for token in vocabulary if len(token.removeprefix(inside)) == 1}
        return single | {token for token in vocabulary if not spelt(token)} | {self.document["unk_token"]}

    def by_use(self) -> Iterator[tuple[str, ...]]:
        """By number."""
        for token in sorted(self.document["vocab"], key=self.document["vocab"].__getitem__):
            yield (token,)

    def trimmed(self, ids: dict[str, int]) -> dict[str, Any]:
        """The tokens alone."""
        return self.document | {"vocab": ids}


class LikeliestPieces(Pieces):
    """Unigram: SentencePiece tokenizers of multilingual encoders."""

    def vocabulary(self) -> dict[str, int]:
        """The ids of the tokens."""
        return {token: index for index, (token, _) in enumerate(self.document["vocab"])}

    def base(self) -> set[str]:
        """Every character, tokens with one that has none, the unknown token, and the least probable one.

        What an unknown character costs is counted from the last.
        """
        scores = dict(map(tuple, self.document["vocab"]))
        found = {token for token in scores if len(token) == 1}
        found |= {token for token in scores if any(character not in scores for character in token)}
        found |= {token for token in map(_FALLBACK.format, range(256)) if token in scores}
        if self.document.get("unk_id") is not None:
            found.add(self.document["vocab"][self.document["unk_id"]][0])
        return found | {min(scores, key=scores.__getitem__)}

    def by_use(self) -> Iterator[tuple[str, ...]]:
        """The most probable first."""
        for token, _ in sorted(self.document["vocab"], key=lambda each: -each[1]):
            yield (token,)

    def trimmed(self, ids: dict[str, int]) -> dict[str, Any]:
        """The tokens with their scores, and the place of the unknown one."""
        vocabulary = [each for each in self.document["vocab"] if each[0] in ids]
        unknown = self.document.get("unk_id")
        place = None if unknown is None else ids[self.document["vocab"][unknown][0]]
        return self.document | {"vocab": vocabulary, "unk_id": place}


def closed(pieces: Pieces, tokens: Iterable[str]) -> set[str]:
    """``tokens``, with all that are made on the way to them and those without which some text would be lost."""
    vocabulary = pieces.vocabulary()
    found = {token for token in pieces.base() if token in vocabulary}
    for token in tokens:
        found.add(token)
        found.update(part for part in pieces.parts(token) if part in vocabulary)
    return found
