"""Starting the Flower runtime for one run, watching it, and leaving nothing behind."""
