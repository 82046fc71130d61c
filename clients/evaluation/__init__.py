"""Evaluation of a model on labelled text and on generated completions."""
