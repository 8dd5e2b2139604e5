"""Sub-batches on two devices, or in turn, compute what one batch does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sne_jax.learning.training import loop, parallel

NUM_ROWS = 8

pytestmark = pytest.mark.skipif(
  jax.local_device_count() < 2, reason="needs two devices"
)


def mean_loss(params, batch, key):
  """Mean squared error over the rows."""
  del key
  error = batch["x"] @ params["w"] - batch["y"]
  return jnp.mean(error**2), {"mae": jnp.mean(jnp.abs(error))}


def make_batch(step, parts):
  """Rows of one step, cut into `[S, rows / S, ...]`."""
  rng = np.random.default_rng(step)
  x = rng.normal(size=(NUM_ROWS, 3)).astype(np.float32)
  batch = {"x": x, "y": x @ np.array([1, -2, 3], np.float32)}
  return {
    k: v.reshape(parts, NUM_ROWS // parts, *v.shape[1:])
    for k, v in batch.items()
  }


@functools.cache
def make_start(num_devices):
  """Returns the mesh, the first state on the host, and the update."""
  mesh = parallel.make_mesh(num_devices)
  tx = optax.sgd(0.1, momentum=0.9)
  state = loop.init_state(
    {"w": np.zeros(3, np.float32)}, tx, jax.random.key(0), ema_decay=0.9
  )
  update = loop.make_update_fn(mean_loss, tx, mesh=mesh, ema_decay=0.9)
  return mesh, jax.device_get(state._replace(key=None)), update


def train(num_devices, *, parts=None):
  """Returns state and metrics on the host, and the device parameters."""
  mesh, state, update = make_start(num_devices)
  state = state._replace(key=jax.random.key(0))
  state = parallel.replicate(state, mesh)
  metrics = {}
  for step in range(5):
    batch = parallel.shard(make_batch(step, parts or num_devices), mesh)
    state, metrics = update(state, batch)
  return jax.device_get((state._replace(key=None), metrics)), state.params


def test_two_devices_equal_one():
  (one, metrics_one), _ = train(1)
  (two, metrics_two), on_devices = train(2)
  assert len(on_devices["w"].sharding.device_set) == 2
  assert on_devices["w"].sharding.is_fully_replicated
  # Means are summed in another order: float32 rounding.
  np.testing.assert_allclose(two.params["w"], one.params["w"], atol=1e-5)
  np.testing.assert_allclose(two.ema["w"], one.ema["w"], atol=1e-5)
  assert metrics_one.keys() == metrics_two.keys()
  for name, value in metrics_one.items():
    np.testing.assert_allclose(metrics_two[name], value, rtol=1e-4)


@pytest.mark.parametrize(("num_devices", "parts"), [(1, 2), (1, 4), (2, 4)])
def test_sub_batches_in_turn_equal_one(num_devices, parts):
  (one, metrics_one), _ = train(1)
  (more, metrics), _ = train(num_devices, parts=parts)
  np.testing.assert_allclose(more.params["w"], one.params["w"], atol=1e-5)
  np.testing.assert_allclose(more.ema["w"], one.ema["w"], atol=1e-5)
  assert metrics.keys() == metrics_one.keys()
  for name, value in metrics_one.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-4)


def test_sub_batches_in_turn_take_less_memory():
  def loss_fn(params, batch, key):
    del key
    x = batch["x"]
    for _ in range(3):
      x = jnp.tanh(x @ params["w"])
    return jnp.mean(x), {}

  def temporary(parts):
    mesh = parallel.make_mesh(1)
    batch = {"x": np.zeros((parts, 4096 // parts, 64), np.float32)}
    fn = jax.jit(parallel.value_and_grad(loss_fn, mesh))
    lowered = fn.lower({"w": jnp.zeros((64, 64))}, batch, jax.random.key(0))
    return lowered.compile().memory_analysis().temp_size_in_bytes

  assert temporary(8) < temporary(1) / 4


def test_devices_draw_different_noise():
  def loss_fn(params, batch, key):
    noise = jax.random.normal(key, ())
    index = batch["index"][0]
    return jnp.sum(params["w"]) * 0, {"first": noise * (1 - index)} | {
      "second": noise * index
    }

  def noises(num_devices, parts=None):
    mesh = parallel.make_mesh(num_devices)
    grad_fn = jax.jit(parallel.value_and_grad(loss_fn, mesh))
    parts = parts or num_devices
    batch = {"index": np.arange(parts, dtype=np.float32)[:, None]}
    params = parallel.replicate({"w": jnp.zeros(3)}, mesh)
    key = parallel.replicate(jax.random.key(7), mesh)
    (_, metrics), _ = grad_fn(params, parallel.shard(batch, mesh), key)
    return metrics

  noise = noises(2)
  assert noise["first"] != noise["second"]
  in_turn = noises(1, parts=2)
  assert in_turn["first"] != in_turn["second"]
  # One device draws from the key itself, as a run without a mesh does.
  expected = jax.random.normal(jax.random.key(7), ())
  np.testing.assert_allclose(noises(1)["first"], expected)


def test_one_device_compiles_to_the_plain_step():
  params, key = {"w": jnp.ones(3)}, jax.random.key(0)
  batch = make_batch(0, 1)
  flat = {k: v[0] for k, v in batch.items()}
  mesh = parallel.make_mesh(1)

  def cost(fn, batch):
    compiled = jax.jit(fn).lower(params, batch, key).compile()
    return compiled.cost_analysis()["flops"]

  alone = cost(parallel.value_and_grad(mean_loss), flat)
  assert cost(parallel.value_and_grad(mean_loss, mesh), batch) == alone


def test_shard_names_the_array_without_sub_batches():
  mesh = parallel.make_mesh(2)
  with pytest.raises(ValueError, match=r"batch\['y'\] has shape \(3,\); its"):
    parallel.shard({"x": np.zeros((2, 4)), "y": np.zeros(3)}, mesh)


def test_mesh_of_too_many_devices_is_refused():
  with pytest.raises(ValueError, match="num_devices must be from 1 to"):
    parallel.make_mesh(1000)
