"""Exit codes of ``slimfed``."""

OK = 0
FAILED = 1
"""A run failed or was stopped."""

BAD_INPUT = 2
INTERRUPTED = 130
"""Stopped by Ctrl-C."""
