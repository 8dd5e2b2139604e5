"""Batches and normalisation for encoders that are tied to one architecture.

Their parameters depend on the shapes of the networks that they read: a batch
is one matrix `[B, P]`. Weights are normalised by numbers measured on the
training networks only: one mean and deviation per tensor, which commutes with
every permutation of neurons, or one per weight (the authors' mode), which does
not: a trained model is then only nearly invariant.

Dimensions: `B` networks, `P` weights of one, `N` training networks.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sne_jax.encoders.batches import joining
from sne_jax.encoders.interface import Encoder, Network, Row, refusal
from sne_jax.networks.spec import NetworkSpec

NORMALISATIONS = ("tensor", "element", "none")

SMALLEST = 1e-5
"""Deviations below this are replaced by 1: what never varies stays small."""


def packer(
  specs: Sequence[NetworkSpec], spec: NetworkSpec, name: str
) -> joining.Packer:
  """Returns the packer of networks of one spec: concatenated weights.

  Args:
    specs: the architectures at hand: the one below, but for names of tensors.
    spec: the one that the encoder was built for.
    name: of the encoder, for messages.

  Raises:
    ValueError: there are others; both specs are named.
  """
  for other in specs:
    if other.anatomy != spec.anatomy:
      raise refusal(name, spec, other)
  # All are seen as the one, so that no batch is padded.
  return joining.Packer(specs, lambda spec: {}, seen_as=lambda other: spec)


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


@dataclasses.dataclass(frozen=True)
class Normaliser:
  """Normalises weights as was measured; hashable, a field of modules.

  Attributes:
    spec: the architecture.
    mean: as of `measure`.
    deviation: as of `measure`.
  """

  spec: NetworkSpec
  mean: tuple[float, ...]
  deviation: tuple[float, ...]

  def __call__(self, batch: joining.Joined) -> Float[Array, "B P"]:
    """Returns the normalised weights, one row per network."""
    rows = rows_of(batch, self.spec)
    if not self.mean:
      return rows
    mean, deviation = np.array(self.mean), np.array(self.deviation)
    if mean.size == len(self.spec.tensors):
      sizes = [t.size for t in self.spec.tensors]
      mean, deviation = np.repeat(mean, sizes), np.repeat(deviation, sizes)
    mean, inverse = (
      x.astype(rows.dtype)[None, :] for x in (mean, 1 / deviation)
    )
    return (rows - mean) * inverse


def rows_of(batch: joining.Joined, spec: NetworkSpec) -> Float[Array, "B P"]:
  """Returns the weights of a batch, one row per network."""
  return jnp.asarray(batch.weights).reshape(-1, spec.num_weights)


def opened(measured: Mapping[str, Any]) -> Normaliser:
  """Returns the normaliser that was measured."""
  return Normaliser(
    NetworkSpec.from_json(measured["spec"]),
    tuple(measured["mean"]),
    tuple(measured["deviation"]),
  )


def row(
  name: str,
  module: Callable[..., nn.Module],
  *,
  check: Callable[[Any, NetworkSpec], Any] = lambda options, spec: None,
  **words: Any,
) -> Row:
  """Returns the row of an encoder that reads normalised weights.

  Args:
    name: of the encoder.
    module: from its options and a `Normaliser` to its module.
    check: raises `ValueError` where it cannot read a spec.
    **words: what else the row says.
  """

  def measure_checked(options, networks):
    check(options, networks[0][0])
    return measure(name, options.normalise, networks)

  def build(options, measured):
    normaliser = opened(measured)
    return Encoder(
      make_packer=lambda specs: packer(specs, normaliser.spec, name),
      module=module(options, normaliser, name="encoder"),
    )

  return Row(accepts="one", measure=measure_checked, build=build, **words)
