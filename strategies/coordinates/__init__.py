"""A device's numbers within the global adapter: where they lie, and exact sums over all devices."""
