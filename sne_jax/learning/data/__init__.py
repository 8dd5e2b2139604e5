"""From networks to batches."""
