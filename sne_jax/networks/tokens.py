"""Tokens of a network: its neurons' rows, cut to one size, with positions.

A *row* is what makes one output neuron of a layer: its incoming weights in
storage order, then its bias. A layer norm or batch norm is a layer of rows
(scale, shift), and running means and variances are layers of rows of one
weight. Rows are cut into tokens of `C` entries, the last of a row padded. A
token's position is (number in the network, number of its layer, number of its
row); all tokens of a row share the last two.

Everything is an index into the flat vector, made once per spec on the host, so
tokens are a gather and so is their inverse: exact, and differentiable.

Dimensions: `P` weights of a network, `L` layers, `R` rows of a layer of `W`
weights each, `N` tokens of `C` entries.

References:
  Schuerholt et al., Towards Scalable and Versatile Weight Space Learning, ICML
  2024, arXiv:2406.09997. Its order of tensors is that of a checkpoint's keys;
  here it is the spec's.
"""

import dataclasses
import functools
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sne_jax.networks import spec as spec_lib
from sne_jax.networks.spec import NetworkSpec

POSITIONS = ("token", "layer", "row")
"""What the three numbers of a position count, from 0."""


class Rows(NamedTuple):
  """One layer as rows.

  Attributes:
    name: of its first tensor.
    index: int32 [R, W], places in the flat vector.
  """

  name: str
  index: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class TokenLayout:
  """The tokens of one spec; compared by identity, kept once per spec.

  Attributes:
    spec: the network.
    index: int32 [N, C], places in the flat vector, 0 at padding.
    mask: bool [N, C], False at padding.
    positions: int32 [N, 3], see `POSITIONS`.
    layers: names of the layers, as `rows` gives them.
    inverse: int32 [P], where each weight is among the `N * C` entries; -1 if
      no token holds it.
  """

  spec: NetworkSpec
  index: Int[np.ndarray, "N C"]
  mask: Bool[np.ndarray, "N C"]
  positions: Int[np.ndarray, "N 3"]
  layers: tuple[str, ...]
  inverse: Int[np.ndarray, "P"]

  def __len__(self) -> int:
    return len(self.index)

  @property
  def token_size(self) -> int:
    """Entries of a token, `C`."""
    return self.index.shape[1]

  @property
  def tables(self) -> tuple[int, int, int]:
    """Least sizes of position tables that hold every position."""
    token, layer, row = (self.positions.max(axis=0) + 1).tolist()
    return token, layer, row


@functools.lru_cache(maxsize=64)
def rows(spec: NetworkSpec, batch_norms: bool = True) -> tuple[Rows, ...]:
  """Returns the layers of a network as rows, in the order of the spec.

  Args:
    spec: the network.
    batch_norms: whether batch norms (vectors of a norm that belong to a
      weight, and running statistics) are layers too; without, they are left
      out, as the published models of small networks do.
  """
  places = {
    t.name: np.arange(start, start + t.size, dtype=np.int32)
    for t, start in zip(spec.tensors, spec.offsets, strict=True)
  }
  columns: dict[str, list[str]] = {}
  for tensor, before in zip(
    spec.tensors, (None, *spec.tensors[:-1]), strict=True
  ):
    if not batch_norms and _is_batch_norm(tensor):
      continue
    owner = _owner(tensor, before)
    columns.setdefault(owner if owner in columns else tensor.name, []).append(
      tensor.name
    )
  return tuple(
    Rows(
      first,
      np.concatenate(
        [
          places[name].reshape(spec.tensor(first).shape[0], -1)
          for name in names
        ],
        axis=1,
      ),
    )
    for first, names in columns.items()
  )


def largest_row(spec: NetworkSpec, batch_norms: bool = True) -> int:
  """Returns the token size that cuts no row."""
  return max(layer.index.shape[1] for layer in rows(spec, batch_norms))


