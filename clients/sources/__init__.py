"""Where models and text come from: a hub, or files that must lie in the folder they were named with."""
