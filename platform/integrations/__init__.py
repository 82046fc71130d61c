"""Runs in other people's tools."""