@functools.lru_cache(maxsize=64)
def layout(
  spec: NetworkSpec, token_size: int = 0, batch_norms: bool = True
) -> TokenLayout:
  """Returns the tokens of a spec; cached.

  Args:
    spec: the network.
    token_size: `C`; 0 is the largest row, so that every row is one token.
    batch_norms: see `rows`.

  Raises:
    ValueError: the token size is below 0.
  """
  if token_size < 0:
    raise ValueError(
      f"token_size must be at least 1, or 0 for the largest row, got"
      f" {token_size}"
    )
  layers = rows(spec, batch_norms)
  size = token_size or largest_row(spec, batch_norms)
  pieces, positions = [], []
  for number, layer in enumerate(layers):
    count, width = layer.index.shape
    parts = -(-width // size)
    padded = np.full((count, parts * size), -1, np.int32)
    padded[:, :width] = layer.index
    pieces.append(padded.reshape(-1, size))
    row = np.repeat(np.arange(count, dtype=np.int32), parts)
    positions.append(np.stack([row, np.full_like(row, number), row], axis=1))
  index, position = np.concatenate(pieces), np.concatenate(positions)
  position[:, 0] = np.arange(len(index))
  mask = index >= 0
  inverse = np.full(spec.num_weights, -1, np.int32)
  inverse[index[mask]] = np.flatnonzero(mask)
  tokens = TokenLayout(
    spec,
    np.where(mask, index, 0).astype(np.int32),
    mask,
    position,
    tuple(layer.name for layer in layers),
    inverse,
  )
  for array in (tokens.index, tokens.mask, tokens.positions, tokens.inverse):
    array.setflags(write=False)  # It is shared by all who ask for it.
  return tokens


def tokenise(
  layout: TokenLayout, weights: Float[Array | np.ndarray, "... P"]
) -> Float[Array | np.ndarray, "... N C"]:
  """Returns the tokens of networks, 0 at padding; numpy in, numpy out.

  Raises:
    ValueError: the vectors do not have the spec's length.
  """
  layout.spec.check_length(weights)
  xp = _module(weights)
  mask = layout.mask.reshape((1,) * (weights.ndim - 1) + layout.mask.shape)
  zero = xp.zeros((), weights.dtype)
  return xp.where(mask, weights[..., layout.index], zero)


def detokenise(
  layout: TokenLayout,
  tokens: Float[Array | np.ndarray, "... N C"],
  template: Float[Array | np.ndarray, "*N P"] | None = None,
) -> Float[Array | np.ndarray, "... P"]:
  """Returns the networks that tokens describe; padding is not read.

  Args:
    layout: of the network to be written.
    tokens: as `tokenise` gives them.
    template: vectors with what no token holds, one for all or with the leading
      axes of `tokens`; not needed where tokens hold every weight.

  Raises:
    ValueError: the tokens or the template are not of this network, or a
      template is needed.
  """
  spec, shape = layout.spec, layout.index.shape
  if tuple(tokens.shape[-2:]) != shape:
    raise ValueError(
      f"{spec.describe()} has {shape[0]} tokens of {shape[1]} entries, got an"
      f" array of shape {tuple(tokens.shape)}; give the layout that the tokens"
      " were made with"
    )
  lead = tokens.shape[:-2]
  flat = tokens.reshape(*lead, shape[0] * shape[1])
  if template is not None:
    check_template(spec, template)
  if (layout.inverse >= 0).all():
    return flat[..., layout.inverse]
  if template is None:
    missing = int((layout.inverse < 0).sum())
    raise ValueError(
      f"{missing} weights of {spec.describe()} are in no token (batch norms are"
      " left out); give a template network to take them from"
    )
  xp = _module(tokens)
  template = xp.broadcast_to(xp.asarray(template), (*lead, spec.num_weights))
  held = (layout.inverse >= 0).reshape((1,) * len(lead) + (-1,))
  return xp.where(held, flat[..., np.maximum(layout.inverse, 0)], template)


def layer_of(
  spec: NetworkSpec, batch_norms: bool = True
) -> Int[np.ndarray, "P"]:
  """Returns the number of each weight's layer; -1 for weights in none."""
  layers = np.full(spec.num_weights, -1, np.int32)
  for number, layer in enumerate(rows(spec, batch_norms)):
    layers[layer.index] = number
  return layers


def pad(layout: TokenLayout, num_tokens: int) -> TokenLayout:
  """Returns the layout with empty tokens after it, up to `num_tokens`.

  Raises:
    ValueError: the network has more tokens than that.
  """
  more = num_tokens - len(layout)
  if more < 0:
    raise ValueError(
      f"{layout.spec.describe()} has {len(layout)} tokens, more than the"
      f" {num_tokens} of the window; use a larger window, or cut the sequence"
      " into halo windows (windows.tile)"
    )
  ends = ((0, more), (0, 0))
  return dataclasses.replace(
    layout,
    index=np.pad(layout.index, ends),
    mask=np.pad(layout.mask, ends),
    positions=np.pad(layout.positions, ends),
  )


def check_positions(layout: TokenLayout, tables: Sequence[int]) -> None:
  """Raises `ValueError` if a position has no entry in its table.

  Args:
    layout: of the network to be encoded.
    tables: sizes of the tables of tokens, layers and rows.
  """
  for name, needed, size in zip(POSITIONS, layout.tables, tables, strict=True):
    if needed > size:
      raise ValueError(
        f"the table of {name} positions has {size} entries, but"
        f" {layout.spec.describe()} needs {needed}; tables of (token, layer,"
        f" row) positions must be at least {layout.tables}"
      )


def check_template(spec: NetworkSpec, template: Any) -> None:
  """Raises `ValueError` if a template is no network of the spec."""
  if template.shape[-1:] != (spec.num_weights,):
    raise ValueError(
      f"the template has shape {tuple(template.shape)} and does not fit"
      f" {spec.describe()} of {spec.num_weights} weights; give the vector of a"
      " network of this very spec"
    )


def _is_batch_norm(tensor: spec_lib.TensorSpec) -> bool:
  """Whether a vector is of a batch norm; a layer norm belongs to no weight."""
  statistic = tensor.kind in ("norm_mean", "norm_var")
  return statistic or (
    tensor.kind in ("norm_scale", "norm_shift") and tensor.of is not None
  )


def _owner(
  tensor: spec_lib.TensorSpec, before: spec_lib.TensorSpec | None
) -> str | None:
  """Returns the tensor whose rows a vector is the last column of."""
  if tensor.kind.endswith("_bias"):
    return tensor.of
  if tensor.kind == "norm_shift" and before is not None:
    same = (before.shape, before.of, before.level, before.branch) == (
      (tensor.shape, tensor.of, tensor.level, tensor.branch)
    )
    return before.name if before.kind == "norm_scale" and same else None
  return None


def _module(array: Any) -> ModuleType:
  """Returns the array module that an array is of."""
  return jnp if isinstance(array, jax.Array) else np
