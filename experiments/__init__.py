"""Experiments: tasks, flags, references, figures and reports."""
