"""Families of networks that can be described, initialised and run."""

from sne_jax.networks.families.architectures import (
  ARCHITECTURES,
  NUM_DRAWS,
  architecture,
)
from sne_jax.networks.families.convolutional import cnn
from sne_jax.networks.families.dense import inr, mlp
from sne_jax.networks.families.initial import BIASES, SCHEMES, init
from sne_jax.networks.families.layers import ACTIVATIONS
from sne_jax.networks.families.residual import resnet
from sne_jax.networks.families.table import FAMILIES, build, forward, run
from sne_jax.networks.families.tiny import random_weights, tiny_specs
from sne_jax.networks.families.vision_transformer import transformer

__all__ = [
  "ACTIVATIONS",
  "ARCHITECTURES",
  "FAMILIES",
  "NUM_DRAWS",
  "BIASES",
  "SCHEMES",
  "architecture",
  "build",
  "cnn",
  "forward",
  "init",
  "inr",
  "mlp",
  "random_weights",
  "resnet",
  "run",
  "tiny_specs",
  "transformer",
]
