"""Sources of models and text: a hub, or files within a named folder."""
