"""The size limit of messages, checked by both sides before sending, and by the server before reading."""

from flwr.app import RecordDict


def oversize(content: RecordDict, devices: int, limit_mb: float) -> str | None:
    """Cause and remedy for a too large message to this many devices; None if its size is allowed.

    ``limit_mb``: the job's ``deadlines.message_mb``, megabytes for each device.
    """
    size = sum(record.count_bytes() for record in content.values())
    if size <= limit_mb * 1e6 * max(devices, 1):
        return None
    return (
        f"a message of {size / 1e6:,.1f} MB for {devices} device{'s' * (devices != 1)} is larger than "
        f"deadlines.message_mb = {limit_mb:g} allows; raise it, or lower bandit.ranks"
    )
