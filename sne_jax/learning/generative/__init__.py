"""Networks drawn from codes."""
