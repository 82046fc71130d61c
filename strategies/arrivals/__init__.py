"""When a round closes, and what becomes of updates that come later (docs/late-updates.md)."""
