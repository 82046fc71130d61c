"""The pages of the dashboard, one file each. A folder called ``pages`` beside the app is Streamlit's own to fill."""
