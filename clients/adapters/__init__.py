"""Adapters: what a device trains beside the frozen base."""
