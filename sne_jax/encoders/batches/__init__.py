"""How networks become the arrays of one batch."""
