"""Windows over a sequence of tokens, with context, that tile every length.

Content windows of `size` tokens follow one another; each is read with `halo`
tokens of context on both sides, so all windows have `size + 2 halo` tokens.
Starts are clamped into the sequence: near its ends a window holds more context
and the place of its content moves. A sequence that is no longer than one
window is one window. So every token is the content of exactly one window, for
every length, where the published rule fails for some.

Dimensions: `N` tokens, `W` windows of `T` tokens, `C` entries of a token.

References:
  Schuerholt et al., ICML 2024, arXiv:2406.09997 (haloing).
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray, Shaped


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
  """How a sequence is cut, and put together again.

  Attributes:
    num_tokens: `N`.
    index: int32 [W, T], the tokens of each window.
    content: bool [W, T], the tokens whose results are kept.
    source: int32 [N], where each token's result is among the `W * T`.
  """

  num_tokens: int
  index: Int[np.ndarray, "W T"]
  content: Bool[np.ndarray, "W T"]
  source: Int[np.ndarray, "N"]

  @property
  def starts(self) -> Int[np.ndarray, "W"]:
    """First token of each window."""
    return self.index[:, 0]


def tile(num_tokens: int, size: int, halo: int = 0) -> Windows:
  """Returns windows over a sequence.

  Args:
    num_tokens: `N`, at least 1.
    size: tokens of content per window, at least 1.
    halo: tokens of context on either side, at least 0.

  Raises:
    ValueError: a number is below its least value.
  """
  for name, value, least in (
    ("num_tokens", num_tokens, 1),
    ("size", size, 1),
    ("halo", halo, 0),
  ):
    if value < least:
      raise ValueError(f"{name} must be at least {least}, got {value}")
  length = size + 2 * halo
  if num_tokens <= length:
    starts, length, stride = np.zeros(1, np.int32), num_tokens, num_tokens
  else:
    first = np.arange(0, num_tokens, size, dtype=np.int32)
    starts, stride = np.clip(first - halo, 0, num_tokens - length), size
  index = starts[:, None] + np.arange(length, dtype=np.int32)[None]
  content = index // stride == np.arange(len(starts))[:, None]
  return Windows(
    num_tokens,
    index.astype(np.int32),
    content,
    np.flatnonzero(content).astype(np.int32),
  )


def cut(
  windows: Windows, x: Shaped[Array | np.ndarray, "... N C"]
) -> Shaped[Array | np.ndarray, "... W T C"]:
  """Returns the windows of a sequence.

  Raises:
    ValueError: the sequence does not have the length that was tiled.
  """
  if x.shape[-2] != windows.num_tokens:
    raise ValueError(
      f"these windows tile {windows.num_tokens} tokens, got an array of shape"
      f" {tuple(x.shape)}"
    )
  return x[..., windows.index, :]


def stitch(
  windows: Windows, x: Shaped[Array | np.ndarray, "... W T C"]
) -> Shaped[Array | np.ndarray, "... N C"]:
  """Returns the sequence of the windows' contents; the inverse of `cut`.

  Raises:
    ValueError: the windows are not those of this tiling.
  """
  if tuple(x.shape[-3:-1]) != windows.index.shape:
    raise ValueError(
      f"these are {windows.index.shape[0]} windows of {windows.index.shape[1]}"
      f" tokens, got an array of shape {tuple(x.shape)}"
    )
  flat = x.reshape(*x.shape[:-3], windows.index.size, x.shape[-1])
  return flat[..., windows.source, :]


def draw(
  key: PRNGKeyArray, num_tokens: int, size: int, shape: Sequence[int] = ()
) -> Int[Array, "... T"]:
  """Draws windows for training: token numbers, each start equally likely.

  Args:
    key: consumed.
    num_tokens: `N`.
    size: `T`, tokens of a window.
    shape: one window for each place of it. Views of one network take the same
      window, so that they can be compared.

  Raises:
    ValueError: the sequence is shorter than a window.
  """
  if num_tokens < size:
    raise ValueError(
      f"windows of {size} tokens do not fit a sequence of {num_tokens}; pad it"
      " (tokens.pad) or use smaller windows"
    )
  starts = jax.random.randint(key, tuple(shape), 0, num_tokens - size + 1)
  return starts[..., None] + jnp.arange(size).reshape(
    (1,) * len(shape) + (size,)
  )
