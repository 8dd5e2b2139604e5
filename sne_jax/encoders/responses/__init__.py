"""What networks answer to learned inputs."""
