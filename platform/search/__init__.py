"""A search for the best values of a job's fields, by Optuna, within the runs of a sweep."""
