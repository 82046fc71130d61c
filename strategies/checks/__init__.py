"""Checks of what nodes send: each update by itself, then against those of the fleet."""
