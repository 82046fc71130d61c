"""Text of others as one plain line: cleaned where it comes in, before it is stored or shown."""

import unicodedata

LONGEST = 2000
"""Characters of a cause that a node, a job or a file tells."""

# Joiners that scripts and emoji need; all other format characters can change how the text around them is read.
_JOINERS = "\u200c\u200d"
# Controls, formats (bidirectional marks among them), surrogates, and separators of lines and paragraphs.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def clean(text: object, longest: int = LONGEST) -> str:
    """``text`` in one line of at most ``longest`` characters, without any that is not printed.

    Control characters (ESC, NUL, newlines), bidirectional marks and halves of surrogate pairs become spaces; several
    spaces in a row become one. A cut text ends with "…".
    """
    shown = str(text)[: 4 * longest]
    line = " ".join("".join(" " if _unsafe(sign) else sign for sign in shown).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _unsafe(sign: str) -> bool:
    return not " " <= sign <= "~" and sign not in _JOINERS and unicodedata.category(sign) in _UNSAFE


def clean_lines(text: str, longest: int = 20_000) -> str:
    """As :func:`clean`, for a text of several lines that somebody writes about his own runs: lines and tabs stay."""
    kept = "".join(sign if sign in "\n\t" or not _unsafe(sign) else " " for sign in text[:longest])
    return kept.rstrip()
