"""A value for every weight, from features of weights.

Dimensions: as in `features`; `T` weights of a batch.
"""

import flax.linen as nn
import jax

from sne_jax.encoders.batches import joining, tied
from sne_jax.encoders.functionals import feature_layers, features


class PerWeight(nn.Module):
  """Maps a batch of networks of one architecture to `[T, 1]`.

  It moves along with the neurons, as the features do.

  Attributes:
    normaliser: of the weights.
    layout: of the networks.
    body: equivariant, from features of one channel to features of several.
    last: equivariant, from these to one channel.
    is_normed: whether a channel norm stands between these two (as after
      residual blocks), or ReLU.
  """

  normaliser: tied.Normaliser
  layout: features.Layout
  body: nn.Module
  last: nn.Module
  is_normed: bool = False

  @nn.compact
  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Returns a value for every weight, `[T, 1]`."""
    x = self.body(self.layout.features(self.normaliser(batch)))
    if self.is_normed:
      x = feature_layers.SimpleNorm(name="norm")(x)
    else:
      x = jax.tree.map(nn.relu, x)
    return self.layout.flat(self.last(x)).reshape(-1, 1)
