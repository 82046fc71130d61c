"""A run in TensorBoard."""

from pathlib import Path
from typing import Any

from slimfed.platform.integrations.samples import needed, samples
from slimfed.platform.store.reader import Reader


def to_tensorboard(reader: Reader, run: Any, folder: Path) -> int:
    """Write the run below ``folder``, in a new folder; returns the number of values. Raises ``InputError``."""
    needed("tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    count = 0
    with SummaryWriter(str(folder / run.id)) as writer:
        for count, each in enumerate(samples(reader, run), 1):  # noqa: B007
            writer.add_scalar(each.name, each.value, each.round, walltime=each.at.timestamp())
    return count
