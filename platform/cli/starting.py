"""``init``: a first job file for text of one's own, by questions or by options."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimfed.clients.errors import InputError
from slimfed.platform.console import notes

if TYPE_CHECKING:
    from slimfed.clients.data.readers.preview import Preview
    from slimfed.clients.data.text import TextData
    from slimfed.platform.job.first_job import Answers, Columns, Task

_NONE = "none"


def init(
    data: Annotated[str | None, typer.Option(help="a file, or a folder with train and test files")] = None,
    task: Annotated[str | None, typer.Option(help="classification or causal-lm")] = None,
    text: Annotated[str | None, typer.Option(help="column of the text")] = None,
    label: Annotated[str | None, typer.Option(help="classification: column of the label")] = None,
    prompt: Annotated[str | None, typer.Option(help="causal-lm: column of the prompt; none: plain text")] = None,
    completion: Annotated[str | None, typer.Option(help="causal-lm: column of the completion")] = None,
    owner: Annotated[str | None, typer.Option(help="column of the owner of a row; none: rows have no owners")] = None,
    model: Annotated[str | None, typer.Option(help="builtin:NAME, a hub id, or a folder by save_pretrained")] = None,
    fleet: Annotated[str | None, typer.Option(help="a fleet of `slimfed fleet`, or a TOML file of your own")] = None,
    devices: Annotated[int | None, typer.Option(min=1, help="number of devices")] = None,
    out: Annotated[Path, typer.Option(help="the job file to write")] = Path("job.toml"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="ask nothing: what no option gives is guessed")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace the job file if there is one")] = False,
) -> None:
    """Write a commented job file for your own text. Asks for what no option gives."""
    from slimfed.clients.data.readers.preview import preview
    from slimfed.platform.job.first_job import job_file

    if out.exists() and not force:
        raise InputError(
            f"--out = {str(out)!r}: there is such a file already; name another, or replace it with --force"
        )
    given = {"data": data, "task": task, "text": text, "label": label, "prompt": prompt, "completion": completion}
    given |= {"owner": owner, "model": model, "fleet": fleet, "devices": None if devices is None else str(devices)}
    questions = Questions(given, silent=yes)
    path = questions.ask("data", "File or folder with your text")
    found = preview(path)
    _say(f"{found.file}: {found.rows:,} rows, columns {', '.join(found.columns)}")
    answers = _answers(questions, found, path, out)
    _write(out, job_file(answers))
    _say(f"wrote {out}; look at it with `slimfed check {out}`, start it with `slimfed run {out}`")


@dataclass(frozen=True)
class Questions:
    """The answers that options give; the others are asked for, or guessed if ``silent``."""

    given: dict[str, str | None]
    silent: bool

    def look(self, option: str, question: str, guess: str, check: Callable[[str], object]) -> str:
        """As :meth:`ask`, for a name that must be there: ``check`` raises ``InputError`` for one that is not."""
        while True:
            answer = self.ask(option, question, guess)
            try:
                check(answer)
                return answer
            except InputError as error:
                if self.silent or self.given[option] is not None:
                    raise InputError(f"--{option} = {answer!r}: {error}") from None
                _say(str(error))

    def ask(self, option: str, question: str, guess: str | None = None, valid: Collection[str] = ()) -> str:
        """The answer; ``guess`` is offered. Raises ``InputError`` for an option that is not ``valid``, and for none."""
        answer = self.given[option]
        if answer is None and self.silent:
            answer = guess
            if answer is None:
                raise InputError(f"--{option}: is missing, and cannot be guessed")
        if answer is not None:
            if valid and answer not in valid:
                raise InputError(f"--{option} = {answer!r}: must be one of {', '.join(valid)}")
            return answer
        while True:
            answer = self._prompt(option, question, guess)
            if not valid or answer in valid:
                return answer
            _say(f"{answer!r} is not one of {', '.join(valid)}")

    @staticmethod
    def _prompt(option: str, question: str, guess: str | None) -> str:
        try:
            return str(typer.prompt(question, default=guess, err=True)).strip()
        except typer.Abort:
            raise InputError(f"--{option}: there was no answer; give the option, or --yes to have it guessed") from None


def _answers(questions: Questions, found: "Preview", path: str, out: Path) -> "Answers":
    """All that the job file needs, in the order of the questions. Raises ``InputError``."""
    from slimfed.clients.models.location import look_for
    from slimfed.clients.spec import ModelSpec
    from slimfed.platform.fleet.profiles import PROFILES, load_profile
    from slimfed.platform.job import own_text
    from slimfed.platform.job.first_job import guess

    guessed = guess(found)
    wanted = questions.ask("task", "Task (classification, causal-lm)", guessed.task, ("classification", "causal-lm"))
    task: Task = "classification" if wanted == "classification" else "causal-lm"
    columns = _columns(questions, found, guessed, task)
    model = questions.look(
        "model",
        "Model (builtin:NAME, a hub id, or a folder)",
        own_text.usual_model(task),
        lambda answer: look_for(ModelSpec(path=answer)),
    )
    fleet = questions.look("fleet", f"Fleet ({', '.join(PROFILES)}, or a TOML file)", own_text.FLEET, load_profile)
    text = own_text.load(path, found, columns, task)
    answers = own_text.answers(
        path, found, columns, task, text, written=_written(path, out), model=model, fleet=_written(fleet, out)
    )
    return replace(answers, model=_written(model, out), devices=_devices(questions, text, answers.devices))


def _columns(questions: Questions, found: "Preview", guessed: "Columns", task: "Task") -> "Columns":
    from slimfed.platform.job.first_job import Columns

    names = tuple(found.columns)

    def optional(option: str, question: str, guess: str | None) -> str | None:
        answer = questions.ask(option, f"{question} ({_NONE} if there is none)", guess or _NONE, (*names, _NONE))
        return None if answer == _NONE else answer

    if task == "classification":
        text = questions.ask("text", "Column of the text", guessed.text, names)
        label = questions.ask("label", "Column of the label", guessed.label, names)
        return Columns(text, label, owner=optional("owner", "Column of the owner of a row", guessed.owner))
    prompt = optional("prompt", "Column of the prompt", guessed.prompt)
    if prompt is None:
        text = questions.ask("text", "Column of the text", guessed.text, names)
        return Columns(text, owner=optional("owner", "Column of the owner of a row", guessed.owner))
    completion = questions.ask("completion", "Column of the completion", guessed.completion, names)
    owner = optional("owner", "Column of the owner of a row", guessed.owner)
    return Columns(prompt=prompt, completion=completion, owner=owner)


def _devices(questions: Questions, text: "TextData", usual: int) -> int:
    from slimfed.platform.job.own_text import check_devices, most_devices

    answer = questions.ask("devices", "Number of devices", str(usual))
    if not answer.isdecimal():
        most, what = most_devices(text)
        raise InputError(f"--devices = {answer!r}: must be a number from 1 to {most}, as there are {most} {what}")
    check_devices(int(answer), text, "--devices")
    return int(answer)


def _written(path: str, out: Path) -> str:
    """A path as the job file names it: from its own folder, if it lies below; names that are no paths as they are."""
    place = Path(path).expanduser()
    if path.startswith("builtin:") or not place.exists():
        return path
    near = relpath(place, out.absolute().parent)
    return str(place.absolute()) if near.startswith("..") else f"./{near}"


def _write(out: Path, content: str) -> None:
    try:
        out.write_text(content, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out = {str(out)!r}: cannot be written ({error.strerror})") from None


def _say(text: str) -> None:
    notes().print(text, markup=False, highlight=False, soft_wrap=True)
