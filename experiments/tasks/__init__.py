"""The experiments: one file per task."""
