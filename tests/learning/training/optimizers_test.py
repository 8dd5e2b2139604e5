"""Optimizers: schedule values by hand, clipping, decay, accumulation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sne_jax.learning.training import optimizers

PARAMS = {
  "kernel": np.ones((2, 2), np.float32),
  "bias": np.ones((2,), np.float32),
}


def options(**changes):
  """Plain gradient descent, changed where a test wants."""
  plain = {
    "optimizer": "sgd",
    "beta1": 0.0,
    "schedule": "constant",
    "learning_rate": 1.0,
    "weight_decay": 0.0,
    "clip_norm": 0.0,
  }
  return optimizers.OptimizerOptions(**(plain | changes))


def descend(tx, gradients):
  """Applies gradients one after another."""

  @jax.jit
  def run(params, gradients):
    state = tx.init(params)
    for gradient in gradients:
      updates, state = tx.update(gradient, state, params)
      params = optax.apply_updates(params, updates)
    return params

  return run(PARAMS, gradients)


def rates(schedule, steps):
  """Learning rates before the given updates."""
  return jax.jit(jax.vmap(schedule))(jnp.array(steps))


def test_warmup_cosine_by_hand():
  schedule = optimizers.make_schedule(
    optimizers.OptimizerOptions(
      learning_rate=2.0, warmup_fraction=0.2, final_learning_rate=0.1
    ),
    num_steps=20,
  )
  # Rises by 2 / 5 a step for 4 steps, then falls over 16 steps to 0.2.
  np.testing.assert_allclose(
    rates(schedule, [0, 1, 4, 12, 20]),
    [0.4, 0.8, 2.0, (2.0 + 0.2) / 2, 0.2],
    rtol=1e-6,
  )


def test_one_cycle_by_hand():
  schedule = optimizers.make_schedule(
    optimizers.OptimizerOptions(
      schedule="one_cycle", learning_rate=1.0, warmup_fraction=0.4
    ),
    num_steps=10,
  )
  np.testing.assert_allclose(
    rates(schedule, [0, 2, 4, 7, 10]),
    [0.04, (0.04 + 1) / 2, 1.0, 0.5, 0.0],
    atol=1e-6,
  )


def test_one_cycle_is_the_published_one():
  """100 updates of PyTorch's schedule: the rate ends at the last of them."""
  changed = optimizers.OptimizerOptions(
    schedule="one_cycle",
    learning_rate=1e-4,
    warmup_fraction=29 / 99,
    final_learning_rate=4e-6,
    beta1=0.95,
    beta1_low=0.85,
  )
  steps = [0, 10, 29, 64, 99]
  np.testing.assert_allclose(
    rates(optimizers.make_schedule(changed, 99), steps),
    [4e-6, 2.95165e-5, 1e-4, 5.00002e-5, 4e-10],
    rtol=1e-5,
    atol=1e-14,
  )
  np.testing.assert_allclose(
    rates(optimizers.make_beta1_schedule(changed, 99), steps),
    [0.95, 0.923420, 0.85, 0.90, 0.95],
    rtol=1e-6,
  )


def test_momentum_follows_its_cycle():
  cycle = options(
    schedule="one_cycle", warmup_fraction=0.5, beta1=0.8, beta1_low=0.4
  )
  ones = jax.tree.map(np.ones_like, PARAMS)
  moved = descend(optimizers.make_optimizer(cycle, 4), [ones] * 3)
  # Momenta 0.8, 0.6, 0.4; rates 0.04, 0.52, 1.
  traces = [1, 1 + 0.6, 1 + 0.4 * 1.6]
  expected = 1 - np.dot([0.04, 0.52, 1.0], traces)
  np.testing.assert_allclose(moved["bias"], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ("warmup_cosine", "constant", "one_cycle"))
@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_schedules_of_few_steps_are_finite_and_positive(name, num_steps):
  schedule = optimizers.make_schedule(
    optimizers.OptimizerOptions(schedule=name), num_steps
  )
  found = rates(schedule, range(num_steps))
  assert all(found > 0) and all(found <= 1.001e-3), found


def test_clip_scales_long_gradients_only():
  tx = optimizers.make_optimizer(options(clip_norm=1.0), 10)
  long = {"kernel": np.full((2, 2), 1.5), "bias": np.full((2,), 2.0)}
  norm = np.sqrt(4 * 1.5**2 + 2 * 2.0**2)
  moved = descend(tx, [long])
  np.testing.assert_allclose(moved["bias"], 1 - 2.0 / norm, rtol=1e-6)
  short = jax.tree.map(lambda x: 0.1 * x / norm, long)
  moved = descend(tx, [short])
  np.testing.assert_allclose(moved["bias"], 1 - 0.2 / norm, rtol=1e-6)


def test_weight_decay_spares_vectors():
  tx = optimizers.make_optimizer(options(weight_decay=0.25), 10)
  moved = descend(tx, [jax.tree.map(np.zeros_like, PARAMS)])
  np.testing.assert_allclose(moved["kernel"], 0.75)
  np.testing.assert_allclose(moved["bias"], 1.0)


def test_adamw_equals_the_library():
  ours = optimizers.make_optimizer(
    options(optimizer="adamw", beta1=0.9, learning_rate=0.1, weight_decay=0.1),
    10,
  )
  theirs = optax.adamw(
    0.1,
    weight_decay=0.1,
    mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
  )
  gradients = [
    jax.tree.map(lambda x, s=s: np.float32(s) * np.asarray(x), PARAMS)
    for s in (1, -2, 3)
  ]
  a, b = descend(ours, gradients), descend(theirs, gradients)
  np.testing.assert_allclose(a["kernel"], b["kernel"], rtol=1e-6)
  np.testing.assert_allclose(a["bias"], b["bias"], rtol=1e-6)


