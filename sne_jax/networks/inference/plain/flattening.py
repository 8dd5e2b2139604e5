"""An image before a dense layer: what its numbers are, and in which order.

Shapes show neither. An image of as many places as a square has is taken for
that; where channels of an earlier layer may be joined to those of the last, and
so be among the numbers, no permutation of theirs is claimed.

Dimensions: `C` channels, `I` inputs of a dense layer.
"""

from collections.abc import Sequence

from sne_jax.networks.inference.naming import Module
from sne_jax.networks.inference.plain.readings import as_json
from sne_jax.networks.tracing.player import Mismatch, Player
from sne_jax.networks.tracing.tape import Value

_FEW_PLACES = 3
"""Places of a sequence that may as well be statistics of each channel (mean and
spread, or average and largest), one statistic behind the other."""


def flatten(
  p: Player,
  x: Value,
  module: Module,
  before: Module | None,
  earlier: Sequence[Value],
) -> Value:
  """Returns an image as what the dense layer after it reads.

  Args:
    p: the player.
    x: `[1, C, ...]`, the image.
    module: the dense layer.
    before: the layer before it; None if there is none.
    earlier: images that may be joined to `x`.

  Returns:
    `[1, I]`.

  Raises:
    Mismatch: the numbers are no such image.
  """
  inputs = p.kernel_shape(module.parts["weight"])[1]
  places = inputs // x.shape[1]
  if places == 1:
    return p.tape.reshape(x, (1, x.shape[1]))
  if p.override.places and p.override.places != places:
    raise Mismatch(f"{inputs} inputs are {places} places per channel")
  usual = p.layout(module.parts["weight"]) == "in_out"
  way = p.override.flatten or ("channels_last" if usual else "channels_first")
  other = "channels_first" if way == "channels_last" else "channels_last"
  kernel = len(x.shape) - 2
  if not p.override.places:
    _check_places(p, x, inputs, module, earlier)
  x = p.tape.spatial(
    p.tape.reshape(x, (1, x.shape[1], 1)), (1, x.shape[1], places)
  )
  if not p.override.flatten:
    pooled = kernel == 1 and places <= _FEW_PLACES
    odd = pooled or before is not None and not usual and _is_strip(p, before)
    text = (
      f"{inputs} inputs of {module.prefix!r} are {x.shape[1]} channels of"
      f" {places} places, {'in an order that is not known' if odd else way};"
      f" {as_json(flatten=way)} settles it, or {as_json(flatten=other)}"
    )
    if odd:
      p.tape.axes.pin(x.axes[1], text)
    else:
      p.guess(text)
  if way == "channels_last":
    x = p.tape.transpose(x, (0, 2, 1))
  return p.tape.reshape(x, (1, inputs))


def _check_places(
  p: Player, x: Value, inputs: int, module: Module, earlier: Sequence[Value]
) -> None:
  """Claims nothing of images of which more may be flattened than the last."""
  channels, kernel = x.shape[1], len(x.shape) - 2
  places = inputs // channels
  settled = as_json(places=places)
  if not _is_power(places, kernel):
    some = "one channel" if channels == 1 else f"{channels} channels"
    raise Mismatch(
      f"{inputs} inputs of {module.prefix!r} would be {some} of {places}"
      f" places, no square: {settled} says that they are"
    )
  for image in earlier:
    joined = channels + image.shape[1]
    if inputs % joined or not _is_power(inputs // joined, kernel):
      continue
    reason = (
      f"{inputs} inputs of {module.prefix!r} may be {channels} channels of"
      f" {places} places, or {joined} of {inputs // joined}, those of an"
      f" earlier layer among them: {settled} says that they are the former"
    )
    for one in (*earlier, x):
      p.tape.axes.pin(one.axes[1], reason)
    return


def _is_strip(p: Player, module: Module) -> bool:
  """Whether kernels are of one row or column: a sequence, kept as an image.

  Code that does so (CREPE is an example) often turns it before a dense layer.
  """
  places = p.kernel_shape(module.parts["weight"])[2:]
  return len(places) > 1 and min(places) == 1 < max(places)


def _is_power(places: int, rank: int) -> bool:
  """Whether places are those of a square or a cube."""
  return round(places ** (1 / rank)) ** rank == places
