"""The Python interface behind ``import slimfed``: jobs, runs, sweeps and the store."""
