"""What the answers to a reader's inputs add to the code of a network.

Dimensions: `N` networks of a program, `U` units, `K` inputs, `h` width.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from sne_jax.encoders.responses import features, running
from sne_jax.encoders.responses.seen import Seen, is_classifier

MOST_MIXTURES = 24

CURVES = 8
"""Parts of the curve of a number in an additive map."""


@dataclasses.dataclass(frozen=True)
class ReaderOptions:
  """Options of the reader; see the `response_` options of `SNEOptions`."""

  width: int
  hidden: bool
  readers: int
  inputs: int
  source: str
  order: str
  map: str
  apart: bool
  dropout: float
  grid: int
  hidden_width: int
  drop: float


class Codes(nn.Module):
  """Maps answers to what is added to codes; at first that is 0.

  Attributes:
    options: what is read.
    seen: what the training networks take and give.
  """

  options: ReaderOptions
  seen: Seen

  def setup(self):
    """Names the parts."""
    o = self.options
    mixtures = (o.inputs, min(o.inputs, MOST_MIXTURES))
    draw = nn.initializers.normal(o.inputs**-0.5)
    zeros = nn.initializers.zeros_init()
    if o.order in ("invariant", "both"):
      self.output_mixture = self.param("output_mixture", draw, mixtures)
    self.output_hidden = _hidden(o, 2)
    self.output_code = nn.Dense(o.width, kernel_init=zeros)
    if o.hidden:
      if o.order != "pooled":
        self.level_mixture = self.param("level_mixture", draw, mixtures)
      self.level_hidden = _hidden(o, 1)
      self.level_code = nn.Dense(o.width, kernel_init=zeros)
    self.drop = nn.Dropout(o.dropout)

  def __call__(
    self, program, answers: running.Answers, deterministic: bool = True
  ):
    """Returns what is added to the codes of a program's networks, `[N, h]`."""
    codes = self._outputs(program, answers, deterministic)
    if self.options.hidden:
      codes += self._levels(program, answers, deterministic)
    return codes

  def _outputs(self, program, answers: running.Answers, deterministic: bool):
    """Returns what outputs add to codes."""
    o, seen, outputs = self.options, self.seen, answers.outputs
    classes = is_classifier(program.spec, outputs.shape[-1])
    has_signals = seen.signals or not seen.classes
    parts = []
    if o.order == "pooled":
      for kind in [True] * seen.classes + [False] * has_signals:
        values = outputs if kind else _of_count(outputs, seen.outputs)
        values = features.survey(values, classes=kind)
        parts.append(values if kind == classes else 0 * values)
    elif o.order != "invariant" or has_signals:
      values = features.values(outputs, seen.outputs, classes=classes)
      named = not classes or o.order != "invariant"
      parts.append(values if named else 0 * values)
    if seen.classes and o.order in ("invariant", "both"):
      spread = features.spread(outputs, self.output_mixture)
      parts.append(spread if classes else 0 * spread)
    x = self._mapped(self.output_hidden, parts, deterministic)
    return self.output_code(x)

  def _levels(self, program, answers: running.Answers, deterministic: bool):
    """Returns what the levels' answers add to codes, their mean."""
    levels = running.by_level(program, answers)
    is_pooled = self.options.order == "pooled"
    hidden = levels if is_pooled else levels[:-1] or levels
    total = 0
    for place, (before, after, mask) in enumerate(hidden):
      share = (place + 1) / len(hidden)
      if is_pooled:
        x = features.survey_level(before, after, mask)
      else:
        x = features.level(after, mask, self.level_mixture)
      depth = jnp.full((len(x), 1), share)
      parts = [x, depth]
      if is_pooled:  # A curve for the first levels, the middle and the last.
        at = ((1 - share) ** 2, 2 * share * (1 - share), share**2)
        x = self._mapped(self.level_hidden, parts, deterministic)
        total = total + jnp.concatenate([w * x for w in at], axis=-1)
      else:
        total = total + self._mapped(self.level_hidden, parts, deterministic)
    return self.level_code(total / len(hidden))

  def _mapped(self, layers, parts, deterministic: bool):
    """Maps numbers, in parts, to what codes are linear in."""
    x = jnp.concatenate(parts, axis=-1)
    if self.options.map == "additive":
      (curves,) = layers
      return self.drop(curves(x), deterministic)
    x = self.drop(x, deterministic)
    for dense in layers:
      x = nn.gelu(dense(x))
    return x


class Curves(nn.Module):
  """Gives each number steps at places of its own, `[N, F]` to `[N, F c]`."""

  @nn.compact
  def __call__(self, x):
    """Returns the steps, between -1 and 1."""
    shape = (x.shape[-1], CURVES)
    slope = self.param("slope", _slopes, shape)
    place = self.param("place", _places, shape)
    steps = jnp.tanh(slope[None] * (x[..., None] - place[None]))
    return steps.reshape(len(x), -1)


def _slopes(key, shape):
  """Draws slopes of either sign, most between a half and two."""
  return jnp.exp(0.7 * jax.random.normal(key, shape))


def _places(key, shape):
  """Draws places where numbers are that `features` makes."""
  return jax.random.uniform(key, shape, minval=-3, maxval=3)


def _hidden(options: ReaderOptions, count: int):
  """Returns the layers of a map."""
  if options.map == "additive":
    return [Curves()]
  return [nn.Dense(options.hidden_width) for _ in range(count)]


def _of_count(outputs, count: int):
  """Returns so many outputs of `[N, K, O]`, with zeros where there are less."""
  outputs = outputs[..., :count]
  missing = count - outputs.shape[-1]
  return jnp.pad(outputs, ((0, 0), (0, 0), (0, missing)))
