"""Families of networks that can be described, initialised and run."""

from sne_jax.networks.families.dense import inr, mlp
from sne_jax.networks.families.initial import SCHEMES, init, random_weights
from sne_jax.networks.families.layers import ACTIVATIONS
from sne_jax.networks.families.table import FAMILIES, build, forward

__all__ = [
  "ACTIVATIONS",
  "FAMILIES",
  "SCHEMES",
  "build",
  "forward",
  "init",
  "inr",
  "mlp",
  "random_weights",
]
