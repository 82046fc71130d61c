"""The job file: its sections, presets, overrides and the checks across its fields."""
