"""The cohort engine: many devices trained in one pass over one shared frozen base, each exactly as if it were alone."""
