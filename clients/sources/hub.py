"""Checking with a deadline whether a hub answers and has an item, before downloading."""

import os
from pathlib import Path
from threading import Thread
from typing import Literal

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

from slimfed.clients.errors import InputError

DEADLINE_SECONDS = 8.0
_Outcome = Literal["there", "unreachable"]


def is_local(path: str) -> bool:
    """True if ``path`` means a folder on this machine: it exists, or is written as no hub id can be."""
    written_as_path = path.startswith((".", "/", "~", os.sep)) or path.count("/") > 1 or "\\" in path
    return written_as_path or Path(path).exists()


def ask_hub(kind: Literal["model", "dataset"], field: str, path: str, revision: str | None) -> _Outcome:
    """Look up ``path`` on the hub.

    Returns "unreachable" if there is no answer within :data:`DEADLINE_SECONDS` or the hub is switched off by
    ``HF_HUB_OFFLINE``; a copy in the local cache may still serve. Raises :class:`InputError` if the hub answers that it
    has no such thing, or that it may not be read.
    """
    if constants.is_offline_mode():
        return "unreachable"
    answer: list[_Outcome | Exception] = []
    # A name lookup obeys no timeout of the HTTP client, so the deadline is kept from outside.
    asking = Thread(target=lambda: answer.append(_ask(kind, path, revision)), daemon=True)
    asking.start()
    asking.join(DEADLINE_SECONDS)
    outcome = answer[0] if answer else "unreachable"
    if not isinstance(outcome, Exception):
        return outcome
    raise InputError(f'{field} = "{path}" {_complaint(kind, outcome, revision)}') from outcome


def _ask(kind: str, path: str, revision: str | None) -> "_Outcome | Exception":
    try:
        HfApi().repo_info(path, repo_type=kind, revision=revision, timeout=DEADLINE_SECONDS / 2)
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as refusal:
        return refusal
    except Exception:  # any network error: the hub did not answer
        return "unreachable"
    return "there"


def _complaint(kind: str, refusal: Exception, revision: str | None) -> str:
    if isinstance(refusal, GatedRepoError):
        return f"is a gated {kind}: ask for access on the hub and log in with `hf auth login`"
    if isinstance(refusal, RevisionNotFoundError):
        return f'has no revision "{revision}" on the hub'
    return (
        f"is neither a folder nor a {kind} on the hub; valid are builtin:NAME, a folder, or a hub id such as owner/name"
    )
