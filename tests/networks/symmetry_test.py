import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.networks import families, symmetry
from sne_jax.networks import spec as spec_lib

# Compiling costs more than running here.
jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": "0"}
)

SPECS = families.tiny_specs()

every_family = pytest.mark.parametrize("name", SPECS)


@functools.cache
def case(name):
  """The network's weights, and its function of weights on fixed inputs."""
  spec = SPECS[name]
  rng = np.random.default_rng(5)
  shape = dict(spec.options).get("image_shape", (spec.tensors[0].shape[-1],))
  x = rng.standard_normal((6, *shape), np.float32)
  run = jit(jax.vmap(lambda w: families.forward(spec, w, x)))
  return spec, families.random_weights(spec, rng), run


def change(run, weights, index):
  """Largest change of any output, for each of the indices `[N, P]`."""
  old = run(weights[None].repeat(len(index), axis=0))
  return np.asarray(jnp.abs(run(weights[index]) - old).max(axis=(1, 2)))


@every_family
def test_permuted_network_is_the_same_function(name):
  spec, weights, run = case(name)
  rng = np.random.default_rng(0)
  index = np.stack([symmetry.draw_permutation(spec, rng) for _ in range(9)])
  assert index.dtype == np.int32
  np.testing.assert_array_equal(
    np.sort(index, axis=1), symmetry.identity(spec)[None].repeat(9, 0)
  )
  # float32 sums in another order; the sine multiplies the error by w0.
  assert change(run, weights, index).max() < 1e-5
  moved = (weights[index] != weights[None]).mean(axis=1)
  assert moved.min() > 0.2, "a draw left most weights in place"


@every_family
def test_every_group_matters_and_is_a_symmetry_alone(name):
  spec, weights, run = case(name)
  index = []
  for group, shape in symmetry.element_shapes(spec).items():
    cycle = np.broadcast_to(np.roll(np.arange(shape[-1]), 1), shape)
    index.append(symmetry.permutation_from(spec, {group: cycle}))
    assert (weights[index[-1]] != weights).any()
  index += [symmetry.identity(spec)] * (9 - len(index))  # One compilation.
  assert change(run, weights, np.stack(index)).max() < 1e-5


@every_family
def test_device_sampler_draws_symmetries(name):
  spec, weights, run = case(name)
  sample = jit(jax.vmap(symmetry.make_permutation_sampler(spec)))
  index = np.asarray(sample(jax.random.split(jax.random.key(2), 9)))
  assert index.dtype == np.int32
  assert (np.sort(index, axis=1) == symmetry.identity(spec)[None]).all()
  assert change(run, weights, index).max() < 1e-5
  assert len({row.tobytes() for row in index}) == 9


@every_family
@pytest.mark.parametrize(
  "draw", [symmetry.draw_uncoupled, symmetry.draw_input_shuffle]
)
def test_controls_change_the_function(name, draw):
  spec, weights, run = case(name)
  rng = np.random.default_rng(3)
  index = np.stack([draw(spec, rng) for _ in range(9)])
  assert (np.sort(index, axis=1) == symmetry.identity(spec)[None]).all()
  differences = change(run, weights, index)
  assert np.median(differences) > 1e-2
  assert differences.min() > 1e-4


def test_uncoupled_keeps_a_layers_neurons():
  spec = SPECS["mlp"]
  index = symmetry.draw_uncoupled(spec, np.random.default_rng(0))
  tensors = spec.unflatten(index)
  moved = [
    name
    for name, place in tensors.items()
    if (place != spec.unflatten(symmetry.identity(spec))[name]).any()
  ]
  assert moved in (
    [f"layer{i}.{part}" for part in ("weight", "bias")] for i in range(2)
  )


def test_input_shuffle_keeps_each_neurons_weights():
  spec = SPECS["cnn_pool"]
  index = symmetry.draw_input_shuffle(spec, np.random.default_rng(0))
  new = spec.unflatten(index)
  old = spec.unflatten(symmetry.identity(spec))
  np.testing.assert_array_equal(new["conv0.weight"], old["conv0.weight"])
  kernels = new["conv1.weight"]
  assert (kernels != old["conv1.weight"]).any()
  np.testing.assert_array_equal(np.sort(kernels, axis=1), old["conv1.weight"])


def hand_spec():
  axis = spec_lib.plain_axis
  return spec_lib.NetworkSpec(
    family="unknown",
    tensors=(
      spec_lib.TensorSpec(
        "in", "linear_weight", (3, 2), 0, (axis(3, "n"), axis(2))
      ),
      spec_lib.TensorSpec(
        "out", "linear_weight", (1, 3), 1, (axis(1), axis(3, "n"))
      ),
    ),
  )


def test_index_by_hand():
  index = symmetry.permutation_from(hand_spec(), {"n": [2, 0, 1]})
  np.testing.assert_array_equal(index, [4, 5, 0, 1, 2, 3, 8, 6, 7])


