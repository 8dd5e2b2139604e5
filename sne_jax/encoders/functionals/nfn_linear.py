"""The linear layers of permutation equivariant neural functionals: NP, HNP.

NP commutes with permutations of all neurons; HNP of hidden ones only, and
keeps inputs and outputs apart. Every output is a sum of affine maps of pooled
terms; names are those of the authors' code:

  W'_l[i, j] = layer_l W_l[i, j] + layer_l_rc g + layer_l_r row_l[j]
             + layer_l_c col_l[i],    v'_l[i] = bias_l col_l[i] + bias_l_rc g

with R_l and C_l the means of W_l over its rows and its columns, g all means,

  row_l[j] = [R_l[j]; C_{l-1}[j]; v_{l-1}[j]],
  col_l[i] = [C_l[i]; v_l[i]; R_{l+1}[i]].

HNP has wider maps at the first and the last layer (`w0_*`, `wfin_*`). Its
published code leaves out that the last weight sees the bias of the neuron that
it reads: `complete` puts it in.

Dimensions: as in `features`; `N` inputs and `M` outputs of the network.

Reference: Zhou et al., Permutation Equivariant Neural Functionals, NeurIPS
2023, arXiv:2302.14040, and the authors' code.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from sne_jax.encoders.functionals.feature_layers import Map
from sne_jax.encoders.functionals.features import Features, Layout
from sne_jax.encoders.sets.layers import affine


class NPLinear(nn.Module):
  """The NP-equivariant linear layer.

  Attributes:
    layout: of the networks.
    channels: of the output.
    io_embed: add learned vectors to inputs and outputs first; the layer is
      then equivariant to hidden permutations only.
  """

  layout: Layout
  channels: int
  io_embed: bool = False

  @nn.compact
  def __call__(self, x: Features) -> Features:
    """Returns features of `channels` channels."""
    if self.io_embed:
      x = self._embedded(x)
    rows, columns, g = _pooled(x)
    wide = [self.channels * layer.places for layer in self.layout.layers]
    weights, biases = [], []
    for l, w in enumerate(x.weights):
      weight, bias = _middle(
        l,
        (wide[l], self.channels),
        w,
        g,
        _row_terms(l, x, rows, columns),
        _column_terms(l, x, rows, columns),
      )
      weights.append(weight)
      biases.append(bias)
    return Features(tuple(weights), tuple(biases))

  def _embedded(self, x: Features) -> Features:
    """Adds the vectors of inputs and outputs."""
    normal = nn.initializers.normal(1.0)
    first, last, bias = x.weights[0], x.weights[-1], x.biases[-1]
    into = self.param("in_embed", normal, (first.shape[2], first.shape[3]))
    out = self.param("out_embed", normal, (last.shape[1], last.shape[3]))
    shift = self.param("out_bias_embed", normal, bias.shape[1:])
    weights, biases = list(x.weights), list(x.biases)
    weights[0] = weights[0] + into[None, None]
    weights[-1] = weights[-1] + out[None, :, None]
    biases[-1] = biases[-1] + shift[None]
    return Features(tuple(weights), tuple(biases))


class HNPLinear(nn.Module):
  """The HNP-equivariant linear layer; needs a hidden layer.

  Attributes:
    layout: of the networks.
    channels: of the output.
    complete: give the last weight the bias of the neuron that it reads.
  """

  layout: Layout
  channels: int
  complete: bool = True

  @nn.compact
  def __call__(self, x: Features) -> Features:
    """Returns features of `channels` channels.

    Raises:
      ValueError: there is no hidden layer.
    """
    layers, c = self.layout.layers, self.channels
    if len(layers) < 2:
      raise ValueError(
        f"HNP layers need a hidden layer, but {self.layout.spec.describe()} has"
        " none"
      )
    rows, columns, g = _pooled(x)
    first, last = (
      _per_neuron_first(x.weights[0]),
      _per_neuron_last(x.weights[-1]),
    )
    ends = [_vector(rows[0]), _vector(columns[-1]), _vector(x.biases[-1])]
    g = jnp.concatenate([g, *ends], axis=-1)
    weights, biases = [], []
    for l, w in enumerate(x.weights):
      wide = c * layers[l].places
      if l == 0:
        terms = [first, rows[1], x.biases[0]]
        if len(layers) == 2:
          terms.append(last)
        weight, bias = self._first(w, g, jnp.concatenate(terms, -1), wide)
      elif l == len(layers) - 1:
        terms = [last, columns[l - 1]]
        if len(layers) == 2:
          terms.append(first)
        if self.complete:
          terms.append(x.biases[l - 1])
        weight, bias = self._last(w, g, jnp.concatenate(terms, -1), wide)
      else:
        row = _row_terms(l, x, rows, columns)
        column = _column_terms(l, x, rows, columns)
        if l == 1:
          row.append(first)
        if l == len(layers) - 2:
          column.append(last)
        weight, bias = _middle(l, (wide, c), w, g, row, column)
      weights.append(weight)
      biases.append(bias)
    return Features(tuple(weights), tuple(biases))

  def _first(self, w, g, terms, wide):
    """First weight and bias: per hidden neuron, all inputs at once."""
    n, size, total = w.shape[2], terms.shape[-1], g.shape[-1]
    weight = affine(terms, *Map(size, n * wide, name="w0_rpt")())
    weight = (
      weight + affine(g, *Map(total, n * wide, name="w0_rbdcst")())[:, None]
    )
    weight = weight.reshape(*terms.shape[:2], wide, n)
    bias = _summed(
      self.channels,
      {"bias_0": terms, "bias_0_rc": g[:, None]},
    )
    return jnp.swapaxes(weight, 2, 3), bias

  def _last(self, w, g, terms, wide):
    """Last weight and bias: per hidden neuron, all outputs at once."""
    m = w.shape[1]
    weight = _summed(m * wide, {"wfin_cpt": terms, "wfin_cbdcst": g[:, None]})
    weight = weight.reshape(*terms.shape[:2], wide, m)
    bias = Map(g.shape[-1], m * self.channels, name="bias_fin_rc")
    bias = affine(g, *bias()).reshape(len(g), self.channels, m)
    return jnp.transpose(weight, (0, 3, 1, 2)), jnp.swapaxes(bias, 1, 2)


def _pooled(x: Features):
  """Means over rows and columns of every weight, and all means."""
  rows = [w.mean(axis=1) for w in x.weights]  # [B, I, cK]
  columns = [w.mean(axis=2) for w in x.weights]  # [B, O, cK]
  means = [r.mean(axis=1) for r in rows] + [v.mean(axis=1) for v in x.biases]
  return rows, columns, jnp.concatenate(means, axis=-1)


def _row_terms(l: int, x: Features, rows, columns) -> list:
  """What weight `l` sees of the neuron that it reads."""
  return [rows[l]] + ([columns[l - 1], x.biases[l - 1]] if l else [])


def _column_terms(l: int, x: Features, rows, columns) -> list:
  """What weight `l` sees of the neuron that it makes."""
  return [columns[l], x.biases[l]] + rows[l + 1 : l + 2]


def _middle(l: int, widths, w, g, row, column):
  """Weight and bias of a layer by the four maps and the two maps."""
  row, column = jnp.concatenate(row, -1), jnp.concatenate(column, -1)
  terms = {
    f"layer_{l}": w,
    f"layer_{l}_rc": g[:, None, None],
    f"layer_{l}_r": row[:, None],
    f"layer_{l}_c": column[:, :, None],
  }
  weight = _summed(widths[0], terms)
  terms = {f"bias_{l}": column, f"bias_{l}_rc": g[:, None]}
  return weight, _summed(widths[1], terms)


def _summed(outputs: int, terms: dict[str, Array]) -> Array:
  """Sum of affine maps of the terms, scaled jointly; broadcast."""
  fan_in = sum(term.shape[-1] for term in terms.values())
  parts, shifts = [], []
  for name, term in terms.items():
    kernel, bias = Map(term.shape[-1], outputs, fan_in, name=name)()
    parts.append(affine(term, kernel, None))
    shifts.append(bias)
  total = functools.reduce(jnp.add, parts)
  shift = functools.reduce(jnp.add, shifts)
  return total + shift.reshape((1,) * (total.ndim - 1) + (-1,))


def _per_neuron_first(w: Float[Array, "B O N cK"]) -> Float[Array, "B O cKN"]:
  """The first weight per hidden neuron, channel-major."""
  return jnp.swapaxes(w, 2, 3).reshape(*w.shape[:2], -1)


def _per_neuron_last(w: Float[Array, "B M I cK"]) -> Float[Array, "B I cKM"]:
  """The last weight per hidden neuron, channel-major."""
  batch, _, inputs, _ = w.shape
  return jnp.transpose(w, (0, 2, 3, 1)).reshape(batch, inputs, -1)


def _vector(x: Float[Array, "B N c"]) -> Float[Array, "B cN"]:
  """Neurons and channels as one vector, channel-major."""
  return jnp.swapaxes(x, 1, 2).reshape(len(x), -1)
