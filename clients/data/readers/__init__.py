"""Reading text from one file, or from the hub, as columns of values."""
