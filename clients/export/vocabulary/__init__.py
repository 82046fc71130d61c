"""A smaller vocabulary for an exported model: which tokens stay, and the tokenizer and model that have no others."""
