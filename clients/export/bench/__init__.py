"""What an exported model saves against the unpruned one: time, memory, size."""
