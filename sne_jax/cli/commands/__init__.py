"""The subcommands of `sne-jax`, one file each."""
