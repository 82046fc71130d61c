"""Closing a round: when, and with which updates (docs/late-updates.md)."""
