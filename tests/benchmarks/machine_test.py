"""Tests of benchmarks/machine.py: operation counts against hand counts."""

import functools

import jax
import jax.numpy as jnp
import pytest

from benchmarks import machine

F32 = jnp.float32
LEFT = jax.ShapeDtypeStruct((3, 4), F32)
RIGHT = jax.ShapeDtypeStruct((4, 5), F32)
SQUARE = jax.ShapeDtypeStruct((4, 4), F32)
MATMUL = 2 * 3 * 4 * 5


def repeated(x, w, *, length):
  return jax.lax.scan(lambda c, _: (c @ w, None), x, length=length)[0]


def test_matmul_counts_two_per_multiply_add():
  assert machine.dot_flops(jnp.dot, LEFT, RIGHT) == MATMUL


def test_elementwise_work_is_not_counted():
  assert machine.dot_flops(lambda x: jnp.tanh(x).sum(), LEFT) == 0


def test_vmapped_matmul_counts_the_batch():
  lefts = jax.ShapeDtypeStruct((7, 3, 4), F32)
  fn = jax.vmap(jnp.dot, in_axes=(0, None))
  assert machine.dot_flops(fn, lefts, RIGHT) == 7 * MATMUL


def test_gradient_counts_the_two_products_of_the_backward_pass():
  def loss(x, w):
    return jnp.tanh(x @ w).sum()

  # Forward once; backward a product for each of the two operands.
  fn = jax.grad(loss, argnums=(0, 1))
  assert machine.dot_flops(fn, LEFT, RIGHT) == 3 * MATMUL
  assert machine.dot_flops(jax.grad(loss), LEFT, RIGHT) == 2 * MATMUL


def test_linear_gradient_drops_the_unused_forward_product():
  fn = jax.grad(lambda x, w: (x @ w).sum())
  assert machine.dot_flops(fn, LEFT, RIGHT) == MATMUL


def test_remat_counts_the_recomputation():
  def loss(x, w):
    return jnp.sin(jax.checkpoint(lambda x: jnp.sin(x @ w) @ w)(x)).sum()

  x = jax.ShapeDtypeStruct((3, 4), F32)
  product = 2 * 3 * 4 * 4
  # Two forward, the first of them again, and one backward for each.
  assert machine.dot_flops(jax.grad(loss), x, SQUARE) == 5 * product


@pytest.mark.parametrize("length", [1, 6])
def test_scan_counts_its_length(length):
  fn = functools.partial(repeated, length=length)
  product = 2 * 3 * 4 * 4
  assert machine.dot_flops(fn, LEFT, SQUARE) == length * product


def test_a_carry_counts_though_only_its_effect_on_another_is_used():
  def fn(x, w):
    def body(carry, _):
      total, power = carry
      return (total + power, power @ w), None

    return jax.lax.scan(body, (x, x), length=3)[0][0]

  assert machine.dot_flops(fn, LEFT, SQUARE) == 3 * (2 * 3 * 4 * 4)


def test_gradient_of_nested_scans():
  def loss(x, w):
    def body(carry, _):
      return jnp.tanh(repeated(carry, w, length=2)), None

    return jax.lax.scan(body, x, length=5)[0].sum()

  # 10 products forward, and 10 backward for each of the operands.
  fn = jax.jit(jax.grad(loss, argnums=(0, 1)))
  assert machine.dot_flops(fn, LEFT, SQUARE) == 30 * (2 * 3 * 4 * 4)


def test_while_counts_one_turn_and_cond_the_dearest_branch():
  def loop(x, w):
    return jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c @ w, x)

  def branch(x, w):
    return jax.lax.cond(x.sum() > 0, lambda: x @ w @ w, lambda: x @ w)

  product = 2 * 3 * 4 * 4
  assert machine.dot_flops(loop, LEFT, SQUARE) == product
  assert machine.dot_flops(branch, LEFT, SQUARE) == 2 * product


def test_custom_vjp_counts_its_own_backward():
  @jax.custom_vjp
  def product(x, w):
    return x @ w

  def forward(x, w):
    return x @ w, w

  def backward(w, g):
    return g @ w.T, jnp.zeros_like(w)

  product.defvjp(forward, backward)
  assert machine.dot_flops(product, LEFT, RIGHT) == MATMUL
  fn = jax.grad(lambda x, w: jnp.tanh(product(x, w)).sum())
  assert machine.dot_flops(fn, LEFT, RIGHT) == 2 * MATMUL


@pytest.mark.parametrize("groups", [1, 2])
def test_convolution(groups):
  image = jax.ShapeDtypeStruct((2, 4, 8, 8), F32)
  kernel = jax.ShapeDtypeStruct((6, 4 // groups, 3, 3), F32)
  fn = functools.partial(
    jax.lax.conv_general_dilated,
    window_strides=(1, 1),
    padding="VALID",
    feature_group_count=groups,
  )
  # 2 images, 6 channels, 6 x 6 places; 9 kernel places per incoming channel.
  expected = 2 * (2 * 6 * 6 * 6) * (9 * 4 // groups)
  assert machine.dot_flops(fn, image, kernel) == expected


@pytest.mark.skipif(jax.device_count() < 2, reason="needs two devices")
def test_shard_map_counts_every_device():
  mesh = jax.sharding.Mesh(jax.devices()[:2], ("batch",))
  rows, whole = jax.P("batch"), jax.P()
  fn = jax.shard_map(jnp.dot, mesh=mesh, in_specs=(rows, whole), out_specs=rows)
  left = jax.ShapeDtypeStruct((6, 4), F32)
  assert machine.dot_flops(fn, left, RIGHT) == 2 * MATMUL


def test_timed_excludes_compilation_and_orders_its_numbers():
  traces = []

  def fn(x):
    traces.append(1)
    return x + 1

  timing = machine.timed(fn, jnp.zeros(3), repeats=3)
  assert len(traces) == 1
  assert 0 < timing.fastest <= timing.seconds <= timing.slowest
  assert timing.seconds < timing.compile_seconds
  with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
    machine.timed(fn, jnp.zeros(3), repeats=0)


def test_matmul_peak_is_a_speed():
  # No machine multiplies at 0.01 or at 10 million GFLOP/s.
  assert 0.01 < machine.matmul_peak(size=256, repeats=3) < 1e7


def test_peak_memory_sees_the_arguments():
  timing = machine.timed(jnp.sort, jnp.zeros(1000), repeats=1)
  memory = machine.peak_memory(timing.compiled)
  assert memory.program is not None
  assert 8000 <= memory.program < 100_000  # 4,000 bytes in, 4,000 out.
  assert memory.process > 1_000_000
  assert machine.peak_memory().program is None


def test_device_name_is_said():
  assert machine.device_name().strip(" ,")
