"""Zoos of sine INRs: small networks, each fitted to a sine wave of its own.

The task of the field: from the weights alone, say which frequency a network
was fitted to. A zoo is generated in batches; finished batches are kept beside
the zoo, so that a run that was broken off resumes where it was.

References:
  Navon et al., Equivariant Architectures for Learning in Deep Weight Spaces,
  ICML 2023, arXiv:2301.12780: the task (`frequency`), and the generator in the
  authors' code (`dws`).
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from sne_jax import room
from sne_jax.networks import families
from sne_jax.networks import spec as spec_lib
from sne_jax.networks.checked import Checked, option
from sne_jax.zoo.inrs import fit as inr_fit
from sne_jax.zoo.inrs import makers as makers_lib
from sne_jax.zoo.store import partial as partial_lib
from sne_jax.zoo.store import splits, store, writing

GENERATOR = "sne_jax.zoo.inr"  # As zoos of before say it.
SPLIT = "default"
"""Name of the split that `generate_inr_zoo` makes."""

# Amplitudes, frequencies, and points, of each variant.
_VARIANTS = {
  "frequency": ((1.0, 1.0), (0.5, 10.0), 1000),
  "dws": ((0.0, 10.0), (0.0, 10.0), 2000),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class InrZooOptions(Checked):
  """Which sine INRs to train, and how. The defaults make the usual task.

  Attributes:
    num_networks: members of a zoo of sine INRs (sine:FOLDER).
    seed: a member is a function of the seed and its number alone.
    variant: frequency: y = sin(f x), f ~ U(0.5, 10). dws: y = a sin(f x), with
      a and f ~ U(0, 10), as in the code of the DWSNet authors.
    makers: who makes the networks, drawn for each: of published, sitzmann,
      pytorch, keras, flax, linear (sne_jax.zoo.inrs.makers), separated by
      commas. published alone is the zoo of the field: all members alike. Of
      several, optimisers, rates and lengths of the training vary too.
    points: points of x in [-pi, pi); 0: 1,000 for frequency, 2,000 for dws.
    hidden: neurons of a hidden layer.
    layers: hidden (sine) layers.
    w0: frequency inside a layer's sine.
    learning_rate: of Adam; of several makers, drawn around it.
    weight_decay: times the weights, added to the gradient.
    max_steps: a network is done after so many steps, or with its tolerance.
    tolerance: a network is done when its mean squared error is at most this.
    check_every: steps between two looks at the error.
    batch_members: networks trained together: the memory that a batch takes, and
      how much is lost when a run is broken off. 0: found from the memory that
      is free. It changes the weights by float rounding only.
  """

  num_networks: int = option(1500, least=1)
  seed: int = option(0, least=0)
  variant: str = option("frequency", choices=tuple(_VARIANTS))
  makers: str = makers_lib.PUBLISHED
  points: int = option(0, least=0)
  hidden: int = option(32, least=1)
  layers: int = option(2, least=1)
  w0: float = option(30.0, above=0)
  learning_rate: float = option(1e-3, above=0, flag=False)
  weight_decay: float = option(1e-4, least=0, flag=False)
  max_steps: int = option(1500, least=1)
  tolerance: float = option(1e-4, least=0, flag=False)
  check_every: int = option(25, least=1, flag=False)
  batch_members: int = option(100, least=0)

  def __post_init__(self):
    super().__post_init__()
    makers_lib.names(self.makers)

  @property
  def varied(self) -> makers_lib.Members | None:
    """How each network is made; None where all are made alike."""
    if self.makers == makers_lib.PUBLISHED:
      return None
    return makers_lib.draw(
      makers_lib.names(self.makers),
      *(self.seed, self.num_networks),
      max_steps=self.max_steps,
      check_every=self.check_every,
      tolerance=self.tolerance,
      rate=self.learning_rate,
      weight_decay=self.weight_decay,
    )

  @property
  def num_points(self) -> int:
    """Points of a wave, the variant's own number filled in."""
    return self.points or _VARIANTS[self.variant][2]


