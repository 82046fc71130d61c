"""The error of a store that fails."""

from slimfed.clients.errors import SlimfedError


class StoreError(SlimfedError):
    """The store failed; the text names its address, what happened and what to do."""
