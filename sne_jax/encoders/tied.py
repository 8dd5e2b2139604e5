"""Batches and normalisation for encoders that are tied to one architecture.

Their parameters depend on the shapes of the networks that they read: a batch
is one matrix `[B, P]`. Weights are normalised by numbers measured on the
training networks only: one mean and deviation per tensor, which commutes with
every permutation of neurons, or one per weight (the authors' mode), which does
not: a trained model is then only nearly invariant.

Dimensions: `B` networks, `P` weights of one, `N` training networks.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sne_jax.encoders.interface import Network, refusal
from sne_jax.networks.spec import NetworkSpec

NORMALISATIONS = ("tensor", "element", "none")

SMALLEST = 1e-5
"""Deviations below this are replaced by 1: what never varies stays small."""


class Rows(NamedTuple):
  """Networks of one architecture, end to end."""

  weights: Any  # float32 [B * P]
  real: Any  # bool [B * P], True: there is no padding

  @property
  def room(self) -> int:
    """Length of `weights`."""
    return self.real.shape[-1]


class Packer:
  """Packs networks of one spec; the interface is that of `packing.Packer`.

  Args:
    specs: the architectures at hand: the one below, but for names of tensors.
    spec: the one that the encoder was built for.
    name: of the encoder, for messages.

  Raises:
    ValueError: there are others; both specs are named.
  """

  def __init__(
    self, specs: Sequence[NetworkSpec], spec: NetworkSpec, name: str
  ):
    for other in specs:
      if other.anatomy != spec.anatomy:
        raise refusal(name, spec, other)
    self.specs = tuple(specs)
    self._spec = spec

  def pack(self, numbers, weights, sizes: None = None) -> Rows:
    """Returns networks `weights[b]` as one batch.

    Raises:
      ValueError: a vector does not have the spec's length.
    """
    template = self.template(numbers, sizes)
    return template._replace(weights=self.flat(numbers, weights, template.room))

  def flat(self, numbers, weights, total: int) -> np.ndarray:
    """Lays the vectors of networks end to end.

    Raises:
      ValueError: a vector does not have the spec's length.
    """
    del numbers
    for vector in weights:
      if np.shape(vector) != (self._spec.num_weights,):
        raise ValueError(
          f"{self._spec.describe()}: got weights of shape"
          f" {tuple(np.shape(vector))}"
        )
    flat = np.concatenate(weights).astype(np.float32, copy=False)
    assert flat.shape == (total,)
    return flat

  def template(self, numbers, sizes: None = None) -> Rows:
    """Returns a batch of so many networks without weights."""
    return self.templates([numbers], sizes)[0]

  def templates(self, batches, sizes: None = None) -> list[Rows]:
    """Returns batches without weights, all of one shape."""
    del sizes
    counts = {len(numbers) for numbers in batches}
    if len(counts) != 1 or 0 in counts:
      raise ValueError(
        "batches of one shape must hold equally many networks, at least 1; got"
        f" {[len(numbers) for numbers in batches]}"
      )
    total = counts.pop() * self._spec.num_weights
    return [Rows(None, np.ones(total, bool)) for _ in batches]

  def reserve(self, numbers, batch_size: int, *, copies: int = 1) -> None:
    """Returns None: all batches of a size have one shape."""


def the_spec(name: str, networks: Sequence[Network]) -> NetworkSpec:
  """Returns the one architecture of some networks.

  Raises:
    ValueError: there are several; two are named.
  """
  first = networks[0][0]
  for spec, _ in networks:
    if spec != first:
      raise refusal(name, first, spec)
  return first


def measure(
  name: str, normalise: str, networks: Sequence[Network]
) -> dict[str, Any]:
  """Measures mean and deviation of the training weights.

  Args:
    name: of the encoder, for messages.
    normalise: one of `NORMALISATIONS`.
    networks: the training networks.

  Returns:
    `spec`, and `mean` and `deviation` with a number for each tensor, for each
    weight, or none.

  Raises:
    ValueError: the networks are of several architectures.
  """
  spec = the_spec(name, networks)
  values = np.stack([np.asarray(w, np.float64) for _, w in networks])
  if normalise == "none":
    mean, deviation = np.zeros(0), np.zeros(0)
  elif normalise == "element":
    mean, deviation = values.mean(axis=0), values.std(axis=0)
  else:
    parts = spec.unflatten(values).values()
    mean = np.array([part.mean() for part in parts])
    deviation = np.array([part.std() for part in parts])
  deviation = np.where(deviation < SMALLEST, 1.0, deviation)
  return {
    "spec": spec.to_json(),
    "mean": mean.tolist(),
    "deviation": deviation.tolist(),
  }


class Normaliser:
  """Normalises weights as was measured; hashable, a field of modules.

  Args:
    spec: the architecture.
    measured: what `measure` gave.
  """

  def __init__(self, spec: NetworkSpec, measured: Mapping[str, Any]):
    self.spec = spec
    self._key = (tuple(measured["mean"]), tuple(measured["deviation"]))

  def __eq__(self, other) -> bool:
    return (
      isinstance(other, Normaliser)
      and self.spec == other.spec
      and self._key == other._key
    )

  def __hash__(self) -> int:
    return hash((self.spec, self._key))

  def __call__(self, batch: Rows) -> Float[Array, "B P"]:
    """Returns the normalised weights, one row per network."""
    rows = jnp.asarray(batch.weights).reshape(-1, self.spec.num_weights)
    mean, deviation = (np.asarray(part) for part in self._key)
    if not mean.size:
      return rows
    if mean.size == len(self.spec.tensors):
      sizes = [t.size for t in self.spec.tensors]
      mean, deviation = np.repeat(mean, sizes), np.repeat(deviation, sizes)
    mean, inverse = (
      x.astype(rows.dtype)[None, :] for x in (mean, 1 / deviation)
    )
    return (rows - mean) * inverse


def opened(measured: Mapping[str, Any]) -> tuple[NetworkSpec, Normaliser]:
  """Returns the spec that was measured, and the normaliser."""
  spec = NetworkSpec.from_json(measured["spec"])
  return spec, Normaliser(spec, measured)
