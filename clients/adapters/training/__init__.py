"""Training of adapters, and models built with them: the code that needs torch, imported on demand."""
