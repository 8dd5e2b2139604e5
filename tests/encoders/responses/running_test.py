"""Networks of a mixed batch answer as each does alone, whatever its family."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders.responses import inputs, programs, running
from sne_jax.encoders.sne import options as sne_options
from sne_jax.encoders.sne import slots
from sne_jax.networks import chunking, families
from sne_jax.networks.families import architectures

SPECS = families.tiny_specs()
OPTIONS = sne_options.SNEOptions(responses="hidden", response_inputs=3)


def wild_park(count, image=(1, 8, 8), seed=0):
  rng = np.random.default_rng(seed)
  return [
    architectures.architecture(
      "wild_park",
      image,
      draws=rng.uniform(size=architectures.NUM_DRAWS).tolist(),
    )
    for _ in range(count)
  ]


def batch_of(specs, weights, options=OPTIONS):
  packer = slots.packer(
    specs, options, chunking.ChunkOptions(linear_rule="neuron")
  )
  return packer.pack(np.arange(len(specs)), weights)


def answers_of(batch, inputs_of, grid=2):
  """Runs all programs; by network, outputs and rows of units."""
  outputs, units = {}, {}
  for name, table in batch.tables.items():
    if not name.startswith(programs.PREFIX):
      continue
    program = programs.of_name(name)
    table = {k: jnp.asarray(v) for k, v in table.items()}
    x = inputs_of(program.spec)
    run = jax.jit(functools.partial(running.run, program, grid=grid))
    got = run(jnp.asarray(batch.weights), table, x)
    for row, network in enumerate(table["network"].tolist()):
      if not table["real"][row]:
        continue
      outputs[network] = np.asarray(got.outputs[row])
      unit = np.asarray(table["unit"][row])
      units[network] = np.asarray(got.after[row])[unit > 0]
  return outputs, units


def inputs_of(spec):
  shape = programs.input_shape(spec)
  rng = np.random.default_rng(sum(shape))
  return rng.standard_normal((3, *shape)).astype(np.float32)


def alone(spec, weights, x):
  """Outputs, and what each hidden level gives, averaged over places."""

  @jax.jit
  def run(weights, x):
    hidden = []

    def keep(level, y):
      hidden.append(y.mean((1, 2)) if y.ndim == 4 else y.T)
      if y.ndim == 3:
        hidden[-1] = y.mean(1).T
      return y

    outputs = families.run(spec, spec.unflatten(weights), x, keep)
    return outputs, jnp.concatenate([*hidden, outputs.T])

  return map(np.asarray, run(weights, x))


@pytest.mark.parametrize(
  "specs",
  [list(SPECS.values()), wild_park(3, image=(1, 6, 6))],
  ids=["families", "wild_park"],
)
def test_a_mixed_batch_answers_as_each_network_alone(specs):
  rng = np.random.default_rng(1)
  weights = [families.random_weights(spec, rng) for spec in specs]
  outputs, units = answers_of(batch_of(specs, weights), inputs_of, grid=1)
  assert sorted(outputs) == list(range(len(specs)))
  for place, (spec, vector) in enumerate(zip(specs, weights, strict=True)):
    wanted, hidden = alone(spec, vector, inputs_of(spec))
    np.testing.assert_allclose(outputs[place], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(units[place][:, 0], hidden, rtol=1e-4, atol=1e-5)


def test_wild_parks_share_few_programs():
  plan = programs.Plan(wild_park(60))
  assert len(plan.programs) <= programs.MOST_PROGRAMS


def test_units_are_the_rows_that_compute_them():
  """Scaling what a neuron reads moves its unit, and no other of its level."""
  for name, spec in SPECS.items():
    numbers = programs.unit_neurons(spec)
    assert len(set(numbers.tolist()) - {0}) == np.sum(numbers > 0), name
    assert (numbers > 0).all(), name


def test_a_network_that_overflows_disturbs_no_other():
  specs = [SPECS["mlp"]] * 2
  rng = np.random.default_rng(0)
  weights = [families.random_weights(s, rng) for s in specs]

  def gradient(second):
    batch = batch_of(specs[:1], [weights[0]])
    packer = slots.packer(specs[:1], OPTIONS, chunking.ChunkOptions())
    batch = packer.pack(np.zeros(2, int), [weights[0], second])
    (name,) = [n for n in batch.tables if n.startswith(programs.PREFIX)]
    table = {k: jnp.asarray(v) for k, v in batch.tables[name].items()}

    def loss(x):
      program = programs.of_name(name)
      got = running.run(program, jnp.asarray(batch.weights), table, x, grid=1)
      return (
        jnp.sum(jnp.sin(got.outputs[0]))
        + jnp.sum(jnp.sin(got.after)) * 0
        + jnp.sum(jnp.sin(got.outputs[1])) * 0
      )

    return np.asarray(jax.grad(loss)(jnp.asarray(inputs_of(specs[0]))))

  huge = np.full_like(weights[1], 1e30)
  huge[::2] *= -1
  np.testing.assert_allclose(gradient(huge), gradient(weights[1]), rtol=1e-6)
  assert np.isfinite(gradient(huge)).all()


@pytest.mark.parametrize("source", ["pixels", "generator"])
@pytest.mark.parametrize(
  "shape", [(1, 8, 8), (3, 32, 30), (1, 16, 16), (2, 9, 9)]
)
def test_inputs_have_the_shape_that_is_asked_for(source, shape):
  module = inputs.Inputs(4, (1, 16, 16), 0, source)
  x, params = module.init_with_output(jax.random.key(0), shape)
  assert x.shape == (4, *shape) and np.isfinite(x).all()
  grads = jax.grad(lambda p: module.apply(p, shape).sum())(params)
  moved = {k: g for k, g in grads["params"].items() if k != "vectors"}
  assert any(np.abs(g).max() > 0 for g in jax.tree.leaves(moved))
