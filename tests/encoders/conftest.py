"""Small encoders of random parameters, for the tests of SNE.

The tests of all encoders are those of an encoder of your own too, which
ENCODER_FILE names.
"""

import os
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders.sne import module, slots
from sne_jax.encoders.sne import options as sne_options

if "ENCODER_FILE" in os.environ:
  runpy.run_path(os.environ["ENCODER_FILE"])

FAST = {"xla_backend_optimization_level": "0"}  # Compiles faster.


class Encoder:
  """An SNE of random parameters; called, it gives the codes of networks."""

  def __init__(self, specs, chunk_options, **options):
    self.options = sne_options.SNEOptions(**options)
    self.packer = slots.packer(specs, self.options, chunk_options)
    self.module = module.SNE(self.options)
    first = self.packer.template((0,))
    zeros = first._replace(weights=jnp.zeros(first.room))
    keys = dict.fromkeys(("params", "identifiers"), jax.random.key(0))
    self.params = drawn(jax.eval_shape(self.module.init, keys, zeros))
    self.num_traces = 0
    self._jitted = jax.jit(self._apply, compiler_options=FAST)

  def _apply(self, params, packed, rngs):
    self.num_traces += 1
    return self.module.apply(params, packed, rngs=rngs)

  def pack(self, *networks, sizes=None):
    numbers = [self.packer.specs.index(spec) for spec, _ in networks]
    return self.packer.pack(numbers, [w for _, w in networks], sizes)

  def __call__(self, *networks, sizes=None, rngs=None):
    packed = self.pack(*networks, sizes=sizes)
    return np.asarray(self._jitted(self.params, packed, rngs))

  def loss_and_gradient(self, *networks, **rngs):
    """Sum of squared codes while training, and its gradient."""

    def loss(params, packed):
      codes = self.module.apply(params, packed, not rngs, rngs=rngs or None)
      return jnp.sum(codes**2)

    jitted = jax.jit(jax.value_and_grad(loss), compiler_options=FAST)
    return jitted(self.params, self.pack(*networks))


def drawn(shapes):
  """Draws parameters of given shapes; none are zero or equal to others."""
  rng = np.random.default_rng(0)

  def draw(path, x):
    name = path[-1].key
    noise = rng.standard_normal(x.shape).astype(x.dtype)
    if "kernel" in name:
      return noise * np.float32(1.5 * x.shape[0] ** -0.5)
    return (name == "scale") + np.float32(0.3) * noise

  return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="session")
def make_encoder():
  """Returns `make_encoder(specs, chunk_options, **options) -> Encoder`."""
  return Encoder
