"""Tags: words that say what kind of device one is, given by a profile or by a node's owner."""

import re

MOST_TAGS = 32
"""Tags of one device at most."""

LONGEST_TAG = 60
"""Characters of a tag at most."""

_TAG = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


def is_tag(value: object) -> bool:
    """True for a word of letters, digits, ``-``, ``_`` and ``.`` that begins with a letter or digit."""
    return isinstance(value, str) and len(value) <= LONGEST_TAG and _TAG.fullmatch(value) is not None
