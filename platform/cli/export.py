"""``export``: writing a run's models to folders."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimfed.clients.errors import InputError
from slimfed.platform.cli.options import Json, RunId
from slimfed.platform.cli.output import print_json, print_table
from slimfed.platform.console import notes
from slimfed.platform.format import NOTHING, percent, size

if TYPE_CHECKING:
    from slimfed.platform.export import Exported


def export(
    run: RunId,
    device: Annotated[
        int | None, typer.Option(min=0, help="export the global model in the structure of this device")
    ] = None,
    globally: Annotated[bool, typer.Option("--global", help="export the global model (default)")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="export the global model, and the model of every device")
    ] = False,
    format: Annotated[
        str, typer.Option(help="export format; `slimfed methods` lists them", metavar="FORMAT")
    ] = "safetensors",
    dtype: Annotated[
        str | None, typer.Option(help="type of the weights: fp32, bf16 or fp16; default: the base's", metavar="TYPE")
    ] = None,
    quantization: Annotated[
        str | None,
        typer.Option(help="gguf: f32, f16, bf16, q8_0, q4_0 or q4_k_m; default: the base's precision", metavar="TYPE"),
    ] = None,
    trim: Annotated[
        bool,
        typer.Option("--trim-vocabulary", help="keep only the tokens that text like the run's held-out text needs"),
    ] = False,
    vocabulary_text: Annotated[
        Path | None,
        typer.Option(
            help="with --trim-vocabulary: file that chooses the tokens instead, a data file with the run's columns, or "
            "one with a text in each line"
        ),
    ] = None,
    min_tokens: Annotated[
        int | None, typer.Option(min=1, help="with --trim-vocabulary: keep so many tokens at least")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="folder to create (with --all, the parent of one folder for each model); default: in the run's folder"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write pruned models of a run to folders, which need neither the run nor its store."""
    chosen = [device is not None, globally, everything]
    if sum(chosen) > 1:
        raise InputError("--device, --global and --all: give one of them")
    from slimfed.clients.export.formats.registry import FORMATS
    from slimfed.clients.export.weights import chosen_weights

    chosen_weights(format, FORMATS[format].weights, "fp32", dtype, quantization)  # before the run is opened
    for option, value in (("--vocabulary-text", vocabulary_text), ("--min-tokens", min_tokens)):
        if value is not None and not trim:
            raise InputError(f"{option} = {str(value)!r}: needs --trim-vocabulary")
    if vocabulary_text is not None and not vocabulary_text.is_file():
        raise InputError(f"--vocabulary-text = {str(vocabulary_text)!r}: there is no such file")
    if out is not None and not everything and out.exists():
        raise InputError(f"--out = {str(out)!r}: exists already; name another folder, or remove it")
    from slimfed.platform.export import GLOBAL, Exporter, card_figures, check_can_be_trimmed
    from slimfed.platform.store.reader import Reader
    from slimfed.platform.stores import existing
    from slimfed.platform.vocabulary import SmallVocabulary

    check_can_be_trimmed(format, trim)
    small = SmallVocabulary(vocabulary_text, min_tokens or 0) if trim else None

    with existing() as store:
        found = Reader(store.engine).find_run(run)
    with notes().status("opening the run"):
        exporter = Exporter(found, card_figures(found))
    subjects = [GLOBAL, *exporter.devices()] if everything else [device]
    written = []
    for subject in subjects:
        name = "global" if subject is None else f"device-{subject}"
        with notes().status(f"writing {name} as {format}"):
            place = out / name if out and everything else out
            written.append(exporter.export(subject, format, place, dtype, quantization, small))
    if as_json:
        print_json([_document(each, format) for each in written])
        return
    columns = {
        "subject": "model",
        "sparsity": "sparsity>",
        "weights": "weights",
        "size": "size>",
        "base": "base's weights>",
        "folder": "folder",
    }
    rows = [
        {
            "subject": each.subject,
            "sparsity": percent(each.sparsity),
            "weights": each.weights,
            "size": size(each.bytes),
            "base": "not here" if each.base_bytes is None else size(each.base_bytes),
            "folder": str(each.folder),
        }
        for each in written
    ]
    print_table("Exported", columns, rows)
    if trim:
        print_table("Vocabulary", _VOCABULARY_COLUMNS, [_vocabulary_row(each) for each in written])


_VOCABULARY_COLUMNS = {
    "subject": "model",
    "tokens": "tokens left>",
    "saved": "bytes saved>",
    "chosen_by": "chosen by",
    "texts": "measured on>",
    "changed": "texts changed>",
    "length": "tokens a text>",
    "measure": "measure>",
}


def _document(each: "Exported", format: str) -> dict[str, Any]:
    """One export as JSON; the ids of the tokens are in its manifest."""
    kept = each.vocabulary
    left = None if kept is None else {"tokens": len(kept.kept), **kept.model_dump(exclude={"kept"})}
    return {**vars(each), "folder": str(each.folder), "format": format, "vocabulary": left}


def _vocabulary_row(each: "Exported") -> dict[str, str]:
    kept = each.vocabulary
    if kept is None:
        return {"subject": each.subject}
    row = {
        "subject": each.subject,
        "tokens": f"{len(kept.kept):,} of {kept.before:,}",
        "saved": size(kept.saved),
        "chosen_by": kept.chosen_by,
    }
    lost = kept.losses
    if lost is None:
        return row
    measure = NOTHING
    if lost.bits_per_byte_after is not None:
        measure = f"{lost.bits_per_byte_before:.3f} to {lost.bits_per_byte_after:.3f} bits a byte"
    elif lost.accuracy_after is not None:
        measure = f"{percent(lost.accuracy_before)} to {percent(lost.accuracy_after)} accuracy"
    return row | {
        "texts": f"{lost.texts} texts",
        "changed": percent(lost.changed),
        "length": f"{lost.tokens_before:.1f} to {lost.tokens_after:.1f}",
        "measure": measure,
    }
