"""Measuring a model on labelled text, and on what it writes."""
