"""Time, memory and size of an exported model, compared with the unpruned one."""
