"""What the answers to a reader's inputs add to the code of a network.

Dimensions: `N` networks of a program, `U` units, `K` inputs, `h` width.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from sne_jax.encoders.responses import features, running
from sne_jax.encoders.responses.seen import Seen, is_classifier

MOST_MIXTURES = 24


@dataclasses.dataclass(frozen=True)
class ReaderOptions:
  """Options of the reader; see the `response_` options of `SNEOptions`."""

  width: int
  hidden: bool
  readers: int
  inputs: int
  source: str
  order: str
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
    self.output_mixture = self.param("output_mixture", draw, mixtures)
    self.output_hidden = [nn.Dense(o.hidden_width) for _ in range(2)]
    self.output_code = nn.Dense(o.width, kernel_init=zeros)
    if o.hidden:
      self.level_mixture = self.param("level_mixture", draw, mixtures)
      self.level_hidden = nn.Dense(o.hidden_width)
      self.level_code = nn.Dense(o.width, kernel_init=zeros)

  def __call__(self, program, answers: running.Answers):
    """Returns what is added to the codes of a program's networks, `[N, h]`."""
    codes = self._outputs(program, answers)
    if self.options.hidden:
      codes += self._levels(program, answers)
    return codes

  def _outputs(self, program, answers: running.Answers):
    """Returns what outputs add to codes."""
    o, seen, outputs = self.options, self.seen, answers.outputs
    classes = is_classifier(program.spec, outputs.shape[-1])
    has_signals = seen.signals or not seen.classes
    parts = []
    if o.order == "pooled":
      kinds = [True] * seen.classes + [False] * has_signals
      for kind in kinds:
        values = outputs if kind else outputs[..., : seen.outputs]
        missing = 0 if kind else seen.outputs - values.shape[-1]
        values = jnp.pad(values, ((0, 0), (0, 0), (0, missing)))
        values = features.survey(values, classes=kind)
        parts.append(values if kind == classes else 0 * values)
    elif o.order != "invariant" or has_signals:
      values = features.values(outputs, seen.outputs, classes=classes)
      named = not classes or o.order != "invariant"
      parts.append(values if named else 0 * values)
    if seen.classes and o.order in ("invariant", "both"):
      spread = features.spread(outputs, self.output_mixture)
      parts.append(spread if classes else 0 * spread)
    x = jnp.concatenate(parts, axis=-1)
    for dense in self.output_hidden:
      x = nn.gelu(dense(x))
    return self.output_code(x)

  def _levels(self, program, answers: running.Answers):
    """Returns what the levels' answers add to codes, their mean."""
    levels = running.by_level(program, answers)
    hidden = levels[:-1] or levels  # All but the outputs.
    total = 0
    for place, (before, after, mask) in enumerate(hidden):
      share = (place + 1) / len(hidden)
      if self.options.order == "pooled":
        x = features.survey_level(before, after, mask)
        x = jnp.concatenate([share * x, (1 - share) * x], axis=-1)
      else:
        x = features.level(after, mask, self.level_mixture)
      depth = jnp.full((len(x), 1), share)
      x = self.level_hidden(jnp.concatenate([x, depth], axis=-1))
      total = total + nn.gelu(x)
    return self.level_code(total / len(hidden))
