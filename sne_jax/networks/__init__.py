"""Networks as a static spec and a flat vector; views of the vector."""
