"""Simulated fleets: hardware profiles, and the clock that times devices by them."""
