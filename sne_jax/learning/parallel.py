"""Data parallelism: one sub-batch per device, averaged gradients.

A parallel batch is a tree whose arrays have a leading axis of `D` sub-batches,
one per device. Parameters are replicated. With one device the axis is dropped
and the function is the plain one.

Dimensions: `D` devices.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import sharding

AXIS = "data"

BATCH_WEIGHT = "batch_weight"
"""Name of the metric that counts the real examples of a sub-batch."""

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
  """Puts sub-batch `d` of every array `[D, ...]` on device `d`.

  Raises:
    ValueError: an array has no leading axis of `D` sub-batches.
  """
  for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
    if np.ndim(leaf) < 1 or np.shape(leaf)[0] != mesh.size:
      raise ValueError(
        f"batch{jax.tree_util.keystr(path)} has shape {np.shape(leaf)}; its"
        f" first axis must be the {mesh.size} sub-batches, one per device"
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
  `[D, ...]`, every device draws from a key of its own (with one device: from
  `key` itself), and loss, metrics and gradients are means over the `D`
  sub-batches. If the metrics contain `batch_weight`, these means are weighted
  by it, which makes them means over all real examples where `loss_fn` takes
  the mean over its own; `batch_weight` itself is summed, and a sub-batch of
  weight 0 counts for nothing, even if its loss is not finite.

  Args:
    loss_fn: the loss of one sub-batch.
    mesh: the devices; see `make_mesh`.
  """
  grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
  if mesh is None:
    return grad_fn
  if mesh.size == 1:
    return lambda params, batch, key: grad_fn(params, _squeeze(batch), key)

  def device_fn(params, batch, key):
    key = jax.random.fold_in(key, jax.lax.axis_index(AXIS))
    (loss, metrics), grads = grad_fn(params, _squeeze(batch), key)
    return _mean_over_devices(loss, metrics, grads)

  return jax.shard_map(
    device_fn,
    mesh=mesh,
    in_specs=(_REPLICATED, sharding.PartitionSpec(AXIS), _REPLICATED),
    out_specs=_REPLICATED,
    # Gradients must stay those of the sub-batch until they are weighted.
    check_vma=False,
  )


def _mean_over_devices(loss, metrics, grads):
  """Averages over the mesh axis, weighted by the metric `batch_weight`."""
  weight = jnp.asarray(metrics.get(BATCH_WEIGHT, 1.0), jnp.float32)
  total = jax.lax.psum(weight, AXIS)
  share = weight / jnp.where(total > 0, total, 1.0)

  def mean(x):
    x = jnp.asarray(x)
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    part = jnp.where(weight > 0, x.astype(dtype) * share, 0.0)
    part = jax.lax.psum(part, AXIS)
    return (
      part.astype(x.dtype) if jnp.isdtype(x.dtype, "real floating") else part
    )

  averaged = jax.tree.map(mean, metrics)
  if BATCH_WEIGHT in metrics:
    averaged[BATCH_WEIGHT] = total
  return (mean(loss), averaged), jax.tree.map(mean, grads)


_REPLICATED = sharding.PartitionSpec()


def _spread(mesh):
  return sharding.NamedSharding(mesh, sharding.PartitionSpec(AXIS))


def _squeeze(batch):
  """Drops the leading axis of one sub-batch."""
  return jax.tree.map(lambda x: jnp.squeeze(x, axis=0), batch)
