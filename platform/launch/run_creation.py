"""A new run, before it starts: its folder and its rows in the store."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from slimfed.platform.home import RunFolder, create_run_folder
from slimfed.platform.inputs import pin_inputs
from slimfed.platform.job.job import job_to_dict, job_to_toml
from slimfed.platform.store import mirror
from slimfed.platform.store.writer import FirstStatus, Store
from slimfed.strategies.protocols import Event

if TYPE_CHECKING:
    from slimfed.platform.launch.preflight import Checked  # imports torch, which listing runs does not need


def create_run(
    store: Store, home: Path, checked: "Checked", sweep: str | None = None, status: FirstStatus = "created"
) -> tuple[str, RunFolder]:
    """A new run of a checked job: its folder with the resolved job file, and its rows in the store; both or neither.

    The reasons of the engine choices are in the folder, in ``logs/engine.log``; empty rows that are left out are an
    event of round 0. ``sweep``: the name of the sweep that the run belongs to.
    """
    run_id, folder = create_run_folder(home)
    try:
        folder.job.touch(mode=0o600)  # the store's URL may hold a password
        folder.job.write_text(job_to_toml(checked.job), encoding="utf-8")
        if checked.inputs is not None:
            pin_inputs(folder, checked.inputs)
        folder.logs.mkdir()
        (folder.logs / "engine.log").write_text("\n".join([*checked.reasons, ""]), encoding="utf-8")
        store.create_run(run_id, job_to_dict(checked.job), folder.path, sweep, status)
        for each in checked.dropped:
            remedy = "fill the rows in, or leave them out of the file"
            store.add_event(run_id, Event(0, "rows-dropped", str(each), remedy))
        for line in checked.truncated:
            store.add_event(run_id, Event(0, "texts-truncated", line, "raise data.max_length, or shorten the texts"))
        if checked.origin:
            store.add_event(run_id, Event(0, "base-origin", f"the base was read from {checked.origin}", ""))
        store.set_devices(
            run_id,
            [
                (device.device, device.profile, examples)
                for device, examples in zip(checked.fleet.devices, checked.examples, strict=True)
            ],
        )
        with store.engine.connect() as connection:
            mirror.copy_run(connection, run_id, folder.rows)
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return run_id, folder
