"""The encoder that sees no weight: what it sees, and what it does not."""

import dataclasses

import jax
import numpy as np
import pytest

from sne_jax.encoders import table
from sne_jax.encoders.baselines import architecture
from sne_jax.networks import families

PAIRS = {
  "widths": (families.mlp((2, 4, 1)), families.mlp((2, 5, 1))),
  "depth": (families.mlp((2, 4, 1)), families.mlp((2, 4, 4, 1))),
  "bias": (families.mlp((2, 4, 1)), families.mlp((2, 4, 1), bias=False)),
  "frequency": (families.inr((2, 4, 1)), families.inr((2, 4, 1), w0=10.0)),
  "skips": (
    families.cnn((1, 9, 9), (3, 3, 3), 3, skips=(-1, -1, 0), paddings=1),
    families.cnn((1, 9, 9), (3, 3, 3), 3, paddings=1),
  ),
}
FOLLOWS = {
  "activation": (families.mlp((2, 4, 1)), families.mlp((2, 4, 1), "tanh")),
  "pools": (
    families.cnn((1, 6, 6), (3,), 3, pools=2),
    families.cnn((1, 6, 6), (3,), 3),
  ),
}


def codes(specs, **changes):
  options = architecture.ArchitectureOptions(width=8, **changes)
  rng = np.random.default_rng(0)
  networks = [(s, rng.normal(size=s.num_weights)) for s in specs]
  measured = table.measure("architecture", options, networks)
  built = table.build("architecture", dataclasses.asdict(options), {}, measured)
  packer = built.make_packer([spec for spec, _ in networks])
  numbers = np.arange(len(networks))
  batch = packer.pack(numbers, [w.astype(np.float32) for _, w in networks])
  params = jax.jit(built.module.init)(jax.random.key(1), batch)
  return np.asarray(jax.jit(built.module.apply)(params, batch))


@pytest.mark.parametrize("what", [*PAIRS, *FOLLOWS])
def test_architectures_that_differ_have_codes_that_differ(what):
  one, other = codes((PAIRS | FOLLOWS)[what])
  assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("what", FOLLOWS)
def test_what_follows_layers_can_be_kept_from_it(what):
  one, other = codes(FOLLOWS[what], activations=False)
  np.testing.assert_allclose(one, other, atol=1e-6)


def test_weights_are_not_seen():
  spec = families.mlp((2, 4, 1))
  one, other = codes((spec, spec))  # Of other weights.
  np.testing.assert_allclose(one, other, atol=1e-6)
