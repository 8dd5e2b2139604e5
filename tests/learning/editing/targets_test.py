"""Edits of images, against values worked out by hand."""

import builtins

import numpy as np
import pytest

from sne_jax.learning.editing import rendering, targets
from sne_jax.networks import families

CORNER = [[9, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 7], [0, 0, 0, 0]]


def edited(name, rows):
  image = np.array(rows, np.uint8)[None, None]
  result = targets.processed(name, image)
  assert result.dtype == np.uint8 and result.shape == image.shape
  return result[0, 0].tolist()


def test_dilation_takes_all_neighbours_and_nothing_from_beyond():
  assert edited("dilate", CORNER) == [
    [9, 9, 0, 0],
    [9, 9, 7, 7],
    [0, 0, 7, 7],
    [0, 0, 7, 7],
  ]


def test_erosion_looks_up_and_left():
  rows = [[5, 5, 5], [5, 2, 5], [5, 5, 5]]
  assert edited("erode", rows) == [[5, 5, 5], [5, 2, 2], [5, 2, 2]]
  assert edited("gradient", rows) == [[0, 0, 0], [0, 3, 3], [0, 3, 3]]


def test_every_image_and_channel_is_edited_by_itself():
  images = np.zeros((2, 3, 4, 4), np.uint8)
  images[1, 2, 1, 1] = 200
  result = targets.processed("dilate", images)
  assert result[1, 2].sum() == 9 * 200 and result.sum() == 9 * 200


@pytest.mark.parametrize("channels", [1, 3])
def test_contrast_widens_the_range(channels):
  pytest.importorskip("skimage")
  rng = np.random.default_rng(0)
  images = rng.integers(100, 140, (2, channels, 12, 12)).astype(np.uint8)
  result = targets.processed("contrast", images)
  assert result.dtype == np.uint8 and result.shape == images.shape
  assert result.std() > 1.1 * images.std()


def test_contrast_without_its_library_is_one_line(monkeypatch):
  real = builtins.__import__

  def missing(name, *rest):
    if name.startswith("skimage"):
      raise ImportError(name)
    return real(name, *rest)

  monkeypatch.setattr(builtins, "__import__", missing)
  message = "needs scikit-image: pip install scikit-image"
  with pytest.raises(ValueError, match=message):
    targets.processed("contrast", np.zeros((1, 1, 4, 4), np.uint8))


def test_an_unknown_edit_names_those_there_are():
  with pytest.raises(ValueError, match="'blur'; choose one of dilate, erode"):
    targets.processed("blur", np.zeros((1, 1, 4, 4), np.uint8))


@pytest.mark.parametrize(("offset", "grey"), [(0.5, 0.5), (0.0, 0.0)])
def test_renderings_are_in_the_units_of_the_paper(offset, grey):
  """Both forms: black is -1, and what lies between black and white 0."""
  spec = families.inr((2, 3, 1), output_offset=offset)
  weights = np.zeros((2, spec.num_weights), np.float32)
  black = 0.0 if offset else -1.0
  weights[:, -1] = grey - offset, black - offset  # The last bias.
  shown = np.asarray(rendering.make_render_fn(spec, 2, 3)(weights))
  assert shown.shape == (2, 1, 2, 3)
  np.testing.assert_allclose(shown[0], 0, atol=1e-6)
  np.testing.assert_allclose(shown[1], -1, atol=1e-6)
  pixels = np.array([[[[0, 255]]]], np.uint8)
  assert rendering.signed(pixels).tolist() == [[[[-1, 1]]]]
