"""Networks of others: how predictions of them hold."""
