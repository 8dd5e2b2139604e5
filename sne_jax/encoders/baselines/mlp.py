"""A perceptron on the flat vector of weights: the encoder without symmetry.

It knows nothing of neurons; only augmentation can teach it their symmetry.

Dimensions: `B` networks, `P` weights of one, `D` width.

References:
  The MLP baseline of Navon et al., ICML 2023, arXiv:2301.12780 (section 4.3 of
  its code) and of Zhou et al., NeurIPS 2023, arXiv:2302.14040.
"""

import dataclasses

import flax.linen as nn
from jaxtyping import Array, Float

from sne_jax.encoders.batches import joining, tied
from sne_jax.networks.checked import Checked, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class MLPOptions(Checked):
  """Options of the flat perceptron.

  Attributes:
    width: units of every layer, the last of which is the code.
    layers: layers, at least 1.
    normalise: how inputs are normalised: tensor (a mean and deviation for each
      tensor, commutes with permutations), element (for each weight, the
      authors' mode), or none.
  """

  width: int = option(256, least=1)
  layers: int = option(3, least=1)
  normalise: str = option("tensor", choices=tied.NORMALISATIONS)


class Perceptron(nn.Module):
  """Layers of one width, each followed by ReLU; also of other encoders."""

  width: int
  layers: int

  @nn.compact
  def __call__(self, x: Float[Array, "... P"]) -> Float[Array, "... D"]:
    """Returns the last layer's units."""
    for layer in range(self.layers):
      x = nn.relu(nn.Dense(self.width, name=f"layer_{layer}")(x))
    return x


class MLP(nn.Module):
  """Encodes networks of one architecture as `[B, D]`."""

  options: MLPOptions
  normaliser: tied.Normaliser

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Maps a batch to codes `[B, D]`."""
    body = Perceptron(self.options.width, self.options.layers, name="body")
    return body(self.normaliser(batch))
