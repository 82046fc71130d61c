"""``predict`` and ``evaluate``: running an exported model."""

import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimfed.clients.errors import InputError
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
    file: Annotated[Path | None, typer.Option(help="file with one text in each line")] = None,
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
    found = _lm_eval(opened, lm_eval, tasks, limit) if lm_eval else _measures(opened, data, text, label)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        results().print(f"{name:<18}  {shown}", markup=False, soft_wrap=True)


def _measures(opened: "OpenedModel", data: str | None, text: str | None, label: str | None) -> dict[str, Any]:
    from slimfed.clients.data.text import load_test
    from slimfed.clients.spec import GenerationSpec

    manifest = opened.manifest
    changes = {"path": data, "text": text, "label": label}
    spec = manifest.data.model_copy(update={name: value for name, value in changes.items() if value is not None})
    if data is not None and manifest.prompted and spec.prompt is None:  # the built-in text has no columns to name
        spec = spec.model_copy(update={"prompt": "prompt", "completion": text or "completion"})
    with notes().status("measuring"):
        found = opened.evaluate(load_test(spec, manifest.task, manifest.labels), GenerationSpec())
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
    """The texts of the arguments, the file or standard input. Raises ``InputError`` if there are none."""
    if texts and file is not None:
        raise InputError("give texts or --file, not both")
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--file = {str(file)!r}: cannot be read as text ({error})") from None
    else:
        lines = texts or sys.stdin.read().splitlines()
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise InputError("there is no text; give some, or --file, or standard input with a text a line")
    return lines
