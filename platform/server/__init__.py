"""The ServerApp's code: assembling, running, recording and resuming a run."""
