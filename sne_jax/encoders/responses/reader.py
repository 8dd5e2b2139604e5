"""Reads a batch of networks by what they answer to learned inputs.

The weights are data and the inputs are parameters: nothing else is needed to
predict, no data set. What is read is added to the codes of chunks and networks,
through last layers that begin at 0: at first the encoder is that without.

Several readers have inputs and maps of their own. In training each has to do
without the others (`SNE.of_each_reader`), so that they err in different ways;
what is predicted comes from the mean of their codes. Units are read with the
inputs of all.

Dimensions: `B` networks, `M` chunks, `h` width of codes, `K` inputs of a
reader, `R` readers.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sne_jax.encoders.batches import joining
from sne_jax.encoders.responses import features, inputs, programs, running
from sne_jax.encoders.responses.codes import Codes, ReaderOptions
from sne_jax.encoders.responses.seen import Seen
from sne_jax.networks import families


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
    count = o.readers * o.inputs
    self.probes = inputs.Inputs(count, seen.image, seen.features, o.source)
    self.readers = [Codes(o, seen) for _ in range(o.readers)]
    if o.hidden and not o.apart:
      zeros = nn.initializers.zeros_init()
      self.unit_hidden = nn.Dense(2 * o.width)
      self.unit_code = nn.Dense(o.width, kernel_init=zeros)

  def __call__(self, batch: joining.Joined, deterministic: bool = True):
    """Returns what is added to codes.

    Returns:
      For chunks `[M, h]`, or None; for codes, by each reader, `[R, B, h]`; and
      of which networks answers are read, `[B]`.
    """
    o = self.options
    networks = len(batch.tables["networks"]["real"])
    codes = jnp.zeros((o.readers, networks, o.width))
    read = jnp.zeros(networks)
    units = jnp.zeros((len(batch.tables["units"]["real"]), o.width))
    keep = self._kept(networks, deterministic)
    if self.is_initializing():
      self._make()
    for program, table, answers in running.each(
      batch, self.probes, o.grid * o.hidden
    ):
      row = table["network"]
      added = self._codes(program, answers, deterministic)
      codes = codes.at[:, row].add(added, mode="drop")
      read = read.at[row].set(1.0, mode="drop")
      if o.hidden and not o.apart:
        unit = jnp.where(table["real"][:, None], table["unit"], 0)
        kept = keep.at[row].get(mode="clip")[:, None, None]
        units = units.at[unit].add(kept * self._units(program, answers))
    codes, read = codes * keep[None, :, None], read * keep
    if not o.hidden or o.apart:
      return None, codes, read
    of_chunks = units.at[0].set(0)[batch.tables["chunks"]["unit"]]
    return of_chunks, codes, read

  def _make(self):
    """Makes the parameters, whether the batch has what can be run or not."""
    o = self.options
    spec = families.build("mlp", widths=(1, 1, max(self.seen.outputs, 1)))
    program = programs.Plan([spec]).programs[0]
    self.probes((1,))
    units = sum(count for _, count in program.levels)
    of_units = jnp.zeros((1, units, o.grid**2, o.readers * o.inputs))
    answers = running.Answers(
      outputs=jnp.zeros((1, o.readers * o.inputs, self.seen.outputs)),
      before=of_units,
      after=of_units,
      is_unit=jnp.ones((1, units), bool),
    )
    self._codes(program, answers, True)
    if o.hidden and not o.apart:
      self._units(program, answers)

  def _kept(self, count: int, deterministic: bool):
    """Returns 1 for networks whose answers are read, 0 for others, `[B]`."""
    if deterministic or not self.options.drop:
      return jnp.ones(count)
    share = 1 - self.options.drop
    key = self.make_rng("dropout")
    return jax.random.bernoulli(key, share, (count,)).astype(jnp.float32)

  def _codes(self, program, answers: running.Answers, deterministic: bool):
    """Returns what each reader adds to codes, `[R, N, h]`."""
    count, read = self.options.inputs, []
    for place, reader in enumerate(self.readers):
      own = slice(place * count, (place + 1) * count)
      part = answers._replace(outputs=answers.outputs[:, own])
      if answers.before is not None:
        before, after = answers.before[..., own], answers.after[..., own]
        part = part._replace(before=before, after=after)
      read.append(reader(program, part, deterministic))
    return jnp.stack(read)

  def _units(self, program, answers: running.Answers):
    """Returns what answers add to the chunks of units, `[N, U, h]`."""
    is_pooled = self.options.order == "pooled"
    of_level = features.survey_units if is_pooled else features.units
    x = [
      of_level(before, after, mask)
      for before, after, mask in running.by_level(program, answers)
    ]
    x = nn.gelu(self.unit_hidden(jnp.concatenate(x, axis=1)))
    return self.unit_code(x)
