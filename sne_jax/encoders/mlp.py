"""A perceptron on the flat vector of weights: the encoder without symmetry.

It knows nothing of neurons; only augmentation can teach it their symmetry.

Dimensions: `B` networks, `P` weights of one, `D` width.

References:
  The MLP baseline of Navon et al., ICML 2023, arXiv:2301.12780 (section 4.3 of
  its code) and of Zhou et al., NeurIPS 2023, arXiv:2302.14040.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from sne_jax.encoders import interface, joining, tied
from sne_jax.networks.checked import Checked, option

NAME = "mlp"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MLPOptions(Checked):
  """Options of the flat perceptron.

  Attributes:
    width: units of every layer, the last of which is the code.
    layers: layers, at least 1.
    dropout: share of units dropped behind every layer while training.
    normalise: how inputs are normalised: tensor (a mean and deviation for each
      tensor, commutes with permutations), element (for each weight, the
      authors' mode), or none.
  """

  width: int = option(256, least=1)
  layers: int = option(3, least=1)
  dropout: float = option(0.0, least=0, below=1)
  normalise: str = option("tensor", choices=tied.NORMALISATIONS)


class Perceptron(nn.Module):
  """Layers of one width with ReLU behind each; also of other encoders."""

  width: int
  layers: int
  dropout: float = 0.0

  @nn.compact
  def __call__(
    self, x: Float[Array, "... P"], deterministic: bool = True
  ) -> Float[Array, "... D"]:
    """Returns the last layer's units."""
    for layer in range(self.layers):
      x = nn.relu(nn.Dense(self.width, name=f"layer_{layer}")(x))
      x = nn.Dropout(self.dropout)(x, deterministic)
    return x


class MLP(nn.Module):
  """Encodes networks of one architecture as `[B, D]`."""

  options: MLPOptions
  normaliser: tied.Normaliser

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Maps a batch to codes `[B, D]`."""
    o = self.options
    body = Perceptron(o.width, o.layers, o.dropout, name="body")
    return body(self.normaliser(batch), deterministic)


def measure(
  options: MLPOptions, networks: Sequence[interface.Network]
) -> dict[str, Any]:
  """See `tied.measure`."""
  return tied.measure(NAME, options.normalise, networks)


def build(
  options: MLPOptions, measured: Mapping[str, Any]
) -> interface.Encoder:
  """Builds the encoder."""
  spec, normaliser = tied.opened(measured)
  return interface.Encoder(
    make_packer=lambda specs: tied.packer(specs, spec, NAME),
    module=MLP(options, normaliser, name="encoder"),
  )
