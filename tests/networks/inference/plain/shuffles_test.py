"""Shuffles of channels, which have no tensors, between grouped convolutions."""

import numpy as np
import pytest

from tests.networks.inference.plain_networks import (
  holds,
  infer,
  layer,
  linear,
  named,
  relu,
)


def conv(t, name, x):
  """A grouped convolution of one place."""
  kernel = np.asarray(t[f"{name}.weight"], np.float64)[:, :, 0, 0]
  groups = x.shape[1] // kernel.shape[1]
  parts = zip(np.split(x, groups, 1), np.split(kernel, groups), strict=True)
  y = [np.einsum("bihw,oi->bohw", part, own) for part, own in parts]
  return np.concatenate(y, 1) + t[f"{name}.bias"].reshape(-1, 1, 1)


def shuffle(x, groups=2):
  b, c, *places = x.shape
  x = x.reshape(b, groups, c // groups, *places).swapaxes(1, 2)
  return x.reshape(b, c, *places)


def group(found, name):
  """Which groups move what a layer gives."""
  (outputs, *_) = found.spec.tensor(f"{name}.weight").axes
  return [factor.group for factor in outputs if factor.group is not None]


@pytest.mark.parametrize("between", [False, True])
def test_between_grouped_convolutions(between):
  """With a convolution of each channel alone between them, or none."""
  shapes = named(
    c1=layer(8, 4, 1, 1),
    c2=layer(16, 4, 1, 1),
    **({"c3": layer(16, 1, 1, 1)} if between else {}),
    c4=layer(8, 8, 1, 1),
    head=layer(3, 8),
  )
  names = ["c1", "c2", *(["c3"] * between), "c4"]

  def run(t, x):
    for name in names:
      x = relu(conv(t, name, x))
      x = shuffle(x) if name == names[-2] else x
    return linear(t, "head", x.mean((2, 3)))

  groups = {"c1": 1, "c2": 2, "c4": 2} | ({"c3": 16} if between else {})
  settled = {"groups": groups, "skips": [], "layout": "out_in"}
  found = holds(shapes, "torch", run, (2, 4, 2, 2), settled)
  assert not group(found, "c2") and group(found, "c4")
  (guess,) = found.guesses
  assert "shuffled between 'c2' and 'c4'" in guess
  # Without the second one of groups there is nothing to mix.
  whole = shapes | {"c4.weight": (8, 16, 1, 1)}
  groups["c4"] = 1
  found = infer(whole, "torch", settled)
  assert group(found, "c2") and not found.guesses
