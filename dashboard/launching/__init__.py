"""Parts of the page that starts a run."""
