"""Starting the Flower runtime for a run, watching it, and ending all its processes."""
