"""A node of the federation: its state for a run, and its own device."""
