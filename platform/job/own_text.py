"""Text of one's own as a first job takes it: loaded once, and what the job file needs to say about it."""

from pathlib import Path
from typing import TYPE_CHECKING

from slimfed.clients.data.text import TEST_SHARE, load_data
from slimfed.clients.errors import InputError
from slimfed.clients.spec import DataSpec, PartitionSpec
from slimfed.platform.job.first_job import Answers, Columns, Task, usual_devices, usual_length

if TYPE_CHECKING:
    from slimfed.clients.data.readers.preview import Preview
    from slimfed.clients.data.text import TextData

SEED = 1
"""Of a first job."""
FLEET = "jetson-80"
"""Fleet of a first job."""

_POSITIONS = {"builtin:tiny-encoder": 128, "builtin:tiny-decoder": 256}
_UNLIMITED = 1 << 20


def usual_model(task: Task) -> str:
    """The built-in model for a task."""
    return "builtin:tiny-encoder" if task == "classification" else "builtin:tiny-decoder"


def load(path: str, found: "Preview", columns: Columns, task: Task) -> "TextData":
    """The text as a run will read it. Raises ``InputError`` with what is wrong with it."""
    natural = PartitionSpec(kind="natural", column=columns.owner) if columns.owner else PartitionSpec()
    spec = DataSpec(
        path=path,
        text=columns.text or "text",
        label=columns.label or "label",
        prompt=columns.prompt,
        completion=columns.completion,
        delimiter=found.delimiter,
        empty="drop",
        test_share=TEST_SHARE if found.divided else None,
        partition=natural,
    )
    return load_data(spec, task, SEED)


def most_devices(text: "TextData") -> tuple[int, str]:
    """The largest number of devices that the text can be divided among, and what limits it."""
    if text.train.owner is None:
        return len(text.train), "training rows"
    return len(set(text.train.owner)), "owners of training rows"


def check_devices(devices: int, text: "TextData", field: str = "fleet.devices") -> None:
    """Raise ``InputError`` if the text cannot be divided among so many devices."""
    most, what = most_devices(text)
    if not 1 <= devices <= most:
        raise InputError(f"{field} = {devices}: must be a number from 1 to {most}, as there are {most} {what}")


def answers(
    path: str,
    found: "Preview",
    columns: Columns,
    task: Task,
    text: "TextData",
    *,
    written: str | None = None,
    model: str | None = None,
    fleet: str = FLEET,
    devices: int | None = None,
) -> Answers:
    """What the job file needs. ``written``: the path as the file is to name it; ``model``, ``devices``: by default the
    usual ones.
    """
    model = model or usual_model(task)
    owners = None if text.train.owner is None else len(set(text.train.owner))
    return Answers(
        name=Path(path).absolute().stem or "job",
        path=written or path,
        task=task,
        columns=columns,
        model=model,
        fleet=fleet,
        devices=devices or usual_devices(len(text.train), owners),
        max_length=min(usual_length(found, columns.learnt), _POSITIONS.get(model, _UNLIMITED)),
        delimiter=found.delimiter,
        divided=found.divided,
        empty_rows=sum(each.rows for each in text.dropped),
        test_share=TEST_SHARE,
    )
