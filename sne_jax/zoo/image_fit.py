"""Trains a population of image classifiers, every one as if it were alone.

All members of a population share the program: architecture and optimiser.
Whatever else differs between them is an array over members. They take their
steps together; an epoch is as many steps as all training images take, also
for a member that sees only a share of them and so sees those more often.

A device works through its members in tiles, small enough that what a step
computes stays in a CPU's cache; on an accelerator one tile is all members.

Dimensions: `S` members trained together, `P` weights of a network, `N`
training images, `A` all images, `D` pixels of an image, `B` images of a step,
`E` images that are evaluated on.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8, UInt32

from sne_jax.networks import families
from sne_jax.networks import spec as spec_lib

OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
  "sgd": optax.identity,
  "momentum": lambda: optax.trace(decay=0.9),
  "adam": optax.scale_by_adam,
  "rmsprop": lambda: optax.scale_by_rms(decay=0.9),
}
"""Optimisers, without their learning rates."""

CACHE_BYTES = 1 << 20
"""What a tile's activations may take on a CPU."""

STEP_BYTES = 12 << 20
"""What the activations of a member should take on a CPU, at most.

A larger batch takes its gradient in equal parts: a quarter faster.
"""

LEAST_PART = 32
"""Images of such a part, at least: fewer are slower again."""

BLOCK = 250
"""Images that a member is evaluated on at a time."""

# What a member's key is folded with, for each of its random draws.
_WEIGHTS, _SUBSET, _NOISE, _ORDER, _DROPOUT = range(5)

_AXIS = "members"
_OWN, _ALL = jax.sharding.PartitionSpec(_AXIS), jax.sharding.PartitionSpec()

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


class Metrics(NamedTuple):
  """Accuracy and mean loss of every member on some images."""

  accuracy: Float[Array, "S"]
  loss: Float[Array, "S"]


def make_epoch_fn(
  spec: spec_lib.NetworkSpec,
  optimizer: str,
  *,
  num_train: int,
  num_classes: int,
  batch_size: int,
  dropout: bool,
  devices: Sequence[Any],
) -> Callable[..., FitState]:
  """Returns the compiled function that trains a population for an epoch.

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
  parts = step_parts(spec, batch_size, devices[0].platform)
  size = batch_size // parts

  def gradient_fn(tensors, hyper, order, labels, data, seed, first):
    places = order[(first + jnp.arange(size)) % hyper.num_images]
    x = jax.lax.optimization_barrier(_images(spec, data, places))
    y = labels[places]

    def loss_fn(tensors):
      hidden = functools.partial(_drop, hyper.dropout, seed)
      extra = (hidden,) if dropout else ()
      return _losses(families.run(spec, tensors, x, *extra), y).mean()

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
    updates, inner = transform.update(gradients, state.optimizer, state.tensors)
    tensors = jax.tree.map(
      lambda w, u: w - hyper.learning_rate * u, state.tensors, updates
    )
    return FitState(tensors, inner)

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

  mapped = _over_members(
    epoch_fn,
    (_OWN, _OWN, _OWN, _ALL, _ALL),
    devices,
    tile_members(spec, batch_size, devices[0].platform),
  )
  return jax.jit(mapped, donate_argnums=0)


def make_evaluate_fn(
  spec: spec_lib.NetworkSpec, devices: Sequence[Any]
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
      return (sums[0] + (right & real).sum(), sums[1] + losses.sum()), None

    blocks = jax.tree.map(
      lambda a: a.reshape(-1, BLOCK), (places, labels, real)
    )
    (right, loss), _ = jax.lax.scan(
      block, (jnp.int32(0), jnp.float32(0)), blocks
    )
    return Metrics(right / real.sum(), loss / real.sum())

  mapped = _over_members(
    evaluate_fn,
    (_OWN, _ALL, _OWN, _OWN, _OWN),
    devices,
    tile_members(spec, BLOCK, devices[0].platform),
  )
  return jax.jit(mapped)


def make_start_fn(
  spec: spec_lib.NetworkSpec, initializer: str
) -> Callable[[Hyper], dict[str, Array]]:
  """Returns the compiled function that draws the first weights of members."""
  decayed = _decayed(spec)

  def start_fn(hyper):
    key = jax.random.fold_in(_key(hyper.key), _WEIGHTS)
    weights = families.init(spec, key, initializer, std=hyper.init_std)
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


def begin(
  optimizer: str, tensors: dict[str, Float[np.ndarray, "S ..."]]
) -> FitState:
  """Returns networks that have taken no step, on the host."""
  inner = jax.vmap(OPTIMIZERS[optimizer]().init)(tensors)
  return FitState(tensors, jax.tree.map(np.asarray, inner))


def member_keys(seed: int, numbers: np.ndarray) -> UInt32[np.ndarray, "S 2"]:
  """Returns the raw keys of members: functions of seed and number alone."""
  root = jax.random.key(seed, impl="threefry2x32")
  keys = jax.vmap(functools.partial(jax.random.fold_in, root))(numbers)
  return np.asarray(jax.random.key_data(keys))


def image_shape(spec: spec_lib.NetworkSpec) -> tuple[int, ...]:
  """Returns the shape of a network's input; of an mlp, flat."""
  flat = (spec.tensors[0].shape[-1],)
  return tuple(dict(spec.options).get("image_shape", flat))


