"""Maps of codes, and neighbours."""

import sys
import types

import numpy as np
import pytest

from sne_jax.cli.atlas import layouts


def clusters(count=60, seed=0):
  rng = np.random.default_rng(seed)
  labels = np.arange(count) % 2
  codes = rng.normal(size=(count, 8)) + 8 * labels[:, None]
  return layouts.standardised(codes), labels


def is_apart(places, labels):
  one, other = places[labels == 0], places[labels == 1]
  gap = np.linalg.norm(one.mean(axis=0) - other.mean(axis=0))
  return gap > 1.5 * max(one.std(axis=0).max(), other.std(axis=0).max())


def test_two_clusters_stay_apart_and_maps_are_of_one_size():
  scaled, labels = clusters()
  maps = layouts.laid_out(scaled, (layouts.PCA, layouts.TSNE))
  assert list(maps) == ["PCA", "t-SNE"]
  for places in maps.values():
    assert is_apart(places, labels)
    assert np.ptp(places, axis=0).max() == pytest.approx(2)
  again = layouts.laid_out(scaled, (layouts.TSNE,))["t-SNE"]
  np.testing.assert_array_equal(again, maps["t-SNE"])


def test_others_are_put_beside_their_nearest_and_it_is_said(monkeypatch):
  scaled, labels = clusters(80)
  monkeypatch.setattr(layouts, "MOST", 20)
  seen = []

  def plain(x, seed):
    seen.append(len(x))
    return x[:, :2]

  monkeypatch.setattr(layouts, "_plain_tsne", plain)
  ((title, places),) = layouts.laid_out(scaled, (layouts.TSNE,)).items()
  assert title == "t-SNE of 20, others beside their nearest"
  assert seen == [20] and is_apart(places, labels)
  shuffled = np.random.default_rng(0).permutation(labels)
  assert not is_apart(places, shuffled)


def test_a_constant_coordinate_and_an_outlier_do_no_harm():
  codes = np.random.default_rng(0).normal(size=(50, 3))
  codes[:, 1] = 7.0
  codes[0, 0] = 1e6
  scaled = layouts.standardised(codes)
  assert np.isfinite(scaled).all() and np.abs(scaled).max() <= layouts.FAR


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_networks_have_maps_and_as_many_neighbours_as_there_are(count):
  scaled = layouts.standardised(np.eye(count, 4))
  maps = layouts.laid_out(scaled, (layouts.PCA, layouts.TSNE))
  assert all(places.shape == (count, 2) for places in maps.values())
  near, far = layouts.nearest(scaled)
  assert near.shape == far.shape == (count, count - 1)
  assert all(n not in row for n, row in enumerate(near))


def test_which_layouts_there_are(monkeypatch):
  monkeypatch.setattr(layouts.importlib.util, "find_spec", lambda name: None)
  assert layouts.chosen(()) == ("pca", "tsne")
  with pytest.raises(ValueError, match="pip install umap-learn, or leave it"):
    layouts.chosen(("umap",))
  with pytest.raises(ValueError, match="'tsn'; choose of pca, tsne, umap"):
    layouts.chosen(("tsn",))
  monkeypatch.setattr(layouts.importlib.util, "find_spec", lambda name: name)
  assert layouts.chosen(()) == ("pca", "tsne", "umap")
  assert layouts.chosen(("tsne",)) == ("tsne",)


def test_umap_is_asked_with_what_there_is(monkeypatch):
  asked = {}

  class Umap:
    def __init__(self, **options):
      asked.update(options)

    def fit_transform(self, codes):
      return codes[:, :2]

  module = types.ModuleType("umap")
  module.__dict__["UMAP"] = Umap
  monkeypatch.setitem(sys.modules, "umap", module)
  scaled, labels = clusters(10)
  places = layouts.laid_out(scaled, (layouts.UMAP,), seed=3)["UMAP"]
  assert asked == {"n_neighbors": 9, "random_state": 3, "n_jobs": 1}
  assert is_apart(places, labels)
