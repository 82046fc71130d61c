"""How a model that answers prompts is to be asked: an example for the model card, and an Ollama Modelfile."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from slimfed.clients.data.batching import PROMPT_END, begin_tokens
from slimfed.clients.data.chat import prompt_text, stop_tokens, whole_text
from slimfed.clients.data.conversations import Turn, uses_template, with_system
from slimfed.clients.errors import InputError
from slimfed.clients.export.manifest import Manifest

_EXAMPLE = "What is the capital of France?"
_SYSTEM, _ASKED, _SAID, _AGAIN = (f"\ue000{number}\ue001" for number in range(4))
_CONTEXT = 4096  # tokens that Ollama keeps, if the model takes as many


def prompt_example(manifest: Manifest, tokenizer: PreTrainedTokenizerBase) -> str:
    """A section of the model card with the text that the model is given for a question; empty if it takes none."""
    if not manifest.prompted:
        return ""
    if uses_template(manifest.data):
        text = prompt_text(tokenizer, with_system((Turn("user", _EXAMPLE),), manifest.data.system))
        stops = tokenizer.convert_ids_to_tokens(stop_tokens(tokenizer))
        how = "The tokenizer's chat template, which training used, writes the prompt:"
    else:
        text, stops = _EXAMPLE + PROMPT_END, [tokenizer.eos_token]
        how = "A prompt is the question and a line break:"
    notes = ["The line break at its end must be there."] if text.endswith("\n") else []
    notes.append(f"The answer ends with {' or '.join(f'`{token}`' for token in stops if token)}.")
    return "\n".join(["## Prompt", "", how, "", "````text", text, "````", "", " ".join(notes), ""])


@dataclass(frozen=True)
class _Frame:
    """What a template writes around its parts, as Go's templates put it.

    ``system``: before and after a system message; ``question``: before a question without one; ``answer``: before an
    answer; ``end``: after it. ``default``: the system message that the template adds of itself.
    """

    system: tuple[str, str] | None
    question: str
    answer: str
    end: str
    default: str


def modelfile(manifest: Manifest, tokenizer: PreTrainedTokenizerBase, file: str) -> str:
    """An Ollama Modelfile for the GGUF ``file`` beside it, with the prompt's format and what ends an answer."""
    stops, template, system = [tokenizer.eos_token], "{{ .Prompt }}", ""
    if uses_template(manifest.data):
        frame = _frame(tokenizer)
        stops, system = tokenizer.convert_ids_to_tokens(stop_tokens(tokenizer)), manifest.data.system or frame.default
        begin = frame.question
        if frame.system is not None:
            before, after = frame.system
            begin = f"{{{{ if .System }}}}{before}{{{{ .System }}}}{after}{{{{ else }}}}{frame.question}{{{{ end }}}}"
        template = f"{begin}{{{{ .Prompt }}}}{frame.answer}{{{{ .Response }}}}{frame.end}"
    elif manifest.prompted:
        template += PROMPT_END
    lines = [f"FROM ./{file}", f'TEMPLATE """{template}"""']
    lines += [f'SYSTEM """{system}"""'] if system else []
    lines += [f'PARAMETER stop "{token}"' for token in stops if token]
    if manifest.positions is not None:
        lines.append(f"PARAMETER num_ctx {min(manifest.positions, _CONTEXT)}")
    return "\n".join(lines) + "\n"


def _frame(tokenizer: PreTrainedTokenizerBase) -> _Frame:
    """Found by marks in place of all words, in a conversation of two questions."""
    asked, again = Turn("user", _ASKED), Turn("user", _AGAIN)
    first = prompt_text(tokenizer, (asked,)).partition(_ASKED)[0]
    both = prompt_text(tokenizer, (asked, Turn("assistant", _SAID), again))
    between, _, answer = both.partition(_SAID)[2].partition(_AGAIN)
    end = whole_text(tokenizer, (asked, Turn("assistant", _SAID))).partition(_SAID)[2]
    question = between.removeprefix(end)
    try:
        told = prompt_text(tokenizer, (Turn("system", _SYSTEM), asked))
    except InputError:  # a template without system messages
        told = ""
    if _SYSTEM not in told:
        return _Frame(None, question, answer, end, "")
    before, _, rest = told.partition(_SYSTEM)
    after = rest.partition(_ASKED)[0]
    adds = len(first) > len(before) + len(after) and first.startswith(before) and first.endswith(after)
    default = first[len(before) : len(first) - len(after)] if adds else ""
    begin = "".join(tokenizer.convert_ids_to_tokens(begin_tokens(tokenizer)))  # Ollama puts it there itself
    return _Frame((before.removeprefix(begin), after), question, answer, end, default)