def inr_spec(options: InrZooOptions) -> spec_lib.NetworkSpec:
  """Returns the spec of the zoo's networks."""
  widths = (1, *(options.hidden,) * options.layers, 1)
  return families.inr(widths, w0=options.w0)


def wave_points(options: InrZooOptions) -> np.ndarray:
  """Returns where the waves are sampled, float32, evenly in [-pi, pi)."""
  step = 2 * np.pi / options.num_points
  return (np.arange(options.num_points) * step - np.pi).astype(np.float32)


def generate_inr_zoo(
  path: str | os.PathLike,
  options: InrZooOptions,
  *,
  split: Mapping[str, int] | None = None,
  progress: partial_lib.Progress | None = None,
) -> store.Zoo:
  """Generates a zoo of sine INRs, or opens it if it is there already.

  Properties: `frequency`, `amplitude`, `reconstruction_error`, `steps`,
  `converged`; with several makers also `maker`, `optimizer` and
  `learning_rate`. A network whose error is not finite is kept, as not valid.

  The same options on the same kind of device give the same bytes, whether the
  run was broken off and started again or not. Finished batches are in
  `<path>.partial` until the zoo is complete.

  Args:
    path: folder of the zoo.
    options: what to generate.
    split: members of each part (train, val, test) of the split "default",
      drawn with the seed of `options`; None makes no split, and accepts that
      the zoo that is there has one.
    progress: is called when networks are done; the caller draws it.

  Returns:
    The zoo, opened.

  Raises:
    ZooError: another process generates here, or `path` or `<path>.partial`
      hold a zoo of other options, which the message names.
    ValueError: the split asks for more members than there are.
  """
  ids = member_ids(options)
  provenance = _provenance(options, split)
  parts = {}
  if split is not None:
    parts[SPLIT] = splits.random_split(ids, seed=options.seed, parts=split)

  def make(folder: str, batch: int) -> store.Zoo:
    fit = _fit_all(folder, options, batch, progress or (lambda *_: None))
    amplitude, frequency = member_waves(options)
    finite = np.isfinite(fit.weights).all(axis=1) & np.isfinite(fit.error)
    converged = fit.error <= options.tolerance
    return writing.write_zoo(
      path,
      specs=[inr_spec(options)],
      weights=[fit.weights],
      ids=ids,
      valid=finite,
      properties={
        "frequency": writing.Property(
          frequency, "f of the wave a sin(f x)", "radians per unit of x"
        ),
        "amplitude": writing.Property(amplitude, "a of the wave a sin(f x)"),
        "reconstruction_error": writing.Property(
          fit.error, "mean squared error of the network on its points"
        ),
        "steps": writing.Property(fit.steps, "training steps", "steps"),
        "converged": writing.Property(
          converged, "whether the error is at most the tolerance"
        ),
        **_made(options.varied),
      },
      splits=parts,
      provenance=provenance | {"batch_members": batch},
      licence="CC0-1.0",
      staging=partial_lib.staging(folder),
    )

  return partial_lib.make_zoo(
    path,
    provenance,
    batch_members=min(options.batch_members, options.num_networks),
    find_batch_members=lambda: min(
      free_batch_members(options), options.num_networks
    ),
    make=make,
    size=room.of_zoo(len(ids), inr_spec(options).num_weights, 5),
  )


def member_ids(options: InrZooOptions) -> list[str]:
  """Returns the ids of the members, in order."""
  return [f"inr-{options.seed}-{n:06d}" for n in range(options.num_networks)]


def member_waves(options: InrZooOptions) -> tuple[np.ndarray, np.ndarray]:
  """Returns amplitude and frequency of every member, float64 `[M]`.

  Drawn from raw random words, so that no version of numpy changes them.
  """
  words = np.stack(
    [
      np.random.PCG64(np.random.SeedSequence((options.seed, n))).random_raw(2)
      for n in range(options.num_networks)
    ]
  )
  share = (words >> np.uint64(11)) * 2.0**-53  # [M, 2], in [0, 1)
  amplitudes, frequencies, _ = _VARIANTS[options.variant]
  return _between(amplitudes, share[:, 0]), _between(frequencies, share[:, 1])


