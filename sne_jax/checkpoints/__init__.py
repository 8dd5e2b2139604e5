"""Single checkpoints of any framework, read without trusting them."""

from sne_jax.checkpoints.contents import Contents
from sne_jax.checkpoints.contents import describe as describe_contents
from sne_jax.checkpoints.limits import Limits
from sne_jax.checkpoints.network import (
  Familiar,
  FileNetwork,
  load,
  of_arrays,
  read_override,
)
from sne_jax.checkpoints.reading import find, read
from sne_jax.checkpoints.tensors import OWN_KEYS, Entry, Tensors, check_finite
from sne_jax.checkpoints.verifying import NotVerifiedError, verify

__all__ = [
  "OWN_KEYS",
  "Contents",
  "Entry",
  "Familiar",
  "FileNetwork",
  "Limits",
  "NotVerifiedError",
  "Tensors",
  "check_finite",
  "describe_contents",
  "find",
  "load",
  "of_arrays",
  "read",
  "read_override",
  "verify",
]
