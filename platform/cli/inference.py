"""``predict`` and ``evaluate``: running an exported model."""

import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimfed.clients.errors import InputError
from slimfed.clients.sources.lines import read_texts
from slimfed.platform.cli.options import Json
from slimfed.platform.cli.output import print_json, results
from slimfed.platform.console import notes

if TYPE_CHECKING:
    from slimfed.clients.export.runtime.opened_model import OpenedModel

Folder = Annotated[Path, typer.Argument(help="folder that `slimfed export` wrote, in any format")]
Base = Annotated[
    Path | None, typer.Option(help="peft only: folder of the unpruned base; default: where the run had it")
]


def predict(
    folder: Folder,
    texts: Annotated[
        list[str] | None, typer.Argument(help="texts; default: those of --file, or of standard input")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="UTF-8 file with one text in each line; blank lines are skipped")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="causal-lm: longest continuation in tokens")] = 64,
    base: Base = None,
    as_json: Json = False,
) -> None:
    """Print the label of each text (classification), or its continuation (causal-lm)."""
    lines = _lines(texts, file)
    opened = _open(folder, base)
    if opened.manifest.task == "classification":
        found = opened.classify(lines)
        if as_json:
            print_json([{"text": line, **asdict(each)} for line, each in zip(lines, found, strict=True)])
            return
        for line, each in zip(lines, found, strict=True):
            text = f"{each.label}  {each.probabilities[each.label]:.3f}  {line}"
            results().print(text, markup=False, soft_wrap=True)
        return
    written = opened.continuations(lines, tokens)
    if as_json:
        print_json([{"text": line, "continuation": each} for line, each in zip(lines, written, strict=True)])
        return
    for continuation in written:
        results().print(continuation, markup=False, soft_wrap=True)


def evaluate(
    folder: Folder,
    data: Annotated[
        str | None,
        typer.Option(help="a file, or a value of data.path, whose test split is used; default: the run's data"),
    ] = None,
    text: Annotated[str | None, typer.Option(help="column of the text; default: as in training")] = None,
    label: Annotated[str | None, typer.Option(help="column of the label; default: as in training")] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="data.delimiter of a .csv file; default: as in training")
    ] = None,
    empty: Annotated[
        str | None, typer.Option(help="data.empty, refuse or drop: what to do with empty rows; default: as in training")
    ] = None,
    lm_eval: Annotated[
        list[str] | None,
        typer.Option("--lm-eval", metavar="TASK", help="evaluate on a task of lm-eval instead; repeatable"),
    ] = None,
    tasks: Annotated[Path | None, typer.Option(help="with --lm-eval: folder of your own task files")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="with --lm-eval: number of examples for each task")] = None,
    base: Base = None,
    as_json: Json = False,
) -> None:
    """Evaluate an exported model on labelled text, with the measures of the run."""
    opened = _open(folder, base)
    columns = {"path": data, "text": text, "label": label, "delimiter": delimiter, "empty": empty}
    found = _lm_eval(opened, lm_eval, tasks, limit) if lm_eval else _measures(opened, columns)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        results().print(f"{name:<18}  {shown}", markup=False, soft_wrap=True)


def _measures(opened: "OpenedModel", given: dict[str, str | None]) -> dict[str, Any]:
    """The measures on the text of the run, with the fields of ``[data]`` that are given in place of the run's."""
    from slimfed.clients.data.text import load_test
    from slimfed.clients.spec import DataSpec, GenerationSpec
    from slimfed.platform.job.field_errors import validate

    manifest = opened.manifest
    changes = {name: value for name, value in given.items() if value is not None}
    if "path" in changes and manifest.prompted and manifest.data.prompt is None:  # the built-in text names no columns
        changes |= {"prompt": "prompt", "completion": changes.get("text", "completion")}
    undivided = {"test_share": None} if "path" in changes else {}
    spec = validate(DataSpec, manifest.data.model_dump() | changes | undivided, "data.")
    text = load_test(spec, manifest.task, manifest.labels, None if "path" in changes else manifest.provenance.seed)
    if text.dropped is not None:
        notes().print(str(text.dropped), markup=False, soft_wrap=True)
    with notes().status("measuring"):
        found = opened.evaluate(text, GenerationSpec())
    measures = {name: value for name, value in asdict(found).items() if value is not None}
    if manifest.task == "causal-lm":
        measures["perplexity"] = math.exp(min(found.loss, 700.0))
    return measures


def _lm_eval(opened: "OpenedModel", names: list[str], folder: Path | None, limit: int | None) -> dict[str, Any]:
    if folder is not None and not folder.is_dir():
        raise InputError(f"--tasks = {str(folder)!r}: there is no such folder")
    try:
        from slimfed.clients.export.runtime.lm_eval import run_tasks
    except ImportError:
        raise InputError("--lm-eval needs lm-eval: pip install 'slimfed[lm-eval]'") from None
    return run_tasks(opened, names, folder, limit)


def _open(folder: Path, base: Path | None) -> "OpenedModel":
    with notes().status("opening the model"):
        from slimfed.clients.export.runtime.opened_model import open_model

        return open_model(folder, base)


def _lines(texts: list[str] | None, file: Path | None) -> list[str]:
    """The texts of the arguments, the file or standard input.

    Raises ``InputError`` if there are none, and with the number of the line for bytes that are not UTF-8.
    """
    if texts and file is not None:
        raise InputError("give texts or --file, not both")
    if file is not None:
        try:
            with file.open("rb") as stream:
                lines = read_texts(stream, f"--file = {str(file)!r}")
        except OSError as error:
            raise InputError(f"--file = {str(file)!r}: cannot be read ({error.strerror})") from None
    else:
        lines = [_valid(text) for text in texts] if texts else read_texts(sys.stdin.buffer, "standard input")
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise InputError("there is no text; give some, or --file, or standard input with a text a line")
    return lines


def _valid(text: str) -> str:
    """An argument, if the bytes that were given are UTF-8. Raises ``InputError``."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"text {text!r:.60}: is not UTF-8; convert it first, for example with iconv") from None
    return text
