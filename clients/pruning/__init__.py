"""Selecting units to prune, and slicing models and adapters to the kept units."""
