"""The model that a run has made: its size, its structure, and its export as a file that other programs open."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from slimfed.clients.errors import InputError
from slimfed.clients.export.formats.registry import FORMATS
from slimfed.clients.export.weights import PRECISIONS, QUANTIZATIONS
from slimfed.clients.models.location import weights_bytes
from slimfed.clients.spec import ModelSpec
from slimfed.dashboard import children, columns, format, widgets
from slimfed.dashboard.figures import frames
from slimfed.dashboard.source import Source
from slimfed.platform.exports import Exported, bench_file, export_folder, exported
from slimfed.platform.home import RunFolder
from slimfed.platform.store.dashboard_reader import Insight

_LOOK_SECONDS = 1.0
_LARGEST_DOWNLOAD = 300_000_000
_OF_THE_BASE = "as the base"
_GLOBAL = "Global model"
_REFUSED = "refused command"

_COLUMNS = {
    "model": st.column_config.TextColumn("Model"),
    "format": st.column_config.TextColumn("Format"),
    "weights": st.column_config.TextColumn("Weights"),
    "size": st.column_config.TextColumn("Size"),
    "original": st.column_config.TextColumn("Of the original file"),
    "sparsity": columns.number("Sparsity"),
    "latency": st.column_config.TextColumn("Time a text", help="At batch 1 on this computer, and that of the original"),
    "round": st.column_config.NumberColumn("After round", format="%d"),
    "folder": st.column_config.TextColumn("Folder"),
}


def show(source: Source, run: Any) -> None:
    """What is left of the model, what was exported, and buttons for more."""
    with source.explained() as reader:
        st.caption(_left(reader, run))
        folder = RunFolder(Path(run.folder))
        found = exported(folder)
        original = _original(run)
        if found:
            _table(found, original)
            _chosen(source, found)
        else:
            size = f" The original file has {format.size(original)}." if original else ""
            widgets.nothing(f"No model of this run has been exported yet.{size}")
        if source.operator:
            _new(source, reader, run, folder)


def _left(reader: Insight, run: Any) -> str:
    """Heads and channels that the devices have kept, in a sentence."""
    blocks = frames.blocks_frame(reader.blocks(run.id))
    parts = []
    for kind, word in (("attention", "attention heads"), ("ffn", "channels of the feed-forward blocks")):
        rows = blocks[blocks["kind"] == kind]
        if len(rows):
            parts.append(f"{rows['kept'].sum():,.0f} of {rows['units'].sum():,} {word}")
    kept = f": the devices keep {' and '.join(parts)}" if parts else ""
    sparsity = reader.global_sparsity(run.id)
    return (
        f"After round {run.rounds_done} {format.percent(sparsity)} of the prunable parameters are removed from the "
        f"global model{kept}. The tab Structure shows which."
    )


def _original(run: Any) -> int | None:
    """Bytes of the base's weights; None if they are not here."""
    try:
        return weights_bytes(ModelSpec.model_validate(run.job["model"]))
    except (InputError, ValueError, OSError):
        return None


def _table(found: Sequence[Exported], original: int | None) -> None:
    rows = [
        {
            "model": each.manifest.provenance.subject,
            "format": each.manifest.kind,
            "weights": each.manifest.weights,
            "size": format.size(each.bytes),
            "original": format.percent(each.bytes / original, 0) if original else format.NOTHING,
            "sparsity": each.manifest.provenance.sparsity,
            "latency": _latency(each.bench),
            "round": each.manifest.provenance.round,
            "folder": str(each.folder),
        }
        for each in found
    ]
    frame = pd.DataFrame(rows)
    st.dataframe(
        columns.written(frame),
        hide_index=True,
        column_config=_COLUMNS,
        column_order=list(_COLUMNS),
        alt="Table of exported models, the newest first",
        key="exports",
    )


def _latency(bench: dict[str, Any] | None) -> str:
    if bench is None:
        return "not measured"
    slim, dense = bench["slim"]["latency"], bench["dense"]["latency"]
    return f"{1e3 * slim:.1f} ms against {1e3 * dense:.1f} ms"


