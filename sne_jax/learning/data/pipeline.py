"""The host's part of a step: which networks, moved how, packed.

A batch is a pure function of `(seed, step)`: the members from `zoo.batching`,
the group elements and augmentations from a generator seeded with both. It
carries a leading axis of sub-batches, and is the same whatever their number:
they share out its networks, whose order is by architecture. The arrays of all
sub-batches have one shape, and so have nearly all batches of a mixed zoo.

Dimensions: `N` members, `P` weights of one, `b` networks per sub-batch, `S`
sub-batches, `T` targets.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sne_jax.encoders import interface
from sne_jax.encoders.batches import buckets
from sne_jax.learning.data import mixing
from sne_jax.learning.data.dataset import Networks
from sne_jax.networks import augment, families, noise, symmetry
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.spec import NetworkSpec
from sne_jax.zoo import batching


class Batch(NamedTuple):
  """One step's networks; leading axis `S` while training."""

  packed: Any  # the encoder's arrays; with pairs, networks then moved ones
  targets: Any  # float32 [b, T], scaled


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions(Checked):
  """Options of batches and of how networks are moved while training.

  Attributes:
    batch_size: networks per step, over all devices.
    micro_batches: in so many parts a device takes its networks of a step, one
      after the other; the gradients are averaged. Less memory, and on a CPU
      often less time, for the arrays of a part then stay in its cache.
    augment_permutation: permute hidden neurons anew at every step. It does
      nothing to an encoder that is exactly invariant.
    augment_signs: flip the signs of neurons with an odd activation (tanh,
      sine) anew at every step; the network's function stays the same. On by
      default: the best of all that was measured has it (docs/results).
    augment_pi_shifts: shift the phases of sine neurons by up to so many times
      pi anew at every step; the network's function stays the same. 0: none.
    augment_scales: scale neurons with a homogeneous activation (relu, leaky
      relu) up or down anew at every step, by up to 1 plus this; the network's
      function stays the same. 0: none.
    augment_noise: standard deviation of noise on weights, as a share of each
      tensor's own standard deviation; 0: none.
    augment_mask: share of the weights that are set to 0, drawn anew at every
      step; the others are scaled up, so that means stay. 0: none.
    augment_quantile: up to this share of a network's weights, the smallest by
      size, are set to 0; 0: none.
    augment_translate: shift the input of coordinate networks by up to this
      much; the properties must not depend on the phase.
    augment_rotate: rotate the input of networks of two coordinates by up to so
      many degrees, either way; the properties must not depend on it. 0: none.
    augment_zoom: stretch the input of coordinate networks by a factor between 1
      less and 1 plus this; the properties must not depend on it. 0: none.
    augment_offset: add a constant to all outputs, by up to this much either
      way: a classifier stays the same function, but for its logits' mean; the
      mean of a signal moves, on which the properties must not depend.
    augment_biases: add to biases what others begin with, anew at every step: up
      to this share of what PyTorch draws. Who began with 0 is then no longer
      known by that. 0: none.
    augment_mixup: weights and targets between those of two networks of one
      architecture, at a random share: none, plain, permuted (the neurons of one
      are shuffled first) or aligned (its neurons are matched to the other's, by
      linear assignment on the host: some milliseconds per network). Mixed
      first, before all else. Classes are mixed as probabilities.
    fold_phases: turn the phases of sine neurons back to the half turn around 0,
      in training and in whatever is predicted; the network's function stays the
      same. Files of the training's anatomy are taken for such networks.
    assume_activation: activation of the hidden layers of networks whose files
      or zoo do not say it, such as relu: signs, scales and phases of neurons
      stay as they are where it is not known. Of none, relu, leaky_relu, gelu,
      silu, selu, tanh, sigmoid and sine.
  """

  batch_size: int = option(32, least=1)
  micro_batches: int = option(1, least=1)
  augment_permutation: bool = False
  augment_signs: bool = True
  augment_pi_shifts: int = option(0, least=0)
  augment_scales: float = option(0.0, least=0)
  augment_noise: float = option(0.0, least=0)
  augment_mask: float = option(0.0, least=0, below=1)
  augment_quantile: float = option(0.0, least=0, below=1)
  augment_translate: float = option(0.0, least=0)
  augment_rotate: float = option(0.0, least=0, most=180)
  augment_zoom: float = option(0.0, least=0, below=1)
  augment_offset: float = option(0.0, least=0)
  augment_biases: float = option(0.0, least=0)
  augment_mixup: str = option("none", choices=mixing.KINDS)
  fold_phases: bool = False
  assume_activation: str = option("", choices=("", *families.ACTIVATIONS))


