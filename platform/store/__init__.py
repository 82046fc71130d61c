"""The store: runs, rounds and devices in SQLite or PostgreSQL."""
