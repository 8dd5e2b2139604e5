"""How a population is cut: over devices, and on each into tiles.

A device works through its members in tiles, small enough that what a step
computes stays in a CPU's cache; on an accelerator one tile is all members.

Dimensions: none; functions are of one member and mapped over members.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sne_jax.networks import families
from sne_jax.networks import spec as spec_lib

CACHE_BYTES = 1 << 20
"""What a tile's activations may take on a CPU."""

STEP_BYTES = 12 << 20
"""What the activations of a member should take on a CPU, at most.

A larger batch takes its gradient in equal parts: a quarter faster.
"""

LEAST_PART = 32
"""Images of such a part, at least: fewer are slower again."""

AXIS = "members"
OWN, ALL = jax.sharding.PartitionSpec(AXIS), jax.sharding.PartitionSpec()
"""Whether an argument is a member's own, or the same for all."""


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


def even_slots(count: int, tile: int, num_devices: int) -> int:
  """Returns the least slots for `count` members that divide evenly.

  Over devices first, and on each into tiles of equal size, `tile` at most.
  """
  each = math.ceil(count / num_devices)
  tiles = math.ceil(each / tile)
  return math.ceil(each / tiles) * tiles * num_devices


def mesh(devices: Sequence[Any]) -> jax.sharding.Mesh:
  """Returns the mesh that members are cut over."""
  return jax.sharding.Mesh(np.array(devices), (AXIS,))


def over_members(fn, specs, devices, tile: int):
  """Maps a function over members (the arguments of spec `OWN`), in tiles."""
  axes = tuple(0 if s is OWN else None for s in specs)

  def local(*args):
    mine = [a for a, s in zip(args, specs, strict=True) if s is OWN]

    def one_tile(part):
      parts = iter(part)
      filled = [
        next(parts) if s is OWN else a for a, s in zip(args, specs, strict=True)
      ]
      return jax.vmap(fn, in_axes=axes)(*filled)

    count = jax.tree.leaves(mine)[0].shape[0]
    size = max(d for d in range(1, min(tile, count) + 1) if count % d == 0)
    if size == count:
      return one_tile(mine)
    cut = lambda a: a.reshape(count // size, size, *a.shape[1:])
    results = jax.lax.map(one_tile, jax.tree.map(cut, mine))
    return jax.tree.map(lambda a: a.reshape(count, *a.shape[2:]), results)

  return jax.shard_map(
    local, mesh=mesh(devices), in_specs=specs, out_specs=OWN, check_vma=False
  )