def _chosen(source: Source, found: Sequence[Exported]) -> None:
    """Download and measurement of one exported model."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="exported"):
        names = {each.folder.name: each for each in found}
        name = st.selectbox("Exported model", list(names), key="exported model", width=320)
        each = names[name]
        if each.bytes <= _LARGEST_DOWNLOAD:
            st.download_button(
                "Download",
                lambda: _packed(each.folder),
                f"{name}.zip",
                "application/zip",
                icon=":material/download:",
                on_click="ignore",
            )
        if source.operator:
            _command(
                source,
                f"bench {each.folder}",
                "Measure",
                ":material/timer:",
                ["bench", str(each.folder), "--out", str(bench_file(each.folder)), "--json"],
                "Time, memory and size against the original model, on this computer",
                done=each.bench is not None,
            )
    if each.bytes > _LARGEST_DOWNLOAD:
        st.caption(f"Too large to download here; it lies in `{format.code(str(each.folder))}`.")


def _packed(folder: Path) -> bytes:
    """The folder as a ZIP file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(each for each in folder.rglob("*") if each.is_file()):
            archive.write(file, Path(folder.name) / file.relative_to(folder))
    return buffer.getvalue()


def _new(source: Source, reader: Insight, run: Any, folder: RunFolder) -> None:
    """The choice of format, weights and subject, and the button that exports."""
    st.markdown("**Export**")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="export"):
        kind = str(st.selectbox("Format", list(FORMATS), index=list(FORMATS).index("safetensors"), width=160))
        weights = str(st.selectbox("Weights", [_OF_THE_BASE, *_weights(kind)], key=f"weights {kind}", width=140))
        subjects = _subjects(reader, run)
        whose = str(st.selectbox("Model of", list(subjects), key="subject", width=240))
        device = subjects[whose]
        option = "" if weights == _OF_THE_BASE else weights
        subject = "global" if device is None else f"device {device}"
        out = export_folder(folder, subject, kind, option, run.rounds_done)
        arguments = ["export", run.id, "--format", kind, "--out", str(out), "--json"]
        arguments += [] if device is None else ["--device", str(device)]
        if option:
            arguments += ["--dtype" if option in PRECISIONS else "--quantization", option]
        _command(
            source,
            f"export {out}",
            "Export",
            ":material/deployed_code:",
            arguments,
            "Writes the model into the run's folder, in the background",
            done=out.exists(),
        )
    st.caption(
        "A device's model is the global one in the structure that the device has kept. "
        f"From a terminal: `slimfed export {format.code(run.id)} --format {kind}`."
    )


def _weights(kind: str) -> list[str]:
    """The types of weights that can be asked for, by the names of the command."""
    able = FORMATS[kind].weights
    if len(able) < 2:
        return []
    names = QUANTIZATIONS if "q8_0" in able else {each: each for each in PRECISIONS}
    return [name for name, weights in names.items() if weights in able]


def _subjects(reader: Insight, run: Any) -> dict[str, int | None]:
    """The global model, and of each class the first device."""
    firsts = {row.profile: row.device for row in reader.first_devices(run.id)}
    return {_GLOBAL: None} | {f"{format.plain(name)}, device {device}": device for name, device in firsts.items()}


def _command(source: Source, key: str, label: str, icon: str, arguments: list[str], hint: str, *, done: bool) -> None:
    """A button that starts a command in the background; beside it its progress, and its errors."""
    child = children.child(key)
    running = child is not None and child.running
    st.button(
        f"{label}ed already" if done and label == "Export" else label,
        icon=icon,
        disabled=running or (done and label == "Export"),
        help=hint,
        key=key,
        on_click=_begin,
        args=(source, key, arguments),
    )
    if child is not None and running:
        st.fragment(_wait, run_every=_LOOK_SECONDS)(key, label)
    problems = (st.session_state.get(_REFUSED, {}).get(key), *(child.problems if child is not None else ()))
    known = [each for each in problems if each]
    if known and not running:
        st.caption(f":red[:material/error: {format.plain('; '.join(known))}]")


def _begin(source: Source, key: str, arguments: list[str]) -> None:
    try:
        children.begin(source, key, arguments)
        st.session_state[_REFUSED] = {}
    except (InputError, OSError) as error:
        st.session_state[_REFUSED] = {key: str(error)}


def _wait(key: str, label: str) -> None:
    child = children.child(key)
    if child is None or not child.running:
        st.rerun()
    else:
        st.caption(f":material/hourglass_top: {label}: {child.seconds:.0f} s so far")
