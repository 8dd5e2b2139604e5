"""Trains a population of image classifiers, every one as if it were alone.

All members of a population share the program: architecture and optimiser.
Whatever else differs between them is an array over members. They take their
steps together; an epoch is as many steps as all training images take, also
for a member that sees only a share of them and so sees those more often.

How members are cut over devices and into tiles is in `image_tiles`.

Dimensions: `S` members trained together, `P` weights of a network, `N`
training images, `A` all images, `D` pixels of an image, `B` images of a step,
`E` images that are evaluated on.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, UInt8, UInt32

from sne_jax.networks import families
from sne_jax.networks import spec as spec_lib
from sne_jax.networks.families import layers
from sne_jax.zoo.classifiers import tiles
from sne_jax.zoo.classifiers.tiles import ALL, OWN

OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
  "sgd": optax.identity,
  "momentum": lambda: optax.trace(decay=0.9),
  "adam": optax.scale_by_adam,
  "rmsprop": lambda: optax.scale_by_rms(decay=0.9),
}
"""Optimisers, without their learning rates."""

BLOCK = 250
"""Images that a member is evaluated on at a time."""

# What a member's key is folded with, for each of its random draws.
_WEIGHTS, _SUBSET, _NOISE, _ORDER, _DROPOUT = range(5)

# For programs that run once: compiling would take longer than running.
_ONCE = {"xla_backend_optimization_level": "0"}


class Hyper(NamedTuple):
  """What differs between members; all arrays over members."""

  key: UInt32[Array | np.ndarray, "S 2"]  # Raw: the source of all draws.
  learning_rate: Float[Array | np.ndarray, "S"]
  weight_decay: Float[Array | np.ndarray, "S"]
  dropout: Float[Array | np.ndarray, "S"]
  label_noise: Float[Array | np.ndarray, "S"]
  num_images: Int[Array | np.ndarray, "S"]  # Training images that it sees.
  init_std: Float[Array | np.ndarray, "S"]
  init_scale: Float[Array | np.ndarray, "S"]


class Data(NamedTuple):
  """Images as a device holds them: those for training first."""

  pixels: UInt8[Array | np.ndarray, "A D"]
  labels: Int[Array | np.ndarray, "A"]


class View(NamedTuple):
  """What a member makes of the training images."""

  subset: Int[Array, "S N"]  # Its own images first, then the others.
  labels: Int[Array, "S N"]  # With noise, of every training image.


class FitState(NamedTuple):
  """Networks in training, as tensors."""

  tensors: Any  # By name, float [S, ...].
  optimizer: Any
  mask: Any = None  # Which weights change, as tensors; None: all.


class Metrics(NamedTuple):
  """Accuracy and mean loss of every member on some images.

  `correct` says which images it classifies rightly, real or not.
  """

  accuracy: Float[Array, "S"]
  loss: Float[Array, "S"]
  correct: Bool[Array, "S E"]


@functools.lru_cache(maxsize=8)  # Each holds programs.
def make_epoch_fn(
  spec: spec_lib.NetworkSpec,
  optimizer: str,
  *,
  num_train: int,
  num_classes: int,
  batch_size: int,
  dropout: bool,
  devices: tuple[Any, ...],
) -> Callable[..., FitState]:
  """Returns the compiled function that trains a population for an epoch.

  It is kept, as those below are: data sets and batches share programs.

  The loss is the cross-entropy. Weight decay is L2 on weights, not on biases:
  `weight_decay * w` is added to the gradient.

  Args:
    spec: of all members.
    optimizer: one of `OPTIMIZERS`.
    num_train: `N`.
    num_classes: of the labels; noisy labels are drawn from these.
    batch_size: `B`.
    dropout: whether any member has it; False saves its time.
    devices: the members are cut over these, evenly.

  Returns:
    `epoch(state, hyper, view, data, number) -> FitState`; epochs are numbered
    from 0. The state that is given is gone.
  """
  transform = OPTIMIZERS[optimizer]()
  decayed = _decayed(spec)
  steps = math.ceil(num_train / batch_size)
  parts = tiles.step_parts(spec, batch_size, devices[0].platform)
  size = batch_size // parts

  def gradient_fn(tensors, hyper, order, labels, data, seed, first):
    places = order[(first + jnp.arange(size)) % hyper.num_images]
    x = jax.lax.optimization_barrier(_images(spec, data, places))
    y = labels[places]

    def loss_fn(tensors):
      drop = functools.partial(_drop, hyper.dropout, seed)
      hidden = drop if dropout else layers.keep
      return _losses(families.run(spec, tensors, x, hidden), y).mean()

    return jax.grad(loss_fn)(tensors)

  def step_fn(state, hyper, order, labels, data, seed, step):
    def part(number):
      return gradient_fn(
        state.tensors,
        hyper,
        order,
        labels,
        data,
        (seed + step) * jnp.uint32(parts) + number.astype(jnp.uint32),
        step * batch_size + number * size,
      )

    gradients = part(jnp.uint32(0))
    for number in range(1, parts):
      gradients = jax.tree.map(jnp.add, gradients, part(jnp.uint32(number)))
    if parts > 1:
      gradients = jax.tree.map(lambda g: g / parts, gradients)
    gradients = {
      name: g + hyper.weight_decay * state.tensors[name]
      if name in decayed
      else g
      for name, g in gradients.items()
    }
    if state.mask is not None:  # What is 0, and is left out, stays exactly 0.
      gradients = {
        name: jnp.where(state.mask[name], g, 0) for name, g in gradients.items()
      }
    updates, inner = transform.update(gradients, state.optimizer, state.tensors)
    tensors = jax.tree.map(
      lambda w, u: w - hyper.learning_rate * u, state.tensors, updates
    )
    return FitState(tensors, inner, state.mask)

  def epoch_fn(state, hyper, view, data, number):
    key = _key(hyper.key)
    order = _order(key, number, view.subset, hyper.num_images)
    bits = jax.random.bits(jax.random.fold_in(key, _DROPOUT), (), jnp.uint32)
    seed = bits + jnp.uint32(steps) * number.astype(jnp.uint32)

    def body(step, state):
      return step_fn(
        state, hyper, order, view.labels, data, seed, step.astype(jnp.uint32)
      )

    return jax.lax.fori_loop(0, steps, body, state)

  mapped = tiles.over_members(
    epoch_fn,
    (OWN, OWN, OWN, ALL, ALL),
    devices,
    tiles.tile_members(spec, batch_size, devices[0].platform),
  )
  return jax.jit(mapped, donate_argnums=0)


@functools.lru_cache(maxsize=8)
def make_evaluate_fn(
  spec: spec_lib.NetworkSpec, devices: tuple[Any, ...]
) -> Callable[..., Metrics]:
  """Returns the compiled function that evaluates a population.

  Returns:
    `evaluate(tensors, data, places [S, E], labels [S, E], real [S, E]) ->
    Metrics`, over the images at `places` that are real; `E` is a multiple of
    `BLOCK`.
  """

  def evaluate_fn(tensors, data, places, labels, real):
    def block(sums, part):
      places, labels, real = part
      logits = families.run(spec, tensors, _images(spec, data, places))
      right = jnp.argmax(logits, axis=-1) == labels
      losses = jnp.where(real, _losses(logits, labels), 0.0)
      return (sums[0] + (right & real).sum(), sums[1] + losses.sum()), right

    blocks = jax.tree.map(
      lambda a: a.reshape(-1, BLOCK), (places, labels, real)
    )
    (right, loss), each = jax.lax.scan(
      block, (jnp.int32(0), jnp.float32(0)), blocks
    )
    count = real.sum()
    return Metrics(right / count, loss / count, each.reshape(-1))

  mapped = tiles.over_members(
    evaluate_fn,
    (OWN, ALL, OWN, OWN, OWN),
    devices,
    tiles.tile_members(spec, BLOCK, devices[0].platform),
  )
  return jax.jit(mapped)


@functools.lru_cache(maxsize=8)
def make_start_fn(
  spec: spec_lib.NetworkSpec, initializer: str, biases: str = "constant"
) -> Callable[[Hyper], dict[str, Array]]:
  """Returns the compiled function that draws the first weights of members.

  What follows a layer does not matter to it: a spec without activations gives
  the same draws, and specs that differ in them share a program.
  """
  decayed = _decayed(spec)

  def start_fn(hyper):
    key = jax.random.fold_in(_key(hyper.key), _WEIGHTS)
    weights = families.init(
      spec, key, initializer, std=hyper.init_std, biases=biases
    )
    return {
      name: value * hyper.init_scale if name in decayed else value
      for name, value in spec.unflatten(weights).items()
    }

  return jax.jit(jax.vmap(start_fn), compiler_options=_ONCE)


def make_view_fn(
  num_train: int, num_classes: int
) -> Callable[[Hyper, Array], View]:
  """Returns the compiled function that draws the members' views.

  It is given the members, and the labels `[N]` as they are.
  """

  def view_fn(hyper, labels):
    key = _key(hyper.key)
    subset = jax.random.permutation(
      jax.random.fold_in(key, _SUBSET), num_train
    ).astype(jnp.int32)
    keys = jax.random.split(jax.random.fold_in(key, _NOISE))
    noisy = jax.random.uniform(keys[0], (num_train,)) < hyper.label_noise
    drawn = jax.random.randint(keys[1], (num_train,), 0, num_classes)
    return View(subset, jnp.where(noisy, drawn, labels))

  return jax.jit(jax.vmap(view_fn, in_axes=(0, None)), compiler_options=_ONCE)


def hold(
  pixels: UInt8[np.ndarray, "A C H W"],
  labels: Int[np.ndarray, "A"],
  devices: tuple[Any, ...],
) -> Data:
  """Puts a copy of all images on every device."""
  everywhere = jax.sharding.NamedSharding(tiles.mesh(devices), ALL)
  data = Data(pixels.reshape(len(pixels), -1), labels)
  return jax.device_put(data, everywhere)


def draw(
  spec: spec_lib.NetworkSpec,
  initializer: str,
  hyper: Hyper,
  biases: str = "constant",
) -> dict[str, np.ndarray]:
  """Returns the first weights of members, as tensors on the host."""
  bare = dataclasses.replace(spec, activations=())
  return jax.tree.map(
    np.asarray, make_start_fn(bare, initializer, biases)(hyper)
  )


def same_hyper(
  key: UInt32[np.ndarray, "S 2"], num_images: int, **values: float
) -> Hyper:
  """Returns members that differ in their keys alone; 0 what is not given."""
  values = dict.fromkeys(Hyper._fields[1:], 0.0) | {"init_scale": 1.0} | values
  full = {k: np.full(len(key), v, np.float32) for k, v in values.items()}
  numbers: Any = full | {"num_images": np.full(len(key), num_images, np.int32)}
  return Hyper(key=key, **numbers)


def begin(
  optimizer: str,
  tensors: dict[str, Float[np.ndarray, "S ..."]],
  mask: dict[str, Bool[np.ndarray, "S ..."]] | None = None,
) -> FitState:
  """Returns networks that have taken no step, on the host."""
  inner = jax.vmap(OPTIMIZERS[optimizer]().init)(tensors)
  return FitState(tensors, jax.tree.map(np.asarray, inner), mask)


def member_keys(seed: int, numbers: np.ndarray) -> UInt32[np.ndarray, "S 2"]:
  """Returns the raw keys of members: functions of seed and number alone."""
  root = jax.random.key(seed, impl="threefry2x32")
  keys = jax.vmap(functools.partial(jax.random.fold_in, root))(numbers)
  return np.asarray(jax.random.key_data(keys))


def _decayed(spec: spec_lib.NetworkSpec) -> frozenset[str]:
  """Names of the tensors that weight decay and the initial scale act on."""
  return frozenset(
    t.name for t in spec.tensors if t.kind in spec_lib.WEIGHT_KINDS
  )


def _images(spec, data: Data, places: Int[Array, "B"]) -> Array:
  """Returns images as a network takes them, pixels in [-1, 1]."""
  x = data.pixels[places].astype(jnp.float32) / 127.5 - 1.0
  return x.reshape(places.shape[0], *tiles.image_shape(spec))


def _key(raw: UInt32[Array, "2"]) -> Array:
  return jax.random.wrap_key_data(raw, impl="threefry2x32")


def _order(key, epoch, subset, num_images):
  """Returns a member's images in the order of an epoch.

  The first `num_images` of the subset, shuffled; then the others.
  """
  key = jax.random.fold_in(jax.random.fold_in(key, _ORDER), epoch)
  bits = jax.random.bits(key, subset.shape, jnp.uint32) >> 1
  inside = jnp.arange(subset.shape[0]) < num_images
  rank = jnp.where(inside, bits, jnp.uint32(0xFFFFFFFF))
  return jax.lax.sort_key_val(rank, subset)[1]


def _losses(logits: Float[Array, "B O"], y: Int[Array, "B"]) -> Array:
  """Cross-entropy of every image."""
  shifted = logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
  wanted = jax.nn.one_hot(y, logits.shape[-1], dtype=logits.dtype)
  total = jnp.log(jnp.exp(shifted).sum(axis=-1))
  return total - (shifted * wanted).sum(axis=-1)


def _drop(
  rate: Float[Array, ""],
  seed: UInt32[Array, ""],
  level: int,
  x: Float[Array, "..."],
) -> Float[Array, "..."]:
  """Sets a share of values to 0 and scales the others up.

  The choice is a hash of place, level and seed: a full random generator would
  take as long as the network.
  """
  places = jnp.arange(x.size, dtype=jnp.uint32).reshape(x.shape)
  word = _mixed(seed * jnp.uint32(0x9E3779B9) + jnp.uint32(level + 1))
  word = _mixed(places ^ word)
  share = (word >> 8).astype(jnp.float32) * 2.0**-24
  return jnp.where(share < rate, 0.0, x / (1.0 - rate))


def _mixed(word: Array) -> Array:
  """Mixes the bits of 32-bit words: multiplications and shifts."""
  word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
  word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
  return word ^ (word >> 16)
