"""Data parallelism and micro-batches: sub-batches, averaged gradients.

A parallel batch is a tree whose arrays have a leading axis of `S` sub-batches,
equally many for each of `D` devices. Parameters are replicated. A device takes
its sub-batches one after the other: in less memory, and on a CPU in less time
where the arrays of a whole batch do not stay in its cache. With one sub-batch
the axis is dropped and the function is the plain one.

Dimensions: `D` devices, `S` sub-batches, a multiple of `D`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import sharding

AXIS = "data"

LossFn = Callable[[Any, Any, Any], tuple[Any, dict[str, Any]]]
"""`loss_fn(params, batch, key) -> (loss, metrics)`, all scalars."""


def make_mesh(num_devices: int | None = None) -> sharding.Mesh:
  """Returns a mesh of the first `num_devices` local devices; None is all.

  Raises:
    ValueError: there are fewer devices.
  """
  devices = jax.local_devices()
  if num_devices is None:
    num_devices = len(devices)
  if not 1 <= num_devices <= len(devices):
    raise ValueError(
      f"num_devices must be from 1 to {len(devices)}, the local"
      f" {devices[0].platform} devices, got {num_devices}"
    )
  return sharding.Mesh(np.array(devices[:num_devices]), (AXIS,))


def shard(batch, mesh: sharding.Mesh):
  """Puts the first `S / D` sub-batches of `[S, ...]` on device 0, and so on.

  Raises:
    ValueError: an array has no leading axis of a multiple of `D` sub-batches.
  """
  for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
    if np.ndim(leaf) < 1 or np.shape(leaf)[0] % mesh.size:
      raise ValueError(
        f"batch{jax.tree_util.keystr(path)} has shape {np.shape(leaf)}; its"
        f" first axis must be sub-batches, as many for each of {mesh.size}"
        " devices"
      )
  return jax.device_put(batch, _spread(mesh))


def replicate(tree, mesh: sharding.Mesh | None):
  """Puts a copy of every array on every device; None leaves them in place."""
  if mesh is None:
    return tree
  return jax.device_put(tree, sharding.NamedSharding(mesh, _REPLICATED))


def value_and_grad(loss_fn: LossFn, mesh: sharding.Mesh | None = None):
  """Returns `fn(params, batch, key) -> ((loss, metrics), grads)`.

  Without a mesh, `batch` is one batch. With a mesh it has the leading axis
  `[S, ...]`, every sub-batch draws from a key of its own (a single one from
  `key` itself), and loss, metrics and gradients are means over the
  sub-batches.

  Args:
    loss_fn: the loss of one sub-batch.
    mesh: the devices; see `make_mesh`.
  """
  grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
  if mesh is None:
    return grad_fn
  if mesh.size == 1:
    return lambda params, batch, key: _in_turn(grad_fn, params, batch, key)

  def device_fn(params, batch, key):
    key = jax.random.fold_in(key, jax.lax.axis_index(AXIS))
    outputs = _in_turn(grad_fn, params, batch, key)
    total = jax.lax.psum(jax.tree.map(_wide, outputs), AXIS)
    return _mean(total, mesh.size, outputs)

  return jax.shard_map(
    device_fn,
    mesh=mesh,
    in_specs=(_REPLICATED, sharding.PartitionSpec(AXIS), _REPLICATED),
    out_specs=_REPLICATED,
    # Gradients must stay those of the sub-batch until they are summed here.
    check_vma=False,
  )


def _in_turn(grad_fn, params, batch, key):
  """Returns the mean over the sub-batches of one device, taken in turn."""
  count = len(jax.tree.leaves(batch)[0])
  if count == 1:
    return grad_fn(params, _first(batch), key)

  def one(params, batch, number):
    return grad_fn(params, batch, jax.random.fold_in(key, number))

  def step(total, numbered):
    outputs = one(params, numbered[1], numbered[0])
    return jax.tree.map(jnp.add, total, jax.tree.map(_wide, outputs)), None

  like = jax.eval_shape(one, params, _first(batch), jnp.int32(0))
  zero = jax.tree.map(lambda x: jnp.zeros(x.shape, _sums_in(x)), like)
  total, _ = jax.lax.scan(step, zero, (jnp.arange(count), batch))
  return _mean(total, count, like)


def _mean(total, count: int, like):
  """Returns sums as means, in the dtypes of what they are sums of."""

  def mean(x, like):
    dtype = jnp.result_type(like)
    x = x / count
    return x.astype(dtype) if jnp.isdtype(dtype, "real floating") else x

  return jax.tree.map(mean, total, like)


def _wide(x):
  """Returns a summand in the dtype of its sum."""
  return jnp.asarray(x, _sums_in(x))


def _sums_in(x):
  """Returns the dtype that sums are in."""
  return jnp.promote_types(jnp.result_type(x), jnp.float32)


_REPLICATED = sharding.PartitionSpec()


def _spread(mesh):
  return sharding.NamedSharding(mesh, sharding.PartitionSpec(AXIS))


def _first(batch):
  """Returns the first sub-batch."""
  return jax.tree.map(lambda x: x[0], batch)
