"""Labelled text: loading, division among devices, batches."""
