"""Who may look at the dashboard, and who may start and stop runs from it."""
