"""Figures of runs for trackers and Prometheus, and models for hubs."""
