"""Pre-trained models: loading, prunable structure, cost of training."""
