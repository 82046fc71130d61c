"""Frames of the store's rows, and figures of frames. No Streamlit here."""