def test_nested_index_by_hand():
  nested = (spec_lib.Factor(2, "h"), spec_lib.Factor(2, "u", per="h"))
  spec = spec_lib.NetworkSpec(
    family="unknown",
    tensors=(spec_lib.TensorSpec("a", "other", (4,), 0, (nested,)),),
  )
  assert symmetry.element_shapes(spec) == {"h": (2,), "u": (2, 2)}
  # Only the units of old member 0 swap; then the members do.
  index = symmetry.permutation_from(spec, {"u": [[1, 0], [0, 1]]})
  np.testing.assert_array_equal(index, [1, 0, 2, 3])
  both = {"h": [1, 0], "u": [[1, 0], [0, 1]]}
  index = symmetry.permutation_from(spec, both)
  np.testing.assert_array_equal(index, [2, 3, 1, 0])
  assert math.isclose(symmetry.log_order(spec), math.log(2 * 2 * 2))


def test_three_levels_of_nesting_are_permutations():
  axis = (
    spec_lib.Factor(2, "a"),
    spec_lib.Factor(3, "b", per="a"),
    spec_lib.Factor(2),
    spec_lib.Factor(2, "c", per="b"),
  )
  spec = spec_lib.NetworkSpec(
    family="unknown",
    tensors=(spec_lib.TensorSpec("t", "other", (24,), 0, (axis,)),),
  )
  assert symmetry.element_shapes(spec)["c"] == (2, 3, 2)
  index = symmetry.draw_permutation(spec, np.random.default_rng(0))
  np.testing.assert_array_equal(np.sort(index), np.arange(24))
  # Pairs that share (a, b) stay together, and c moves alike in both places.
  pairs = index.reshape(6, 2, 2)
  assert (pairs // 4 == pairs[:, :1, :1] // 4).all()
  assert (pairs[:, 0] % 2 == pairs[:, 1] % 2).all()


@pytest.mark.parametrize("where", ["host", "device"])
def test_draws_are_uniform(where):
  spec, count = hand_spec(), 6000
  if where == "host":
    rng = np.random.default_rng(0)
    index = [symmetry.draw_permutation(spec, rng) for _ in range(count)]
  else:
    sample = jit(jax.vmap(symmetry.make_permutation_sampler(spec)))
    index = sample(jax.random.split(jax.random.key(0), count))
  drawn = [tuple(row) for row in np.asarray(index)[:, 6:] - 6]
  counts = [drawn.count(p) for p in itertools.permutations(range(3))]
  assert sum(counts) == count
  # Chi-square of 5 degrees of freedom: above 20.5 once in a thousand.
  assert sum((c - count / 6) ** 2 / (count / 6) for c in counts) < 20.5


@pytest.mark.parametrize("where", ["host", "device"])
def test_members_of_an_outer_group_are_shuffled_independently(where):
  spec, count = SPECS["transformer_bare"], 400
  start = spec.offsets[spec.index("block0.q.weight")]
  if where == "host":
    rng = np.random.default_rng(0)
    index = [symmetry.draw_permutation(spec, rng) for _ in range(count)]
  else:
    sample = jit(jax.vmap(symmetry.make_permutation_sampler(spec)))
    index = sample(jax.random.split(jax.random.key(0), count))
  rows = (np.asarray(index)[:, start : start + 72 : 6] - start) // 6
  rows = rows.reshape(count, 3, 4)
  heads, units = rows[:, :, 0] // 4, rows % 4
  assert (rows // 4 == heads[:, :, None]).all(), "units left their head"
  # Two heads agree in all four units once in 24 draws.
  agree = (units[:, 0] == units[:, 1]).all(axis=1).mean()
  assert 0.005 < agree < 0.12
  assert len(set(map(tuple, heads))) == 6


@pytest.mark.parametrize(
  ("element", "message"),
  [
    ({"m": [0, 1, 2]}, "no group 'm'"),
    ({"n": [0, 1]}, r"shape \(3,\)"),
    ({"n": [0, 1, 1]}, "not a permutation"),
  ],
)
def test_faulty_elements_are_refused(element, message):
  with pytest.raises(ValueError, match=message):
    symmetry.permutation_from(hand_spec(), element)


def test_networks_without_hidden_neurons():
  spec = families.mlp((3, 2))
  rng = np.random.default_rng(0)
  assert symmetry.log_order(spec) == 0
  identity = symmetry.identity(spec)
  np.testing.assert_array_equal(symmetry.draw_permutation(spec, rng), identity)
  sample = symmetry.make_permutation_sampler(spec)
  np.testing.assert_array_equal(sample(jax.random.key(0)), identity)
  with pytest.raises(ValueError, match="hidden"):
    symmetry.draw_uncoupled(spec, rng)
  with pytest.raises(ValueError, match="hidden"):
    symmetry.draw_input_shuffle(spec, rng)
