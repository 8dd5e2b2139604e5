"""The model that predicts masks: weights, and a logit of each.

Dimensions: `B` networks of one architecture, of `P` weights.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from sne_jax.encoders import editor, table
from sne_jax.encoders.batches import joining
from sne_jax.networks import checked
from sne_jax.networks.spec import NetworkSpec


class Masker(nn.Module):
  """Gives the logit of every weight's being kept.

  Attributes:
    per_weight: maps a batch to a value of every weight, `[B P, 1]`.
    num_weights: `P`.
  """

  per_weight: nn.Module
  num_weights: int

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Returns logits of networks, `[B, P]`."""
    values = self.per_weight(batch, deterministic)
    return values.reshape(-1, self.num_weights)


def build(
  name: str,
  spec: NetworkSpec,
  options: Mapping[str, Any],
  chunk_options: Mapping[str, Any],
  measured: Mapping[str, Any],
) -> tuple[Masker, Any]:
  """Returns the model of an encoder, and its packer for the architecture.

  Args:
    name: of the encoder.
    spec: of all networks.
    options: the fields of the encoder's options.
    chunk_options: the fields of `chunking.ChunkOptions`.
    measured: what the encoder has measured on the training networks.

  Raises:
    ValueError: it has no value for every weight, or an option is wrong.
  """
  per_weight = editor.of_every_weight(name, "predict masks")
  rebuilt = checked.rebuilt(table.row(name).options, options)
  module = per_weight(rebuilt, {**measured, "chunk_options": chunk_options})
  encoder = table.build(name, options, chunk_options, measured)
  return Masker(module, spec.num_weights), encoder.make_packer((spec,))
