"""Methods for slimfed, one of each kind."""
