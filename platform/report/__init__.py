"""A run as one HTML page to send to somebody."""
