"""The formats a model is written in, one file each."""
