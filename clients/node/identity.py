"""A real node's own device: its number and the folder of its text, which only the node's owner sets."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slimfed.clients.errors import InputError
from slimfed.clients.messages.tags import LONGEST_TAG, MOST_TAGS, is_tag


@dataclass(frozen=True)
class HostedDevice:
    """``device`` is its number in the fleet, ``data`` the folder of its text; ``model`` a folder in place of the job's,
    ``tags`` words that ``fleet.where`` of a job can ask for.

    It comes from the node's configuration: ``--node-config 'device=3 data="/srv/slimfed/data"'``.
    """

    device: int
    data: Path
    model: str | None = None
    tags: tuple[str, ...] = ()

    @staticmethod
    def of(config: Mapping[str, object]) -> "HostedDevice | None":
        """The device that a node's configuration names; None for simulated nodes.

        Raises :class:`InputError` for an invalid configuration.
        """
        if "device" not in config and "data" not in config:
            return None
        device, data, model = config.get("device"), config.get("data"), config.get("model")
        if type(device) is not int or device < 0:
            raise InputError(
                f"node-config device = {device!r}: must be a whole number from 0, the device's in the fleet"
            )
        if not isinstance(data, str) or not Path(data).expanduser().is_dir():
            raise InputError(f"node-config data = {data!r}: must be the folder with the device's train file")
        if model is not None and not isinstance(model, str):
            raise InputError(f"node-config model = {model!r}: must be a folder written by save_pretrained")
        return HostedDevice(device, Path(data).expanduser(), model, _tags(config.get("tags", "")))


def _tags(given: object) -> tuple[str, ...]:
    """Tags of a node's configuration, which are written with commas between them."""
    tags = tuple(part.strip() for part in given.split(",") if part.strip()) if isinstance(given, str) else None
    if tags is None or len(tags) > MOST_TAGS or not all(map(is_tag, tags)):
        raise InputError(
            f"node-config tags = {given!r}: must be at most {MOST_TAGS} words of at most {LONGEST_TAG} letters, digits "
            "and - _ . with commas between them"
        )
    return tuple(dict.fromkeys(tags))
