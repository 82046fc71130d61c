"""Rows of the store become tidy frames, and frames become figures. No Streamlit here."""
