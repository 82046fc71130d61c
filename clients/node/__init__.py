"""A node of the federation: what it holds for a run, and which device is its own."""
