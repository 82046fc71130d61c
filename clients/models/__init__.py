"""Pre-trained models: loading them, finding what can be pruned, counting what they cost."""
