"""Pictures of networks that are images."""

import numpy as np
import pytest
from matplotlib import image as mpl_image

from experiments.reports import shown_images
from sne_jax.learning.data.dataset import Networks
from sne_jax.networks import families


def some(spec, count=3):
  vectors = np.zeros((count, spec.num_weights), np.float32)
  return Networks(
    (spec,), np.zeros(count, int), list(vectors), np.zeros((count, 1)), ("y",)
  )


@pytest.mark.parametrize("channels", [1, 3])
def test_mistakes_are_told_apart(tmp_path, channels):
  spec = families.inr((2, 4, channels))
  right = shown_images.draw(tmp_path / "a", some(spec), "abc", "abc")
  wrong = shown_images.draw(tmp_path / "b", some(spec), "abc", "abd")
  ((said, path),) = right.items()
  assert "first 3 test networks" in said
  reds = [
    (pixels[..., 0] > pixels[..., 1] + 0.3).sum()
    for pixels in map(mpl_image.imread, (path, *wrong.values()))
  ]
  assert reds[0] == 0 < reds[1]


def test_other_networks_are_not_drawn(tmp_path):
  for spec in (
    *(families.inr((1, 4, 1)), families.mlp((2, 4, 1))),
    families.inr((2, 4, 1), output_offset=0.25),
  ):
    assert shown_images.draw(tmp_path / "a", some(spec), "abc", "abc") == {}
  assert not list(tmp_path.iterdir())
