"""Reads a batch of networks by what they answer to learned inputs.

The weights are data and the inputs are parameters: nothing else is needed to
predict, no data set. What is read is added to the codes of chunks and networks,
through last layers that begin at 0: at first the encoder is that without.

Dimensions: `B` networks, `M` chunks, `h` width of codes, `K` inputs.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from sne_jax.encoders.batches import joining
from sne_jax.encoders.responses import features, inputs, programs, running
from sne_jax.networks import families
from sne_jax.networks.spec import NetworkSpec

MOST_MIXTURES = 24


class Seen(NamedTuple):
  """What the training networks take and give; plain values, for model files.

  Attributes:
    image: channels, height and width of the largest image; zeros: none.
    features: most features of an input that is no image.
    outputs: most outputs.
    classes: whether some have classes.
    signals: whether some have other outputs.
    unread: whether some could not be run.
  """

  image: tuple[int, int, int] = (0, 0, 0)
  features: int = 0
  outputs: int = 1
  classes: bool = False
  signals: bool = False
  unread: bool = False


def measure(networks: Sequence[tuple[NetworkSpec, Any]]) -> dict[str, Any]:
  """Returns the fields of `Seen`; of networks that can be run."""
  seen = Seen()
  for spec in dict.fromkeys(spec for spec, _ in networks):
    if not programs.is_runnable(spec):
      seen = seen._replace(unread=True)
      continue
    shape, outputs = programs.input_shape(spec), programs.unit_levels(spec)[-1]
    image = seen.image
    if len(shape) == 3:
      channels, height, width = map(max, shape, image)
      image = (channels, height, width)
    is_class = is_classifier(spec, outputs[1])
    seen = Seen(
      image,
      max(seen.features, shape[0] if len(shape) == 1 else 0),
      max(seen.outputs, outputs[1]),
      seen.classes or is_class,
      seen.signals or not is_class,
      seen.unread,
    )
  return seen._asdict() | {"image": list(seen.image)}


def seen_of(measured: Mapping[str, Any]) -> Seen:
  """Reads what `measure` returned, from a model file too."""
  channels, height, width = measured["image"]
  return Seen(
    image=(channels, height, width),
    features=measured["features"],
    outputs=measured["outputs"],
    classes=measured["classes"],
    signals=measured["signals"],
    unread=measured.get("unread", False),
  )


def remark(spec: NetworkSpec, in_parts: bool, *, knows_weights: bool) -> str:
  """Says of a network whose answers are not read that they are not.

  Args:
    spec: the network.
    in_parts: whether it is encoded part by part, which runs nothing.
    knows_weights: whether the model has met networks without answers, in
      training.

  Raises:
    ValueError: it has not; the remedy is named.
  """
  if programs.is_runnable(spec) and not in_parts:
    return ""
  why = "it is encoded part by part"
  if not programs.is_runnable(spec):
    why = "nothing tells how it is run"
  if not knows_weights:
    raise ValueError(
      f"{spec.describe()}: {why}, and this model reads what networks answer; it"
      " never learned to do without: train it with --response_drop=0.1, or"
      " settle the network's family and options (--override)"
    )
  return f"read by its weights alone, not by what it answers: {why}"


def is_classifier(spec: NetworkSpec, outputs: int) -> bool:
  """Whether outputs are logits of classes."""
  return spec.family != "inr" and outputs > 1


@dataclasses.dataclass(frozen=True)
class ReaderOptions:
  """Options of the reader; see the `response_` options of `SNEOptions`."""

  width: int
  hidden: bool
  inputs: int
  source: str
  order: str
  grid: int
  hidden_width: int
  drop: float


class Reader(nn.Module):
  """Adds what networks answer to the codes of chunks and networks.

  Attributes:
    options: what is read.
    seen: what the training networks take and give.
  """

  options: ReaderOptions
  seen: Seen

  def setup(self):
    """Names the parts."""
    o, seen = self.options, self.seen
    self.probes = inputs.Inputs(o.inputs, seen.image, seen.features, o.source)
    mixtures = (o.inputs, min(o.inputs, MOST_MIXTURES))
    draw = nn.initializers.normal(o.inputs**-0.5)
    self.output_mixture = self.param("output_mixture", draw, mixtures)
    zeros = nn.initializers.zeros_init()
    self.output_hidden = [nn.Dense(o.hidden_width) for _ in range(2)]
    self.output_code = nn.Dense(o.width, kernel_init=zeros)
    if o.hidden:
      self.level_mixture = self.param("level_mixture", draw, mixtures)
      self.unit_hidden = nn.Dense(2 * o.width)
      self.unit_code = nn.Dense(o.width, kernel_init=zeros)
      self.level_hidden = nn.Dense(o.hidden_width)
      self.level_code = nn.Dense(o.width, kernel_init=zeros)

  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Returns what is added: to chunks `[M, h]`, or None; to codes `[B, h]`."""
    o = self.options
    networks = len(batch.tables["networks"]["real"])
    codes = jnp.zeros((networks, o.width))
    units = jnp.zeros((len(batch.tables["units"]["real"]), o.width))
    keep = self._kept(networks, deterministic)
    if self.is_initializing():
      self._make()
    each = running.each(batch, self.probes, o.grid * o.hidden)
    for program, table, answers in each:
      row = table["network"]
      codes = codes.at[row].add(self._outputs(program, answers), mode="drop")
      if o.hidden:
        codes = codes.at[row].add(self._levels(program, answers), mode="drop")
        unit = jnp.where(table["real"][:, None], table["unit"], 0)
        kept = keep.at[row].get(mode="clip")[:, None, None]
        units = units.at[unit].add(kept * self._units(program, answers))
    codes = codes * keep[:, None]
    if not o.hidden:
      return None, codes
    return units.at[0].set(0)[batch.tables["chunks"]["unit"]], codes

  def _make(self):
    """Makes the parameters, whether the batch has what can be run or not."""
    o = self.options
    spec = families.build("mlp", widths=(1, 1, max(self.seen.outputs, 1)))
    program = programs.Plan([spec]).programs[0]
    self.probes((1,))
    units = sum(count for _, count in program.levels)
    of_units = jnp.zeros((1, units, o.grid**2, o.inputs))
    answers = running.Answers(
      outputs=jnp.zeros((1, o.inputs, self.seen.outputs)),
      before=of_units,
      after=of_units,
      is_unit=jnp.ones((1, units), bool),
    )
    self._outputs(program, answers)
    if o.hidden:
      self._levels(program, answers)
      self._units(program, answers)

  def _kept(self, count: int, deterministic: bool):
    """Returns 1 for networks whose answers are read, 0 for others, `[B]`."""
    if deterministic or not self.options.drop:
      return jnp.ones(count)
    share = 1 - self.options.drop
    key = self.make_rng("dropout")
    return jax.random.bernoulli(key, share, (count,)).astype(jnp.float32)

  def _outputs(self, program, answers: running.Answers):
    """Returns what outputs add to codes, `[N, h]`."""
    o, outputs = self.options, answers.outputs
    classes = is_classifier(program.spec, outputs.shape[-1])
    parts = []
    seen = self.seen
    if o.order != "invariant" or seen.signals or not seen.classes:
      values = features.values(outputs, self.seen.outputs, classes=classes)
      named = not classes or o.order != "invariant"
      parts.append(values if named else 0 * values)
    if self.seen.classes and o.order != "ordered":
      spread = features.spread(outputs, self.output_mixture)
      parts.append(spread if classes else 0 * spread)
    x = jnp.concatenate(parts, axis=-1)
    for dense in self.output_hidden:
      x = nn.gelu(dense(x))
    return self.output_code(x)

  def _units(self, program, answers: running.Answers):
    """Returns what answers add to the chunks of units, `[N, U, h]`."""
    x = [
      features.units(before, after, mask)
      for before, after, mask in running.by_level(program, answers)
    ]
    x = nn.gelu(self.unit_hidden(jnp.concatenate(x, axis=1)))
    return self.unit_code(x)

  def _levels(self, program, answers: running.Answers):
    """Returns what the levels' answers add to codes, `[N, h]`, their mean."""
    levels = running.by_level(program, answers)
    hidden = levels[:-1] or levels  # All but the outputs.
    total = 0
    for place, (_, after, mask) in enumerate(hidden):
      x = features.level(after, mask, self.level_mixture)
      depth = jnp.full((len(x), 1), (place + 1) / len(hidden))
      x = self.level_hidden(jnp.concatenate([x, depth], axis=-1))
      total = total + nn.gelu(x)
    return self.level_code(total / len(hidden))
