"""Keras models, from the configuration in their files."""

from sne_jax.networks.tracing.keras_files.graph import KerasGraph

__all__ = ["KerasGraph"]
