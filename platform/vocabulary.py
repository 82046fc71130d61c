"""Which texts choose the tokens of an exported model whose vocabulary is trimmed, and which measure what that costs.

Text of devices is never read for it: the tokens that a model has left tell what was in the text that chose them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from slimfed.clients.data.chat import whole_text
from slimfed.clients.data.conversations import Turn, uses_template, with_system
from slimfed.clients.data.readers.files import ENDINGS
from slimfed.clients.data.text import TextData, load_test
from slimfed.clients.errors import InputError
from slimfed.clients.export.vocabulary.model import fixed_tokens
from slimfed.clients.export.vocabulary.tokens import kept_tokens
from slimfed.clients.export.vocabulary.trimming import Trimming, used_by_lines, used_tokens
from slimfed.clients.models.loading import LoadedModel
from slimfed.clients.sources.lines import read_texts
from slimfed.platform.job.job import Job


@dataclass(frozen=True)
class SmallVocabulary:
    """That the vocabulary is to be trimmed. ``text``: the file that chooses the tokens; None: the run's held-out text.

    ``min_tokens``: so many stay at least.
    """

    text: Path | None = None
    min_tokens: int = 0


def trimming(wanted: SmallVocabulary, base: LoadedModel, job: Job, text: TextData) -> Trimming:
    """The tokens that stay.

    Chosen by the file; else by the validation split; else by every second text of the test split, the other half of
    which measures what is lost. Raises ``InputError`` for a file that cannot be read or has no text, and a tokenizer
    that cannot be trimmed.
    """
    rows = np.arange(len(text.test))
    if wanted.text is not None:
        used, chosen_by = _of_file(wanted.text, base, job), wanted.text.name
    elif text.validation is not None:
        used, chosen_by = used_tokens(base.tokenizer, text.validation), "the run's validation split"
    else:
        used = used_tokens(base.tokenizer, text.test, rows[::2])
        chosen_by, rows = "every second text of the run's test split", rows[1::2]
    used = np.union1d(used, _of_template(base.tokenizer, job))
    kept = kept_tokens(base.tokenizer, used, wanted.min_tokens, fixed_tokens(base.model))
    return Trimming(kept, chosen_by, text.test, rows)


def _of_file(file: Path, base: LoadedModel, job: Job) -> np.ndarray:
    """The tokens of a file: a data file with the run's columns, or any other with a text in each line."""
    if not file.is_file():
        raise InputError(f"--vocabulary-text = {str(file)!r}: there is no such file")
    if file.suffix in ENDINGS:
        data = job.data.model_copy(update={"path": str(file)})
        split = load_test(data, job.model.task, base.labels)
        used = used_tokens(base.tokenizer, split)
    else:
        with file.open("rb") as stream:
            used = used_by_lines(base.tokenizer, read_texts(stream, f"--vocabulary-text = {str(file)!r}"))
    if not len(used):
        raise InputError(f"--vocabulary-text = {str(file)!r}: has no text")
    return used


def _of_template(tokenizer: PreTrainedTokenizerBase, job: Job) -> np.ndarray:
    """The tokens that the chat template writes around any conversation."""
    if not uses_template(job.data):
        return np.zeros(0, dtype=np.int64)
    turns = (Turn("user", "a"), Turn("assistant", "b"))
    texts = [whole_text(tokenizer, turns), whole_text(tokenizer, with_system(turns, job.data.system))]
    return used_by_lines(tokenizer, texts)
