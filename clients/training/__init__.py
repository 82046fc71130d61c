"""Training the devices of a round, alone or in cohorts."""