def _between(ends: tuple[float, float], share: np.ndarray) -> np.ndarray:
  return ends[0] + (ends[1] - ends[0]) * share


def _provenance(options: InrZooOptions, split) -> dict[str, Any]:
  """Returns what makes two zoos the same, as plain values."""
  values = dataclasses.asdict(options)
  del values["batch_members"]
  if options.makers == makers_lib.PUBLISHED:  # As zoos of before say it.
    del values["makers"]
  values["points"] = options.num_points
  values["split"] = dict(split) if split is not None else None
  return {"generator": GENERATOR, "seed": options.seed, "options": values}


def _made(varied: makers_lib.Members | None) -> dict[str, writing.Property]:
  """Returns the properties that say how networks were made."""
  if varied is None:
    return {}
  return {
    "maker": writing.Property(np.array(varied.maker), "who made the network"),
    "optimizer": writing.Property(np.array(varied.optimizer), "optimiser"),
    "learning_rate": writing.Property(
      np.asarray(varied.hyper.rate, np.float64), "of the optimiser, constant"
    ),
  }


@functools.lru_cache(maxsize=4)
def fit_fns(options: InrZooOptions) -> tuple[Callable, Callable]:
  """Returns what `inr_fit.make_fit_fn` gives, compiled once."""
  if options.makers != makers_lib.PUBLISHED:
    return makers_lib.make_fit_fn(inr_spec(options), wave_points(options))
  return inr_fit.make_fit_fn(
    inr_spec(options),
    wave_points(options),
    learning_rate=options.learning_rate,
    weight_decay=options.weight_decay,
  )


def _fit_all(
  folder: str,
  options: InrZooOptions,
  batch: int,
  progress: partial_lib.Progress,
) -> inr_fit.Fit:
  """Trains the batches that are not there yet; returns all networks."""
  total = options.num_networks
  spec, x = inr_spec(options), wave_points(options)
  amplitude, frequency = member_waves(options)
  devices = jax.local_devices()
  start, advance = fit_fns(options)
  key = jax.random.key(options.seed, impl="threefry2x32")
  varied = options.varied

  def fit(first: int, count: int) -> dict[str, np.ndarray]:
    members = np.arange(first, first + count)
    # In float64, then rounded: independent of the device's sine.
    targets = amplitude[members, None] * np.sin(
      frequency[members, None] * x[None, :].astype(np.float64)
    )
    keys: Any = jax.vmap(functools.partial(jax.random.fold_in, key))(members)
    most: Any = (options.max_steps, options.tolerance)
    if varied is not None:
      keys = (keys, jax.tree.map(lambda a: a[members], varied.hyper))
      most = (varied.max_steps[members], varied.tolerance[members])
    fitted = inr_fit.fit_batch(
      spec,
      start,
      advance,
      keys,
      targets.astype(np.float32),
      sizes=inr_fit.batch_sizes(batch, len(devices)),
      devices=devices,
      max_steps=most[0],
      check_every=options.check_every,
      tolerance=most[1],
      on_done=lambda done: progress(first + done, total, "training networks"),
    )
    return fitted._asdict()

  return inr_fit.in_parts(folder, total, batch, spec.num_weights, fit, progress)


def free_batch_members(options: InrZooOptions) -> int:
  """Returns how many networks can be trained together in the free memory.

  Takes a quarter of what is free for the batch; on CPU no more than 100,
  beyond which nothing is gained.
  """
  # Values of a layer, forward and back, with the sine and cosine of each.
  per_point = 4 * 6 * options.hidden * options.layers
  each = options.num_points * per_point + 32 * inr_spec(options).num_weights
  devices = jax.local_devices()
  fitting = len(devices) * (partial_lib.free_bytes(devices) // 4 // each)
  if devices[0].platform == "cpu":
    return max(1, min(100, fitting))
  return max(len(devices), min(8192 * len(devices), fitting))
