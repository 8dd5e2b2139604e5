"""Encodings of scalars, positions, types and levels for set tokens.

Dimensions: `h` width of an encoding, `F` features of a scalar.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

POSITIONS = {
  "none": (),
  "chunk": (),
  "neuron": ("out", "in", "y", "x"),
  "io": ("inputs", "outputs"),
}
"""What index features look up for every weight, by their kind."""


def positions_of(layout, kind: str) -> tuple[np.ndarray, ...]:
  """Returns the columns `[M, C]` of `POSITIONS[kind]` of some chunks.

  Args:
    layout: anything with `places [M, C, 4]` and `io [M, C, 2]`.
    kind: of the index features.
  """
  field = {"neuron": "places", "io": "io"}.get(kind)
  if field is None:
    return ()
  # Each is an array of its own, as a table of a batch keeps it.
  array = np.moveaxis(getattr(layout, field), -1, 0)
  return tuple(np.ascontiguousarray(array))


def sinusoidal(positions, width: int):
  """Encodes positions `[...]` as sines and cosines `[..., width]`.

  `PE(p, 2i) = sin(p / 10000^(2i/h))`, `PE(p, 2i+1) = cos(same)`: defined for
  positions never seen in training.
  """
  rate = 10000.0 ** (-np.arange(0, width, 2) / width)
  angle = positions[..., None] * jnp.asarray(rate, jnp.float32).reshape(
    (1,) * positions.ndim + (-1,)
  )
  pair = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1)
  return pair.reshape(*positions.shape, 2 * len(rate))[..., :width]


def value_features(values, kind: str):
  """Turns scaled weights `[...]` into features `[..., F]`.

  `raw` is the scalar itself. `symlog` adds `sign(w) log(1 + |w|)`, which keeps
  small weights apart. `fourier` adds sines and cosines at four octaves.
  """
  if kind == "raw":
    return values[..., None]
  if kind == "symlog":
    return jnp.stack([values, jnp.sign(values) * jnp.log1p(abs(values))], -1)
  octaves = jnp.asarray(2.0 ** np.arange(-1, 3), jnp.float32)
  angle = values[..., None] * octaves.reshape((1,) * values.ndim + (-1,))
  return jnp.concatenate(
    [values[..., None], jnp.sin(angle), jnp.cos(angle)], axis=-1
  )


class LevelEncoding(nn.Module):
  """Encodes depth `[..., 2]` (level, and level / deepest level) as `[..., h]`.

  `sinusoidal` is fixed, `relative` adds the sinusoid of the relative depth,
  `learned` is a table of `max_levels` rows (deeper levels share the last one).
  """

  width: int
  kind: str = "sinusoidal"
  max_levels: int = 64

  @nn.compact
  def __call__(self, level):
    """Returns the encoding; zeros for `none`."""
    if self.kind == "none":
      return jnp.zeros((*level.shape[:-1], self.width), jnp.float32)
    if self.kind == "learned":
      rows = jnp.clip(level[..., 0], 0, self.max_levels - 1).astype(jnp.int32)
      return nn.Embed(self.max_levels, self.width, name="table")(rows)
    code = sinusoidal(level[..., 0], self.width)
    if self.kind == "relative":
      code = code + sinusoidal(100.0 * level[..., 1], self.width)
    return code


class IndexFeatures(nn.Module):
  """Encodes where each weight of a chunk stands, as `[M, C, width]`.

  `io` marks weights that read a true input or feed a true output, by its
  number; `chunk` the number of the chunk in its layer; `neuron` the out, in, y
  and x index of the weight. All sinusoidal, through one learned map each.
  """

  width: int
  kind: str

  def setup(self):
    """Names the maps."""
    names = ("chunk",) if self.kind == "chunk" else POSITIONS[self.kind]
    self.names = names
    for name in names:
      biased = self.kind != "neuron"
      setattr(self, name, nn.Dense(self.width, use_bias=biased))

  def tables(self, positions):
    """Returns the encodings of positions `[X]`, one table for each map."""
    if self.kind in ("none", "chunk"):
      return ()
    code = sinusoidal(positions, self.width)
    tables = tuple(getattr(self, name)(code) for name in self.names)
    if self.kind == "neuron":
      return tables
    return tuple(t * (positions > 0)[:, None] for t in tables)  # 0 is "none"

  def __call__(self, slots, tables):
    """Returns the features of chunks; None if there are none, or all are 0.

    Args:
      slots: the chunks. Where `positions` is None, none is at an end of the
        network.
      tables: what `tables` gives, for all positions that occur.
    """
    if self.kind == "none" or slots.positions is None:
      return None
    if self.kind == "chunk":
      number = sinusoidal(slots.chunk.astype(jnp.float32), self.width)
      (name,) = self.names
      code = getattr(self, name)(number)[:, None, :]
      return jnp.broadcast_to(code, (*slots.mask.shape, self.width))
    return sum(
      table[rows] for table, rows in zip(tables, slots.positions, strict=True)
    )


class Combine(nn.Module):
  """Adds encodings to tokens, or concatenates and projects them to `h`."""

  width: int
  kind: str = "add"

  @nn.compact
  def __call__(self, tokens, *encodings):
    """Combines `tokens [..., h]` with encodings of a broadcastable shape."""
    shaped = [
      jnp.broadcast_to(e, (*tokens.shape[:-1], e.shape[-1])) for e in encodings
    ]
    if self.kind == "add":
      for encoding in shaped:
        tokens = tokens + encoding.astype(tokens.dtype)
      return tokens
    joined = jnp.concatenate([tokens, *shaped], axis=-1)
    return nn.Dense(self.width, name="project")(joined)
