"""Labelled text: loading it, dividing it among devices, cutting it into batches."""