def augmented(
  spec: NetworkSpec,
  vector: np.ndarray,
  options: DataOptions,
  rng: np.random.Generator,
) -> np.ndarray:
  """Returns a randomly moved copy of one network's weights `[P]`."""
  o = options
  spec = augment.assumed(spec, o.assume_activation)
  if o.augment_permutation:
    vector = vector[symmetry.draw_permutation(spec, rng)]
  if o.augment_signs and augment.sign_groups(spec):
    vector = vector * augment.draw_signs(spec, rng)
  if o.augment_pi_shifts:
    factor, offset = augment.draw_pi_shifts(spec, rng, o.augment_pi_shifts)
    vector = vector * factor + offset
  if o.augment_scales:
    most = 1 + o.augment_scales
    vector = vector * augment.draw_scales(spec, rng, 1 / most, most)
  if o.augment_translate:
    reach = o.augment_translate
    shift = rng.uniform(-reach, reach, spec.tensors[0].shape[1:])
    shift = shift.astype(np.float32)
    vector = np.asarray(augment.translate(spec, vector, shift))
  if o.augment_rotate:
    angle = math.radians(rng.uniform(-o.augment_rotate, o.augment_rotate))
    vector = np.asarray(augment.rotate(spec, vector, angle))
  if o.augment_zoom:
    factor = 1 + rng.uniform(-o.augment_zoom, o.augment_zoom)
    vector = np.asarray(augment.zoom(spec, vector, factor))
  if o.augment_offset:
    amount = rng.uniform(-o.augment_offset, o.augment_offset)
    vector = noise.shift_output(spec, vector, amount)
  if o.augment_biases:
    share = rng.uniform(0, o.augment_biases)
    vector = noise.draw_biases(spec, vector, share, rng)
  if o.augment_noise:
    vector = noise.add_noise(spec, vector, o.augment_noise, rng)
  if o.augment_mask:
    vector = noise.mask(vector, o.augment_mask, rng)
  if o.augment_quantile:
    vector = noise.drop_smallest(vector, rng.uniform(0, o.augment_quantile))
  return np.asarray(vector, np.float32)


