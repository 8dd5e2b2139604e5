"""Named architectures, and skips as the CNN Wild Park has them."""

import functools

import jax
import numpy as np
import pytest
from scipy import signal

from sne_jax.networks import families, symmetry

forward = jax.jit(
  families.forward,
  static_argnums=0,
  compiler_options={"xla_backend_optimization_level": "0"},
)

NUMPY = {
  "relu": lambda x: np.maximum(x, 0),
  "tanh": np.tanh,
  "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
  "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
  "none": lambda x: x,
}


def reference(spec, weights, x, channels, skips):
  """Images through convolutions with skips, in loops, by the publication.

  The source is the final map of the earlier layer; it is added to what the
  convolution gives, before the activation, on the channels that both have.
  """
  tensors = spec.unflatten(weights.astype(np.float64))
  maps = []
  for level, width in enumerate(channels):
    kernel = tensors[f"conv{level}.weight"]
    inputs = x if level == 0 else maps[-1]
    around = kernel.shape[-1] // 2
    inputs = np.pad(inputs, ((0, 0), (0, 0), *[(around, around)] * 2))
    out = np.array(
      [
        [
          sum(
            signal.correlate2d(one, k, mode="valid")
            for one, k in zip(image, filters, strict=True)
          )
          for filters in kernel
        ]
        for image in inputs
      ]
    )
    out = out + tensors[f"conv{level}.bias"][:, None, None]
    if skips[level] >= 0:
      source = maps[skips[level]]
      for channel in range(min(width, source.shape[1])):
        out[:, channel] += source[:, channel]
    maps.append(NUMPY[spec.activations[level]](out))
  pooled = maps[-1].mean(axis=(2, 3))
  return pooled @ tensors["dense0.weight"].T + tensors["dense0.bias"]


@pytest.mark.parametrize(
  ("channels", "skips"),
  [
    ((4, 3, 2, 4, 5), (-1, -1, 0, 1, 0)),  # from wider, narrower, again
    ((3, 4, 3, 4), (-1, -1, 0, 1)),  # two pairs of one width
    ((3, 3, 3, 3), (-1, -1, -1, -1)),
  ],
)
def test_skips_against_loops(channels, skips):
  names = ("relu", "tanh", "leaky_relu", "none", "sigmoid")[: len(channels)]
  kernels = (3, 5, 1, 3, 7)[: len(channels)]
  build = functools.partial(
    families.cnn,
    (2, 7, 6),
    channels,
    kernels=kernels,
    paddings=tuple(k // 2 for k in kernels),
    num_classes=3,
    activation=names,
  )
  spec = build(skips=skips)
  assert spec.skips == tuple((s, t) for t, s in enumerate(skips) if s >= 0)
  rng = np.random.default_rng(0)
  weights = families.random_weights(spec, rng)
  x = rng.standard_normal((3, 2, 7, 6), np.float32)
  got = forward(spec, weights, x)
  want = reference(spec, weights, x, channels, skips)
  np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4)
  if max(skips) >= 0:  # The control: the skips do something.
    plain = forward(build(), weights, x)
    assert np.abs(plain - want).max() > 1e-2


def test_skips_tie_the_neurons_that_they_add():
  spec = families.cnn(
    (1, 6, 6), (3, 4, 3, 4, 5), paddings=1, skips=(-1, -1, 0, -1, 1)
  )
  groups = [spec.tensor(f"conv{i}.weight").axes[0][0].group for i in range(5)]
  assert groups == ["n1", None, "n1", "n4", None]
  rng = np.random.default_rng(0)
  weights = families.random_weights(spec, rng)
  x = rng.standard_normal((2, 1, 6, 6), np.float32)
  moved = weights[symmetry.draw_permutation(spec, rng)]
  assert (moved != weights).any()
  np.testing.assert_allclose(
    forward(spec, moved, x), forward(spec, weights, x), rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize(
  ("skips", "options", "message"),
  [
    ((-1, 0, -1), {}, "2 or more layers before"),
    ((-1, -1, 2), {}, "2 or more layers before"),
    ((-1, -1), {}, "skips must be"),
    ((-1, -1, -2), {}, "skips must be"),
    ((-1, -1, 0), {"strides": (1, 2, 1)}, "conv0 gives images of"),
    ((-1, -1, 0), {"pools": (1, 2, 1)}, "conv0 gives images of"),
  ],
)
def test_wrong_skips_are_named(skips, options, message):
  with pytest.raises(ValueError, match=message):
    families.cnn((1, 8, 8), (3, 3, 3), paddings=1, skips=skips, **options)


@pytest.mark.parametrize("name", families.ARCHITECTURES)
def test_every_architecture_runs(name):
  draws = np.random.default_rng(0).random(families.NUM_DRAWS).tolist()
  spec = families.architecture(name, (1, 20, 20), 7, "tanh", draws)
  weights = families.random_weights(spec, np.random.default_rng(0))
  x = np.random.default_rng(1).standard_normal((2, 1, 20, 20), np.float32)
  if name == "mlp":
    x = x.reshape(2, -1)
  logits = forward(spec, weights, x)
  assert logits.shape == (2, 7) and np.isfinite(logits).all()


def test_published_sizes():
  sizes = {
    name: families.architecture(name, (1, 28, 28)).num_weights
    for name in ("arch1", "schuerholt")
  }
  assert sizes == {"arch1": 4970, "schuerholt": 2464}
  assert families.architecture("schuerholt", (3, 28, 28)).num_weights == 2864


def test_wild_park_is_within_its_ranges():
  seen = {
    "depth": set(),
    "skips": set(),
    "activations": set(),
    "channels": set(),
  }
  for seed in range(60):
    draws = np.random.default_rng(seed).random(families.NUM_DRAWS).tolist()
    spec = families.architecture("wild_park", (1, 8, 8), draws=draws)
    depth = len(spec.activations) - 1
    seen["depth"].add(depth)
    seen["activations"] |= set(spec.activations[:-1])
    seen["channels"] |= {
      spec.tensor(f"conv{i}.weight").shape[0] for i in range(depth)
    }
    seen["skips"] |= {target - source for source, target in spec.skips}
    assert all(source <= target - 2 for source, target in spec.skips)
  assert seen["depth"] == {2, 3, 4, 5}
  assert seen["channels"] == {4, 8, 16, 32}
  assert len(seen["activations"]) == 6
  assert seen["skips"] == {2, 3, 4}


def test_images_that_are_too_small_are_named():
  with pytest.raises(ValueError, match="'arch1' cannot take images of 8x8"):
    families.architecture("arch1", (1, 8, 8))
  with pytest.raises(ValueError, match="architecture must be one of arch1"):
    families.architecture("vgg", (1, 8, 8))


def test_hidden_levels_can_be_changed_between():
  """Every hidden level with an activation is handed over once, in order."""
  for name, spec in families.tiny_specs().items():
    seen = []

    def hidden(level, x, seen=seen):
      seen.append(level)
      return 0 * x

    weights = families.random_weights(spec, np.random.default_rng(0))
    shape = dict(spec.options).get("image_shape", (spec.tensors[0].shape[-1],))
    x = np.ones((2, *shape), np.float32)
    jax.eval_shape(
      lambda w, x, spec=spec, hidden=hidden: families.run(
        spec, spec.unflatten(w), x, hidden
      ),
      weights,
      x,
    )
    assert seen == sorted(set(seen)) and len(seen) >= 1, name
