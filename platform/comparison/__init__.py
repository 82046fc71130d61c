"""Comparison of runs: cost of a target, quality within a budget, robustness to disturbances."""
