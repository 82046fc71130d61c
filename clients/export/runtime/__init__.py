"""Opening an exported folder again: predicting and evaluating with it."""
