"""Measures, after a training, what it takes to judge networks of others.

The training and validation networks are looked at (`strangers`), and strangers
are made of validation networks: their weights are disturbed more and more, in
units of what is usual at their place, while what is to be predicted stays. How
far predictions are off there, by how unlike a network has become, says how wide
the intervals of strangers must be (`conformal.localised`). A network that was
disturbed much is no longer what it was, so they err on the wide side.

Dimensions: `N` networks, `T` targets, `Q` made strangers.
"""

import io
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.evaluation import novelty, strangers, traits
from sne_jax.networks import scales

SHARES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""How much weights are disturbed: deviations, of the size at their place."""

MOST = 1000
"""Training networks that are looked at, at most."""

MOST_MADE = 200
"""Validation networks that strangers are made of, at most."""

MOST_WEIGHTS = 20_000_000
"""Weights of all networks of one step together, for the memory they take."""

Run = Callable[[Networks], tuple[np.ndarray, np.ndarray]]
"""Returns predictions `[N, T]`, of classes any, and codes `[N, D]`."""

Read = Callable[[Sequence[Any]], Sequence[Any]]
"""Returns `(spec, weights)` of networks as a model reads them."""


class Newcomers(NamedTuple):
  """What a model knows of strangers.

  Attributes:
    known: how unlike networks are.
    unlike: of the strangers that were made, `[Q]`.
    errors: absolute errors on them, `[Q, T]`; of classes `[Q, 0]`.
  """

  known: strangers.Known
  unlike: np.ndarray
  errors: np.ndarray

  def arrays(self) -> dict[str, np.ndarray]:
    """Returns what `of_arrays` takes."""
    made = {"made_unlike": self.unlike, "made_errors": self.errors}
    return self.known.arrays() | made

  def content(self) -> bytes:
    """Returns what `read` takes."""
    held = io.BytesIO()
    arrays: dict[str, Any] = self.arrays()
    np.savez(held, **arrays)
    return held.getvalue()


def of_arrays(arrays: Mapping[str, np.ndarray]) -> Newcomers:
  """Returns what `Newcomers.arrays` gave.

  Raises:
    KeyError: it is none of these.
  """
  known = strangers.of_arrays(arrays)
  return Newcomers(known, arrays["made_unlike"], arrays["made_errors"])


def read(content: bytes) -> Newcomers:
  """Returns what `Newcomers.content` gave.

  Raises:
    KeyError, ValueError: it is no such content.
  """
  try:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
      arrays = dict(archive)
  except (EOFError, zipfile.BadZipFile, zlib.error) as error:
    raise ValueError(str(error)) from error
  return of_arrays(arrays)


def measure(
  train: Networks, val: Networks, run: Run, read: Read = list, *, seed: int = 0
) -> Newcomers:
  """Looks at the networks of a training, and at strangers made of others.

  Args:
    train: the networks trained on.
    val: others.
    run: the model.
    read: how it reads networks.
    seed: of what is drawn.
  """
  rng = np.random.default_rng(seed)
  train, val = _some(train, MOST, rng), _some(val, MOST, rng)
  places = _places(train)
  looked, _ = _looked(train, run, read, places)
  false = [(s, traits.shuffled(s, w, rng)) for s, w in read(train.pairs())]
  own, _ = _looked(val, run, read, places)
  known = strangers.fit(looked, traits.of_networks(false), own)
  chosen = _some(val, MOST_MADE, rng)
  _, sizes = scales.measure(read(train.pairs()), fan_in=False)
  unlike, errors = [], []
  for share in SHARES:
    made = disturbed(chosen, share, np.array(sizes), rng)
    sample, predictions = _looked(made, run, read, places)
    unlike.append(known.unlike(sample))
    if made.classes or made.targets.dtype.kind == "U":
      errors.append(np.zeros((len(made), 0)))
    else:
      errors.append(np.abs(predictions - made.targets))
  every = np.concatenate(errors)
  fine = np.isfinite(every).all(axis=1)
  return Newcomers(known, np.concatenate(unlike)[fine], every[fine])


def sample_of(
  networks: Any, codes: np.ndarray, groups: Any = None, makers: Any = None
) -> strangers.Sample:
  """Returns networks as `strangers` looks at them.

  Args:
    networks: `(spec, weights)` of each.
    codes: of them.
    groups: numbers; None: they play no part, as in what is asked about.
    makers: likewise.
  """
  none = np.zeros(len(codes), int)
  return strangers.Sample(
    traits.of_networks(networks),
    np.asarray(codes, np.float32),
    none if groups is None else groups,
    none if makers is None else makers,
  )


def disturbed(
  networks: Networks,
  share: float,
  sizes: np.ndarray,
  rng: np.random.Generator,
) -> Networks:
  """Returns networks with noise on their weights.

  Args:
    networks: of any specs.
    share: deviation of the noise, in units of `sizes`.
    sizes: of weights, for each of `scales.PLACES`, as training has them.
    rng: advanced.
  """
  vectors = []
  for spec, weights in networks.pairs():
    noise = rng.standard_normal(len(weights)) * sizes[scales.place_of(spec)]
    vectors.append((weights + share * noise).astype(np.float32))
  return Networks(
    *(networks.specs, networks.numbers, vectors, networks.targets),
    *(networks.target_names, networks.classes),
  )


def _places(train: Networks) -> Mapping[Any, int]:
  """Returns numbers for makers, and for pairs of architecture and maker."""
  names = _names(train)
  return {name: n for n, name in enumerate(dict.fromkeys(names))}


def _names(networks: Networks) -> list[Any]:
  """Returns architecture and maker of every network."""
  layouts = [novelty.architecture(spec) for spec in networks.specs]
  makers = networks.makers
  return [
    (layouts[n], "" if makers is None else str(makers[row]))
    for row, n in enumerate(networks.numbers)
  ]


def _looked(
  networks: Networks, run: Run, read: Read, places: Mapping[Any, int]
):
  """Returns a sample of networks, and the predictions."""
  predictions, codes = run(networks)
  names = _names(networks)
  makers = list(dict.fromkeys(maker for _, maker in places))
  known = {maker: n for n, maker in enumerate(makers)}
  sample = sample_of(
    read(networks.pairs()),
    codes,
    np.array([places.get(name, len(places)) for name in names]),
    np.array([known.get(maker, len(known)) for _, maker in names]),
  )
  return sample, predictions


def _some(networks: Networks, most: int, rng: np.random.Generator) -> Networks:
  """Returns some of the networks, at random, where they are many or large."""
  each = np.mean([len(vector) for vector in networks.vectors])
  most = min(most, max(8, int(MOST_WEIGHTS // each)))
  if len(networks) <= most:
    return networks
  return networks.take(np.sort(rng.permutation(len(networks))[:most]))
