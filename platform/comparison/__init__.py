"""Runs against each other: what a target costs, what a budget buys, what disturbances do."""
