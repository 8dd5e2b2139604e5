"""Large networks: each is encoded by itself, part by part.

What will take long is said before, by an estimate from a small piece of it, and
how far it is while it lasts. From Python it is a warning and log lines; a
program may ask first (`BeforeLong`).

Dimensions: `S` seeds, `D` width of a code, `T` targets.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from sne_jax.encoders import interface
from sne_jax.encoders.sne import streaming
from sne_jax.learning.objectives import model
from sne_jax.learning.training import progress as progress_lib
from sne_jax.networks.spec import NetworkSpec

LONG_SECONDS = 60.0
"""What takes longer is said before."""

BeforeLong = Callable[[NetworkSpec, float], None]
"""Is told a network and the seconds that its encoding will take; what it raises
keeps the network from being encoded."""


class MemoryLimitError(ValueError):
  """A limit of memory that an encoder cannot hold; the message says why."""


def announce(spec: NetworkSpec, seconds: float) -> None:
  """Logs how long the encoding of a network will take."""
  logging.warning("%s", announcement(spec, seconds))


def announcement(spec: NetworkSpec, seconds: float) -> str:
  """Returns how long the encoding of a network will take, in words."""
  about = progress_lib.format_seconds(seconds)
  return (
    f"a network of {spec.num_weights:,} weights takes about {about} to encode,"
    " as a small piece of it shows"
  )


class Large:
  """Encodes large networks with any parameters of one model.

  Args:
    net: encoder and head.
    encode: of `Encoder.make_large_fn`.
    draws: calls averaged.
    is_stochastic: whether the encoder draws identifiers.
    long_seconds: estimates above this are said.
    before_long: what says them, before.
  """

  def __init__(
    self,
    net: model.PropertyModel,
    encode: Any,
    *,
    draws: int,
    is_stochastic: bool,
    long_seconds: float | int = LONG_SECONDS,
    before_long: BeforeLong = announce,
  ):
    self._net, self._encode, self._draws = net, encode, draws
    self._is_stochastic = is_stochastic
    self._long_seconds, self._before_long = long_seconds, before_long

  def run(
    self, params: Sequence[Any], spec: NetworkSpec, weights: Any
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits `[S, T]` and codes `[S, D]`, averaged over draws.

    Args:
      params: of each seed.
      spec: the network.
      weights: `[P]`, or its tensors by name.
    """
    if not isinstance(weights, Mapping):
      weights = spec.unflatten(np.asarray(weights))
    calls = len(params) * self._draws
    pace, seconds = self._estimate(params[0], spec, weights)
    if pace is None or seconds * calls <= self._long_seconds:
      rows = [self._run(one, spec, weights, {}) for one in params]
    else:
      self._before_long(spec, seconds * calls)
      with progress_lib.Progress("encoding, in %") as shown:
        rows = [
          self._run(
            *(one, spec, weights),
            {"pace": pace, "progress": _share(shown, number, len(params))},
          )
          for number, one in enumerate(params)
        ]
    logits, codes = zip(*rows, strict=True)
    return np.stack(logits), np.stack(codes)

  def _run(self, params, spec: NetworkSpec, weights: Any, more):
    """Returns logits and code of one seed."""
    tell = more.get("progress")
    codes = []
    for draw in range(self._draws):
      if tell is not None:
        more = more | {"progress": _share_of(tell, draw, self._draws)}
      codes.append(
        self._encode(
          params["params"]["encoder"],
          spec,
          weights,
          identifiers=self._drawer(params, draw),
          **more,
        )
      )
    codes = np.stack(codes)
    logits = model.head(self._net, params, codes)
    return np.asarray(logits).mean(axis=0), codes.mean(axis=0)

  def _estimate(self, params, spec: NetworkSpec, weights: Any):
    """Returns the pace and the seconds of one call; None where none is made."""
    pace = getattr(self._encode, "pace", None)
    if pace is None:  # An encoder of somebody else's.
      return None, 0.0
    return pace(
      params["params"]["encoder"],
      spec,
      weights,
      identifiers=self._drawer(params, 0),
    )

  def _drawer(self, params, draw: int):
    """Returns what draws a table of random identifiers; None without them."""
    if not self._is_stochastic:
      return None
    return lambda count: self._net.apply(
      params,
      rngs={"identifiers": jax.random.key(draw)},
      method=lambda net: net.encoder.draw_identifiers(count),
    )


def encode_fn(
  encoder: interface.Encoder, name: str, memory_limit: int | None
) -> Any:
  """Returns what encodes one network in bounded memory, or None.

  Args:
    encoder: the encoder.
    name: of it.
    memory_limit: bytes; None: `streaming.MEMORY_LIMIT`.

  Raises:
    MemoryLimitError: a limit that the encoder cannot hold.
  """
  make = encoder.make_large_fn
  if make is None and memory_limit is not None:
    raise MemoryLimitError(
      f"memory_limit is {memory_limit} bytes, but the encoder {name} has no"
      " form of bounded memory; leave the limit out, or use a model of sne"
      " without statistics_tokens and gram_tokens"
    )
  if make is None:
    return None
  limit = streaming.MEMORY_LIMIT if memory_limit is None else memory_limit
  try:
    return make(limit)
  except ValueError as error:
    raise MemoryLimitError(str(error)) from error


def _share(shown: progress_lib.Progress, number: int, count: int):
  """Returns what shows the progress of one of several calls in percent."""

  def tell(done: float, total: float) -> None:
    share = (number + done / total) / count
    shown.update(int(100 * share), 100)

  return tell


def _share_of(tell: Callable[[float, float], None], number: int, count: int):
  """Returns the progress of one part of several that `tell` is told of."""
  return lambda done, total: tell(number * total + done, count * total)
