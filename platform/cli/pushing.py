"""``push``: sending an exported model to a hub."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimfed.clients.errors import InputError
from slimfed.platform.cli.options import Json
from slimfed.platform.cli.output import print_json, results
from slimfed.platform.console import notes
from slimfed.platform.exit_codes import FAILED
from slimfed.platform.format import size

if TYPE_CHECKING:
    from slimfed.platform.integrations.hub import Plan


def push(
    what: Annotated[
        str, typer.Argument(help="run (its global model is exported first), or a folder that `slimfed export` wrote")
    ],
    repository: Annotated[str, typer.Argument(help="where to, as user/name", metavar="USER/NAME")],
    format: Annotated[
        str | None, typer.Option(help="of a run: export format; default: safetensors", metavar="FORMAT")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="everybody may see it; default: its owner alone")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="send without asking")] = False,
    as_json: Json = False,
) -> None:
    """Send a pruned model with its model card to a model hub (HF_ENDPOINT, HF_TOKEN), after showing what goes where."""
    from slimfed.clients.export import manifest as manifests
    from slimfed.platform.integrations.hub import check_name, planned, send

    check_name(repository)
    folder = Path(what)
    if folder.is_dir() and format is not None:
        raise InputError(f"--format = {format!r}: {what!r} is a folder, which has its format")
    with tempfile.TemporaryDirectory(prefix="slimfed-push-") as place:
        if not folder.is_dir():
            folder = _exported(what, format or "safetensors", Path(place) / "model")
        manifest = manifests.read(folder)
        plan = planned(folder, manifest, repository, private=not public)
        _show(plan)
        if not yes and not typer.confirm("Send it?", default=False, err=True):
            notes().print("nothing was sent", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(FAILED)
        source = manifest.provenance
        with notes().status("sending"):
            address = send(plan, f"{source.subject} model of run {source.run}, by slimfed")
    if as_json:
        print_json({"repository": repository, "address": plan.address, "commit": address, "files": plan.files})
    else:
        results().print(plan.address, markup=False, highlight=False, soft_wrap=True)


def _exported(run: str, format: str, folder: Path) -> Path:
    """The global model of a run in a new ``folder``."""
    from slimfed.clients.export.formats.registry import FORMATS

    if format not in FORMATS:
        raise InputError(f"--format = {format!r}: must be one of {', '.join(FORMATS)}")
    from slimfed.platform.export import GLOBAL, Exporter, card_figures
    from slimfed.platform.store.reader import Reader
    from slimfed.platform.stores import existing

    with existing() as store:
        found = Reader(store.engine).find_run(run)
    with notes().status(f"writing the global model as {format}"):
        return Exporter(found, card_figures(found)).export(GLOBAL, format, folder).folder


def _show(plan: "Plan") -> None:
    """Say on standard error what goes where, and who will see it."""
    notes().print(f"to {plan.address}, as {plan.user}", markup=False, highlight=False, soft_wrap=True)
    seen = "private: its owner alone sees it" if plan.private else "PUBLIC: everybody sees it"
    notes().print(
        f"{seen}; {'adds a commit to what is there' if plan.there else 'a new repository'}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    for name, count in plan.files.items():
        notes().print(f"  {size(count):>9}  {name}", markup=False, highlight=False, soft_wrap=True)
    notes().print(f"  {size(plan.bytes):>9}  in all", markup=False, highlight=False, soft_wrap=True)
    for field, path in plan.paths.items():
        notes().print(
            f"its slimfed.json names a place of this computer: {field} = {path!r}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
