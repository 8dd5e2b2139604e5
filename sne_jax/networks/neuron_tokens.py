"""One token per neuron, of a width of its own in each layer.

Kinds of tokens:

- neuron: a neuron's row (`tokens.rows`): its incoming weights and its bias.
- neuron_in_out: the row, then all weights that read the neuron. A weight
  between two neurons is in two tokens; the inverse is their mean.
- weight: each weight is a token, and all are one layer.

Dimensions: `P` weights of a network, `R` rows of a layer of `W` entries each,
`N` tokens of a network, `K` tokens that a weight is in, 1 or 2.

References:
  Schuerholt et al., Self-Supervised Representation Learning on Neural Network
  Weights for Model Characteristic Prediction, NeurIPS 2021, arXiv:2110.15288.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sne_jax.networks import tokens
from sne_jax.networks.chunking import neurons
from sne_jax.networks.spec import NetworkSpec

KINDS = ("neuron", "neuron_in_out", "weight")


@dataclasses.dataclass(frozen=True, eq=False)
class NeuronLayout:
  """The neuron tokens of one spec; compared by identity.

  Attributes:
    spec: the network.
    layers: for each layer int32 [R, W], places in the flat vector. Token order
      is that of layers, then rows.
    inverse: int32 [K, P], where each weight is among the entries of all layers
      concatenated; -1 in the second row where it is in one token only.
  """

  spec: NetworkSpec
  layers: tuple[np.ndarray, ...]
  inverse: Int[np.ndarray, "K P"]

  def __len__(self) -> int:
    return sum(len(index) for index in self.layers)


@functools.lru_cache(maxsize=64)
def layout(spec: NetworkSpec, kind: str = "neuron") -> NeuronLayout:
  """Returns the neuron tokens of a spec; cached.

  Raises:
    ValueError: unknown kind, or (neuron_in_out) neurons of a layer that are
      read by different numbers of weights.
  """
  if kind not in KINDS:
    raise ValueError(f"unknown kind {kind!r}; known are {', '.join(KINDS)}")
  if kind == "weight":
    layers = (np.arange(spec.num_weights, dtype=np.int32)[:, None],)
  else:
    layers = tuple(layer.index for layer in tokens.rows(spec))
  if kind == "neuron_in_out":
    layers = _with_readers(spec, layers)
  entries = np.concatenate([index.reshape(-1) for index in layers])
  order = np.argsort(entries, kind="stable")
  first = np.searchsorted(entries[order], np.arange(spec.num_weights))
  times = np.bincount(entries, minlength=spec.num_weights)
  inverse = np.full((times.max(), spec.num_weights), -1, np.int32)
  inverse[0] = order[first]
  if len(inverse) > 1:
    twice = np.flatnonzero(times > 1)
    inverse[1, twice] = order[first[twice] + 1]
  return NeuronLayout(spec, layers, inverse)


def tokenise(
  layout: NeuronLayout, weights: Float[Array | np.ndarray, "... P"]
) -> tuple[Float[Array | np.ndarray, "... _ _"], ...]:
  """Returns the tokens of networks, layer by layer.

  Raises:
    ValueError: the vectors do not have the spec's length.
  """
  layout.spec.check_length(weights)
  return tuple(weights[..., index] for index in layout.layers)


def detokenise(
  layout: NeuronLayout,
  layers: Sequence[Float[Array | np.ndarray, "... _ _"]],
) -> Float[Array | np.ndarray, "... P"]:
  """Returns networks from their tokens: of two entries of a weight, the mean.

  Raises:
    ValueError: the tokens are not of this network.
  """
  shapes = [tuple(x.shape[-2:]) for x in layers]
  if shapes != [index.shape for index in layout.layers]:
    raise ValueError(
      f"tokens of shapes {shapes} do not fit {layout.spec.describe()}, whose"
      f" layers have {[index.shape for index in layout.layers]}"
    )
  xp = jnp if isinstance(layers[0], jax.Array) else np
  flat = xp.concatenate(
    [x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1]) for x in layers],
    axis=-1,
  )
  first = flat[..., layout.inverse[0]]
  if len(layout.inverse) == 1:
    return first
  second = flat[..., np.maximum(layout.inverse[1], 0)]
  twice = (layout.inverse[1] >= 0).reshape((1,) * (flat.ndim - 1) + (-1,))
  return xp.where(twice, (first + second) / 2, first)


def _with_readers(
  spec: NetworkSpec, layers: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, ...]:
  """Appends to each row the weights that read its neuron."""
  numbering = neurons.number(spec)
  ids, places = [], []
  for tensor, start, reads in zip(
    spec.tensors, spec.offsets, numbering.reads, strict=True
  ):
    if reads is None:
      continue
    along = (1, -1) + (1,) * (len(tensor.shape) - 2)
    ids.append(np.broadcast_to(reads.reshape(along), tensor.shape).reshape(-1))
    places.append(np.arange(start, start + tensor.size, dtype=np.int32))
  id_of, place = np.concatenate(ids), np.concatenate(places)
  order = np.argsort(id_of, kind="stable")
  id_of, place = id_of[order], place[order]
  starts = {t.name: n for n, t in enumerate(spec.tensors)}
  wide = []
  for layer, index in zip(tokens.rows(spec), layers, strict=True):
    owners = numbering.rows[starts[layer.name]]
    if owners is None:
      wide.append(index)
      continue
    low, high = (
      np.searchsorted(id_of, owners, side) for side in ("left", "right")
    )
    if len(set((high - low).tolist())) > 1:
      raise ValueError(
        f"the neurons of {layer.name} of {spec.describe()} are read by"
        " different numbers of weights; use tokens of kind neuron"
      )
    reading = low[:, None] + np.arange(high[0] - low[0])[None]
    wide.append(np.concatenate([index, place[reading]], axis=1))
  return tuple(wide)
