"""Windows tile every length, and context is where it should be."""

import jax
import numpy as np
import pytest

from sne_jax.networks import windows

SIZES = [(4, 2), (128, 64), (156, 64), (1, 0), (5, 0), (3, 7)]


@pytest.mark.parametrize(("size", "halo"), SIZES)
def test_every_length_is_tiled(size, halo):
  for count in [*range(1, 601), 53524, 53704, 53904]:
    tiling = windows.tile(count, size, halo)
    assert tiling.index.min() >= 0 and tiling.index.max() < count
    # Every token is content once, and comes from its own place.
    assert tiling.content.sum() == count == len(tiling.source)
    found = tiling.index.reshape(-1)[tiling.source]
    assert (found == np.arange(count)).all(), (count, size, halo)
    assert tiling.index.shape[1] == min(count, size + 2 * halo)
    # Content has its halo on both sides, or the end of the sequence.
    row, column = np.nonzero(tiling.content)
    token = tiling.index[row, column]
    last = tiling.index.shape[1] - 1
    assert (column >= np.minimum(halo, token)).all()
    assert (last - column >= np.minimum(halo, count - 1 - token)).all()


@pytest.mark.parametrize(
  ("count", "starts"),
  [(10, [0, 2, 2]), (12, [0, 2, 4]), (8, [0]), (9, [0, 1, 1])],
)
def test_starts_by_hand(count, starts):
  assert windows.tile(count, 4, 2).starts.tolist() == starts


def test_cut_and_stitch_are_inverse_and_refuse_other_lengths():
  x = np.arange(2 * 11 * 3, dtype=np.float32).reshape(2, 11, 3)
  tiling = windows.tile(11, 4, 1)
  cut = windows.cut(tiling, x)
  assert cut.shape == (2, 3, 6, 3)
  np.testing.assert_array_equal(windows.stitch(tiling, cut), x)
  with pytest.raises(ValueError, match="tile 11 tokens"):
    windows.cut(tiling, x[:, :10])
  with pytest.raises(ValueError, match="3 windows of 6 tokens"):
    windows.stitch(tiling, cut[:, :2])
  with pytest.raises(ValueError, match="size must be at least 1"):
    windows.tile(5, 0)
  with pytest.raises(ValueError, match="halo must be at least 0"):
    windows.tile(5, 1, -1)
  with pytest.raises(ValueError, match="num_tokens must be at least 1"):
    windows.tile(0, 1)


def smooth(x, reach=2):
  """A model that sees `reach` tokens on either side."""
  index = np.arange(x.shape[-2])[:, None] + np.arange(-reach, reach + 1)
  inside = (index >= 0) & (index < x.shape[-2])
  near = x[..., np.clip(index, 0, x.shape[-2] - 1), :]
  return (near * inside[..., None]).sum(-2) / inside.sum(1)[:, None]


@pytest.mark.parametrize("count", [7, 8, 9, 15, 23])
def test_enough_context_is_as_good_as_the_whole(count):
  x = np.random.default_rng(0).standard_normal((count, 2))
  tiling = windows.tile(count, 4, 2)
  found = windows.stitch(tiling, smooth(windows.cut(tiling, x)))
  np.testing.assert_allclose(found, smooth(x))
  if count < 10:
    return
  little = windows.tile(count, 4, 1)  # The control: too little context.
  found = windows.stitch(little, smooth(windows.cut(little, x)))
  assert np.abs(found - smooth(x)).max() > 1e-3


def test_drawn_windows_fit_and_differ():
  found = np.asarray(windows.draw(jax.random.key(0), 10, 4, (200,)))
  assert found.shape == (200, 4)
  assert (np.diff(found, axis=1) == 1).all()
  assert set(found[:, 0].tolist()) == set(range(7))
  with pytest.raises(ValueError, match="do not fit a sequence of 3"):
    windows.draw(jax.random.key(0), 3, 4)
