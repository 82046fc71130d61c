"""Choosing the units that go, and cutting models and adapters down to those that stay."""
