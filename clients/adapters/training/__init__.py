"""How adapters are trained and built into models: all that needs torch, imported when a method is asked for it."""
