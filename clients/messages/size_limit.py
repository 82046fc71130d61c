"""How large a message may be: both sides look before they send, and the server before it reads."""

from flwr.app import RecordDict


def oversize(content: RecordDict, devices: int, limit_mb: float) -> str | None:
    """Why a message that serves so many devices is too large, and what to do; None if it is not.

    ``limit_mb``: the job's ``deadlines.message_mb``, megabytes for each device.
    """
    size = sum(record.count_bytes() for record in content.values())
    if size <= limit_mb * 1e6 * max(devices, 1):
        return None
    return (
        f"a message of {size / 1e6:,.1f} MB for {devices} device{'s' * (devices != 1)} is larger than "
        f"deadlines.message_mb = {limit_mb:g} allows; raise it, or lower bandit.ranks"
    )
