"""Plain networks, one layer after another, by names and shapes alone."""