class Pipeline:
  """Makes packed batches of networks for one encoder.

  Args:
    networks: the members to draw from.
    packer: the encoder's, for the same specs.
    options: batch size and augmentation.
    seed: root of everything that is drawn.
    pairs: whether every network is packed twice, the second time moved by a
      random group element (Logit Invariance).
    devices: that share every batch.
    place: puts a batch `[S, ...]` on the devices.
  """

  def __init__(
    self,
    networks: Networks,
    packer: interface.Packer,
    options: DataOptions,
    *,
    seed: int,
    pairs: bool = False,
    devices: int = 1,
    place: Callable[[Any], Any] = lambda batch: batch,
  ):
    parts = devices * options.micro_batches
    if options.batch_size % parts:
      raise ValueError(
        f"batch_size {options.batch_size} does not divide over {devices}"
        f" devices with micro_batches {options.micro_batches}; choose a"
        f" multiple of {parts}"
      )
    self._networks = networks
    self._packer = packer
    self._options = options
    self._seed = seed
    self._pairs = pairs
    self._parts = parts
    self._place = place
    self._mix = mixing.Mixer(
      networks.specs,
      networks.numbers,
      networks.vectors,
      networks.targets,
      options.augment_mixup,
    )
    self._sizes = packer.reserve(
      networks.numbers,
      options.batch_size // parts,
      copies=2 if pairs else 1,
    )
    self._template = functools.lru_cache(maxsize=8)(self._placed_template)

  def __call__(self, step: int) -> Batch:
    """Returns the batch of a step, `[S, ...]`, on the devices."""
    count = self._options.batch_size
    # Which members: of one architecture next to one another, so that the
    # sub-batches, which take every S-th, have nearly equal shapes.
    rows = batching.batch_rows(
      self._seed, step, count, np.arange(len(self._networks.numbers))
    )
    rng = np.random.default_rng([self._seed, step, 1])
    rows = rows[np.argsort(self._networks.numbers[rows], kind="stable")]
    # Mixed first, with their targets; then moved, and with pairs moved twice.
    vectors, mixed = zip(
      *(self._mix(row, rng) for row in rows.tolist()), strict=True
    )
    views = self._views(rows, vectors, rng)
    shares = [slice(d, None, self._parts) for d in range(self._parts)]
    numbers = tuple(
      tuple(self._networks.numbers[rows[share]].tolist()) * len(views)
      for share in shares
    )
    # Only weights and targets change from step to step: the template of a
    # list of specs is on the devices already.
    template = self._template(numbers)
    weights = [
      self._packer.flat(n, sum((v[share] for v in views), []), template.room)
      for n, share in zip(numbers, shares, strict=True)
    ]
    targets = np.asarray(mixed, np.float32)
    weights, targets = self._place(
      (np.stack(weights), np.stack([targets[share] for share in shares]))
    )
    return Batch(template._replace(weights=weights), targets)

  def _views(
    self,
    rows: np.ndarray,
    vectors: Sequence[np.ndarray],
    rng: np.random.Generator,
  ) -> list[list[np.ndarray]]:
    """Returns the networks of a batch, and with pairs their moved copies."""
    o, networks = self._options, self._networks
    specs = [networks.specs[n] for n in networks.numbers[rows]]
    vectors = [
      augmented(s, v, o, rng) for s, v in zip(specs, vectors, strict=True)
    ]
    if not self._pairs:
      return [vectors]
    moved = [
      v[symmetry.draw_permutation(s, rng)]
      for s, v in zip(specs, vectors, strict=True)
    ]
    return [vectors, moved]

  def _placed_template(self, numbers: tuple[tuple[int, ...], ...]):
    """Returns everything but the weights, on the devices, `[S, ...]`."""
    templates = self._packer.templates(numbers, self._sizes)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *templates)
    return self._place(stacked)


def fixed_batches(
  networks: Networks, packer: interface.Packer, batch_size: int
):
  """Yields `(members [b], packed)` over all networks, each once.

  Specs with at least `batch_size` networks have batches of their own, which
  are all of one shape. The networks of all others are mixed, small ones first.
  Batches that are not full are filled up with copies of their last member;
  `members` names the real ones.
  """
  numbers = np.asarray(networks.numbers)
  few = []
  for number in np.unique(numbers):
    members = np.flatnonzero(numbers == number)
    if len(members) < batch_size:
      few.append(members)
      continue
    for start in range(0, len(members), batch_size):
      yield _filled(networks, packer, members[start:][:batch_size], batch_size)
  if not few:
    return
  mixed = np.concatenate(few)
  lengths = np.array([s.num_weights for s in networks.specs])
  mixed = mixed[np.argsort(lengths[numbers[mixed]], kind="stable")]
  size = min(batch_size, buckets.round_up(len(mixed)))
  for start in range(0, len(mixed), size):
    yield _filled(networks, packer, mixed[start : start + size], size)


def _filled(
  networks: Networks, packer: interface.Packer, members: np.ndarray, size: int
):
  """Packs some networks, the last of them repeated up to `size`."""
  filled = np.concatenate(
    [members, np.repeat(members[-1:], size - len(members))]
  )
  vectors = [networks.vectors[m] for m in filled]
  return members, packer.pack(networks.numbers[filled], vectors)