@functools.lru_cache(maxsize=4096)
def activation_bytes(spec: spec_lib.NetworkSpec, batch_size: int) -> int:
  """Returns the bytes of all that a forward pass computes for one member.

  Of the traced program: what a compiler fuses is counted too.
  """
  tensors = {
    t.name: jax.ShapeDtypeStruct(t.shape, jnp.float32) for t in spec.tensors
  }
  x = jax.ShapeDtypeStruct((batch_size, *image_shape(spec)), jnp.float32)
  traced = jax.make_jaxpr(functools.partial(families.run, spec))(tensors, x)
  return sum(
    math.prod(v.aval.shape) * 4  # pyright: ignore[reportAttributeAccessIssue]
    for equation in traced.jaxpr.eqns
    for v in equation.outvars
  )


def tile_members(
  spec: spec_lib.NetworkSpec, batch_size: int, platform: str
) -> int:
  """Returns how many members a device trains side by side, at most."""
  if platform != "cpu":
    return 1 << 30
  return max(1, CACHE_BYTES // activation_bytes(spec, batch_size))


def step_parts(
  spec: spec_lib.NetworkSpec, batch_size: int, platform: str
) -> int:
  """Returns in how many equal parts a member's batch is best taken."""
  if platform != "cpu":
    return 1
  most = max(1, batch_size // LEAST_PART)
  counts = [p for p in range(1, most + 1) if batch_size % p == 0]
  for parts in counts:
    if activation_bytes(spec, batch_size // parts) <= STEP_BYTES:
      return parts
  return counts[-1]


def _decayed(spec: spec_lib.NetworkSpec) -> frozenset[str]:
  """Names of the tensors that weight decay and the initial scale act on."""
  return frozenset(
    t.name for t in spec.tensors if t.kind in spec_lib.WEIGHT_KINDS
  )


def _images(spec, data: Data, places: Int[Array, "B"]) -> Array:
  """Returns images as a network takes them, pixels in [-1, 1]."""
  x = data.pixels[places].astype(jnp.float32) / 127.5 - 1.0
  return x.reshape(places.shape[0], *image_shape(spec))


def _mesh(devices: Sequence[Any]) -> jax.sharding.Mesh:
  return jax.sharding.Mesh(np.array(devices), (_AXIS,))


def _over_members(fn, specs, devices, tile: int):
  """Maps a function over members (the arguments of spec `_OWN`), in tiles."""
  axes = tuple(0 if s is _OWN else None for s in specs)

  def local(*args):
    mine = [a for a, s in zip(args, specs, strict=True) if s is _OWN]

    def one_tile(part):
      parts = iter(part)
      filled = [
        next(parts) if s is _OWN else a
        for a, s in zip(args, specs, strict=True)
      ]
      return jax.vmap(fn, in_axes=axes)(*filled)

    count = jax.tree.leaves(mine)[0].shape[0]
    size = max(d for d in range(1, min(tile, count) + 1) if count % d == 0)
    if size == count:
      return one_tile(mine)
    cut = lambda a: a.reshape(count // size, size, *a.shape[1:])
    made = jax.lax.map(one_tile, jax.tree.map(cut, mine))
    return jax.tree.map(lambda a: a.reshape(count, *a.shape[2:]), made)

  return jax.shard_map(
    local, mesh=_mesh(devices), in_specs=specs, out_specs=_OWN, check_vma=False
  )


def even_slots(count: int, tile: int, num_devices: int) -> int:
  """Returns the least slots for `count` members that divide evenly.

  Over devices first, and on each into tiles of equal size, `tile` at most.
  """
  each = math.ceil(count / num_devices)
  tiles = math.ceil(each / tile)
  return math.ceil(each / tiles) * tiles * num_devices


def _key(raw: UInt32[Array, "2"]) -> Array:
  return jax.random.wrap_key_data(raw, impl="threefry2x32")


def _order(key, epoch, subset, num_images):
  """Returns a member's images in the order of an epoch.

  The first `num_images` of the subset, shuffled; then the others.
  """
  key = jax.random.fold_in(jax.random.fold_in(key, _ORDER), epoch)
  bits = jax.random.bits(key, subset.shape, jnp.uint32) >> 1
  own = jnp.arange(subset.shape[0]) < num_images
  rank = jnp.where(own, bits, jnp.uint32(0xFFFFFFFF))
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
