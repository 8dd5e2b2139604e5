"""The model that edits networks: weights, and a small change of each.

Dimensions: `B` networks of one architecture, of `P` weights.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from sne_jax.encoders import table
from sne_jax.encoders.batches import joining
from sne_jax.networks import checked
from sne_jax.networks.spec import NetworkSpec

SCALE = 0.01
"""What changes are multiplied by at the start, as published."""


class Editor(nn.Module):
  """Edits networks: their weights, and a scale times a value of each.

  Attributes:
    per_weight: maps a batch to a value of every weight, `[B P, 1]`.
    sizes: of the tensors; each has a learned scale.
    scale: of all tensors at the start.
  """

  per_weight: nn.Module
  sizes: tuple[int, ...]
  scale: float = SCALE

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Returns the weights of the edited networks, `[B, P]`."""
    rows = jnp.asarray(batch.weights).reshape(-1, sum(self.sizes))
    change = self.per_weight(batch, deterministic).reshape(rows.shape)
    first = nn.initializers.constant(self.scale)
    scale = self.param("scale", first, (len(self.sizes),))
    owner = [n for n, size in enumerate(self.sizes) for _ in range(size)]
    return rows + scale[jnp.array(owner)][None] * change


def named() -> tuple[str, ...]:
  """Returns the encoders that can edit."""
  rows = table.ENCODERS.items()
  return tuple(name for name, row in rows if row.per_weight is not None)


def of_every_weight(name: str, does: str = "edit") -> Callable[..., nn.Module]:
  """Returns `per_weight` of an encoder's row.

  Args:
    name: of the encoder.
    does: what it is wanted for, a verb.

  Raises:
    ValueError: there is no such encoder, or it has none.
  """
  per_weight = table.row(name).per_weight
  if per_weight is None:
    raise ValueError(
      f"encoder {name} cannot {does}: it gives no value for every weight;"
      f" choose one of {', '.join(named())}"
    )
  return per_weight


def build(
  name: str,
  spec: NetworkSpec,
  options: Mapping[str, Any],
  chunk_options: Mapping[str, Any],
  measured: Mapping[str, Any],
  scale: float = SCALE,
) -> tuple[Editor, Any]:
  """Returns the model of an encoder, and its packer for the architecture.

  Args:
    name: of the encoder.
    spec: of all networks.
    options: the fields of the encoder's options.
    chunk_options: the fields of `chunking.ChunkOptions`.
    measured: what the encoder has measured on the training networks.
    scale: see `Editor`.

  Raises:
    ValueError: it has no value for every weight, or an option is wrong.
  """
  per_weight = of_every_weight(name)
  rebuilt = checked.rebuilt(table.row(name).options, options)
  module = per_weight(rebuilt, {**measured, "chunk_options": chunk_options})
  encoder = table.build(name, options, chunk_options, measured)
  sizes = tuple(tensor.size for tensor in spec.tensors)
  return Editor(module, sizes, scale), encoder.make_packer((spec,))
