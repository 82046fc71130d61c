"""What ``import slimfed`` offers: jobs, runs, sweeps and the store, as a program or a notebook uses them."""