def test_ema_by_hand():
  ema, params = {"a": jnp.float32(0.0)}, {"a": jnp.float32(1.0)}
  early = optimizers.update_ema(ema, params, decay=0.99, step=0)
  np.testing.assert_allclose(early["a"], 0.9, rtol=1e-6)  # Decay 1 / 10.
  late = optimizers.update_ema(ema, params, decay=0.99, step=10**6)
  np.testing.assert_allclose(late["a"], 0.01, rtol=1e-4)


@pytest.mark.parametrize("decay", [0.9, 0.999])
def test_the_average_of_a_short_training_is_near_its_end(decay):
  """Parameters go to 1 and stay; after 100 steps the average is there too."""
  ema = late = np.float32(0)
  for step in range(100):
    params = np.float32(1 - 0.9 ** (step + 1))
    ema = optimizers.update_ema(ema, params, decay=decay, step=step)
    # Control: with the decay from the first step on.
    late = optimizers.update_ema(late, params, decay=decay, step=10**6)
  assert abs(ema - params) < 1e-3
  assert abs(late - params) > (0.5 if decay == 0.999 else 1e-4)


def test_learned_inputs_have_a_rate_of_their_own():
  given = {
    "encoder": {"probes": np.ones((2, 2)), "probed": {"kernel": np.ones(2)}},
    "probe_generator": {"kernel": np.ones((2, 2))},
  }
  given = jax.tree.map(np.float32, given)
  gradient = jax.tree.map(np.ones_like, given)
  changes = {"schedule": "one_cycle", "warmup_fraction": 0.5, "beta1": 0.5}
  how = options(learning_rate=0.1, probe_rate=0.3, **changes)
  tx = optimizers.make_optimizer(how, 4)
  plain = optimizers.make_optimizer(options(learning_rate=0.1, **changes), 4)
  state, other = tx.init(given), plain.init(given)
  for _ in range(3):
    moves, state = tx.update(gradient, state, given)
    all_alike, other = plain.update(gradient, other, given)
    threefold = jax.tree.map(lambda x: 3 * x, all_alike)
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6)
    same(moves["encoder"]["probes"], threefold["encoder"]["probes"])
    jax.tree.map(same, moves["probe_generator"], threefold["probe_generator"])
    # A name is a whole word of the path.
    jax.tree.map(
      same, moves["encoder"]["probed"], all_alike["encoder"]["probed"]
    )


def test_rates_are_arguments_of_one_program():
  """A search over rates compiles once, for rates of learned inputs too."""
  one = options(learning_rate=0.1, probe_rate=0.3)
  other = options(learning_rate=0.2, probe_rate=0.1)
  assert optimizers.constants(one, 5) == optimizers.constants(other, 5)
  plain = options(learning_rate=0.1)
  assert optimizers.constants(one, 5) != optimizers.constants(plain, 5)
  given = {name: np.ones(2, np.float32) for name in ("probes", "kernel")}
  update = optimizers.make_optimizer(one, 5).update
  state = optimizers.make_optimizer(other, 5).init(given)
  moves, _ = update(given, state, given)
  np.testing.assert_allclose(moves["probes"], -0.1, rtol=1e-6)
  np.testing.assert_allclose(moves["kernel"], -0.2, rtol=1e-6)


def test_without_probe_rate_the_state_is_that_of_before():
  tx = optimizers.make_optimizer(options(optimizer="adamw"), 5)
  paths = jax.tree_util.tree_leaves_with_path(tx.init({"probes": np.ones(2)}))
  assert [jax.tree_util.keystr(path) for path, _ in paths] == [
    *("[0].count", "[0].mu['probes']", "[0].nu['probes']"),
    *("[1].count", "[1].course.peak", "[1].course.warmup", "[1].course.total"),
  ]


def test_a_rate_of_nothing_is_refused():
  tx = optimizers.make_optimizer(options(probe_rate=0.1), 5)
  with pytest.raises(
    ValueError, match=r"probe_rate is 0.1, but the model has no .*leave it 0"
  ):
    tx.init(PARAMS)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"optimizer": "adamax"}, "optimizer is 'adamax'; choose one of adamw"),
    ({"schedule": "step"}, "schedule is 'step'; choose one of"),
    ({"learning_rate": 0.0}, "learning_rate is 0.0; must be above 0"),
    ({"learning_rate": float("nan")}, "learning_rate is nan; must be above 0"),
    ({"probe_rate": -1.0}, "probe_rate is -1.0; must be at least 0"),
    ({"clip_norm": -1.0}, "clip_norm is -1.0; must be at least 0"),
    ({"weight_decay": -0.1}, "weight_decay is -0.1; must be at least 0"),
    ({"warmup_fraction": 1.5}, "warmup_fraction is 1.5; must be"),
    ({"ema_decay": 1.0}, "ema_decay is 1.0; must be at least 0 and below 1"),
    ({"beta1_low": 0.5}, "beta1_low 0.5 is for the schedule one_cycle"),
    (
      {"beta1_low": 0.95, "schedule": "one_cycle"},
      "at most beta1; got schedule 'one_cycle' and beta1 0.9",
    ),
  ],
)
def test_options_refuse_what_cannot_be(changes, message):
  with pytest.raises(ValueError, match=message):
    optimizers.OptimizerOptions(**changes)
