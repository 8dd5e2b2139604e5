"""Maps of codes in two dimensions, and neighbours in their own space.

Dimensions: `N` networks, `D` width of a code, `K` neighbours.
"""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import threadpoolctl
from sklearn import decomposition, manifold, neighbors

PCA, TSNE, UMAP = "pca", "tsne", "umap"
TITLES = {PCA: "PCA", TSNE: "t-SNE", UMAP: "UMAP"}

MOST = 5000
"""Networks that t-SNE lays out by itself; it takes a minute for so many."""

FAR = 5.0
"""Coordinates of standardised codes end here: an outlier is one already."""

WIDTH = 50
"""t-SNE and UMAP see so many principal components, at most."""

BESIDE = 3
"""Neighbours that say where a network is put which t-SNE has not laid out."""


def chosen(words: Sequence[str]) -> tuple[str, ...]:
  """Returns the layouts of a list; empty: all that are at hand.

  Raises:
    ValueError: a word that is none, or UMAP, which is not installed.
  """
  there = importlib.util.find_spec("umap") is not None
  for word in words:
    if word not in TITLES:
      raise ValueError(
        f"layouts has {word!r}; choose of {', '.join(TITLES)}, separated by"
        " commas"
      )
    if word == UMAP and not there:
      raise ValueError(
        "layouts has 'umap', which is not installed here; pip install"
        " umap-learn, or leave it out"
      )
  return tuple(words) or (PCA, TSNE, *([UMAP] if there else []))


def standardised(codes: np.ndarray) -> np.ndarray:
  """Returns codes whose coordinates count alike, `[N, D]`."""
  codes = np.asarray(codes, np.float64)
  spread = codes.std(axis=0)
  scaled = (codes - codes.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
  return np.clip(scaled, -FAR, FAR)


def laid_out(
  scaled: np.ndarray, names: Sequence[str] = (PCA,), *, seed: int = 0
) -> dict[str, np.ndarray]:
  """Returns by title the places of networks `[N, 2]`, within about [-1, 1].

  Args:
    scaled: of `standardised`.
    names: of `TITLES`.
    seed: of t-SNE and UMAP, and of what t-SNE draws.
  """
  flat = np.zeros((len(scaled), 2))
  if len(scaled) > 1:
    count = min(2, *scaled.shape)
    way = decomposition.PCA(count, random_state=seed)
    flat[:, :count] = way.fit_transform(scaled)
  found = {}
  for name in names:
    title, places = TITLES[name], flat
    if name != PCA and len(scaled) > BESIDE:
      places = {TSNE: _tsne, UMAP: _umap}[name](_narrow(scaled, seed), seed)
      if name == TSNE and len(scaled) > MOST:
        title += f" of {MOST:,}, others beside their nearest"
    found[title] = _fitted(places)
  return found


def nearest(
  scaled: np.ndarray, count: int = 6
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the neighbours of each network `[N, K]`, and their distances.

  Fewer where there are no more; a network is none of its own.
  """
  count = min(count, len(scaled) - 1)
  if count < 1:
    return np.zeros((len(scaled), 0), np.int32), np.zeros((len(scaled), 0))
  search = neighbors.NearestNeighbors(n_neighbors=count, algorithm="brute")
  far, places = search.fit(scaled.astype(np.float32)).kneighbors()
  return places.astype(np.int32), far


def _tsne(scaled: np.ndarray, seed: int) -> np.ndarray:
  return _of_a_draw(scaled, lambda x: _plain_tsne(x, seed), MOST, seed)


def _plain_tsne(scaled: np.ndarray, seed: int) -> np.ndarray:
  perplexity = min(30.0, (len(scaled) - 1) / 3)
  way = manifold.TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
  # Threads that wait for each other take many times as long where a core is
  # busy with something else.
  with threadpoolctl.threadpool_limits(1):
    return way.fit_transform(scaled)


def _umap(scaled: np.ndarray, seed: int) -> np.ndarray:
  # Optional, and slow to import.
  umap: Any = importlib.import_module("umap")
  way = umap.UMAP(
    n_neighbors=min(15, len(scaled) - 1), random_state=seed, n_jobs=1
  )
  return np.asarray(way.fit_transform(scaled))


def _of_a_draw(
  scaled: np.ndarray,
  lay_out: Callable[[np.ndarray], np.ndarray],
  most: int,
  seed: int,
) -> np.ndarray:
  """Lays out a draw of networks, and puts the others beside their nearest."""
  if len(scaled) <= most:
    return lay_out(scaled)
  order = np.random.default_rng(seed).permutation(len(scaled))
  drawn, others = np.sort(order[:most]), np.sort(order[most:])
  places = np.zeros((len(scaled), 2))
  places[drawn] = lay_out(scaled[drawn])
  search = neighbors.NearestNeighbors(n_neighbors=BESIDE, algorithm="brute")
  search.fit(scaled[drawn].astype(np.float32))
  far, near = search.kneighbors(scaled[others].astype(np.float32))
  weight = 1 / (far + 1e-6 + 0.1 * far.mean())
  weight /= weight.sum(axis=1, keepdims=True)
  places[others] = (places[drawn][near] * weight[..., None]).sum(axis=1)
  return places


def _narrow(scaled: np.ndarray, seed: int) -> np.ndarray:
  width = min(WIDTH, *scaled.shape)
  way = decomposition.PCA(width, random_state=seed)
  return way.fit_transform(scaled).astype(np.float32)


def _fitted(places: np.ndarray) -> np.ndarray:
  middle = (places.min(axis=0) + places.max(axis=0)) / 2
  wide = max(float(np.ptp(places, axis=0).max()), 1e-12)
  return ((places - middle) * (2 / wide)).astype(np.float32)
