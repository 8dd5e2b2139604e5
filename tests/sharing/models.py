"""A small trained model, for the tests of what is given away."""

import numpy as np

import sne_jax
from sne_jax.encoders.baselines import stat_nn
from sne_jax.networks import families

SPECS = (families.mlp((3, 4, 1)), families.mlp((3, 5, 4, 1)))


def networks(count: int = 24, seed: int = 0) -> sne_jax.Networks:
  """Returns networks of two sizes, whose property is the size of weights."""
  rng = np.random.default_rng(seed)
  pairs = []
  for n in range(count):
    size = rng.uniform(0.1, 1)
    weights = size * rng.normal(size=SPECS[n % 2].num_weights)
    pairs.append((SPECS[n % 2], weights.astype(np.float32)))
  values = [float(np.abs(w).mean()) for _, w in pairs]
  return sne_jax.Networks.of(pairs, {"size": np.array(values)})


def trained(**more) -> sne_jax.Predictor:
  """Trains the encoder that compiles fastest, for eight steps."""
  train, val, test = networks().split(0.5, 0.25)
  how = {
    "encoder": "stat_pool",
    "options": stat_nn.StatOptions(width=8),
    "data": sne_jax.DataOptions(batch_size=4),
    "training": sne_jax.TrainOptions(
      num_steps=8, log_every=2, eval_every=2, save_every=2
    ),
    "devices": 1,
    "seeds": 2,
  }
  return sne_jax.fit(train, val, tests={"test": test}, **(how | more))
