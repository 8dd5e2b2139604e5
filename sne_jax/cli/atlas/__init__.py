"""A zoo or a run as a page for the browser."""
