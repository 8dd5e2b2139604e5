"""SNE, the Set-based Neural network Encoder."""
