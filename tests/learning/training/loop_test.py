"""The loop: noise, best by validation, stopping, divergence, restarts."""

import math
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sne_jax import room
from sne_jax.learning.data import prefetch
from sne_jax.learning.training import (
  loop,
  observing,
  optimizers,
  train_state,
)
from sne_jax.learning.training import records as logging

OPTIONS = {"log_every": 10, "eval_every": 10, "save_every": 10}


def noisy_loss(params, batch, key):
  """Linear regression on inputs of which a random half is dropped."""
  kept = jax.random.bernoulli(key, 0.5, batch["x"].shape)
  error = (batch["x"] * kept) @ params["w"] - batch["y"]
  return jnp.mean(error**2), {"kept": jnp.mean(kept.astype(jnp.float32))}


def make_batch(step):
  """Four rows, a function of the step."""
  x = np.random.default_rng(step).normal(size=(4, 3)).astype(np.float32)
  return {"x": x, "y": x @ np.array([1, -2, 3], np.float32)}


def distance(params):
  """A validation metric that falls during training."""
  return {"mse": float(np.sum((np.asarray(params["w"]) - [1, -2, 3]) ** 2))}


@pytest.fixture(scope="module")
def problem():
  """Returns `start() -> state` and the update function, compiled once."""
  tx = optax.adam(0.02)
  update = loop.make_update_fn(noisy_loss, tx)
  state = loop.init_state({"w": jnp.zeros(3)}, tx, jax.random.key(3))
  host = jax.device_get(state._replace(key=None))

  def start():
    fresh = jax.tree.map(jnp.array, host)
    return fresh._replace(key=jax.random.key(3))

  return start, update


def scripted(values):
  """An evaluation that gives the next of the values at every call."""
  left = iter(values)
  return lambda params: {"mse": next(left), "test": -time.monotonic()}


def fit(problem, num_steps, evaluate=distance, workdir=None, **changes):
  """Trains with short intervals."""
  start, update = problem
  options = loop.TrainOptions(
    num_steps=num_steps, **({"monitor": "mse"} | OPTIONS | changes)
  )
  return loop.fit(start(), update, make_batch, evaluate, options, workdir)


def lasting(records):
  """The records without clocks, which no run reproduces."""
  return [
    {k: v for k, v in r.items() if not k.startswith("time/")} for r in records
  ]


def same_bits(a, b):
  """Whether two trees of arrays are equal, bit for bit."""
  return jax.tree.all(
    jax.tree.map(
      lambda x, y: np.asarray(x).tobytes() == np.asarray(y).tobytes(), a, b
    )
  )


def test_training_reduces_the_loss_and_counts_updates(problem):
  result = fit(problem, 200)
  assert int(result.state.step) == 200
  assert result.best_metrics["mse"] < 0.5 * distance({"w": np.zeros(3)})["mse"]
  train = [r for r in result.history if "train/loss" in r]
  assert [r["step"] for r in train] == list(range(10, 201, 10))
  assert {"train/loss", "train/grad_norm", "train/kept"} <= train[0].keys()


def test_steps_draw_different_noise(problem):
  start, update = problem
  state, batch = start(), make_batch(0)
  kept = []
  for _ in range(8):
    state, metrics = update(state, batch)
    kept.append(float(metrics["kept"]))
  assert len(set(kept)) > 1
  # Update 0 draws from the key folded with 0.
  key = jax.random.fold_in(jax.random.key(3), 0)
  assert kept[0] == jax.random.bernoulli(key, 0.5, (4, 3)).mean()


def test_the_state_owns_its_arrays():
  params, key = {"w": jnp.zeros(3)}, jax.random.key(3)
  tx = optax.sgd(0.1)
  state = loop.init_state(params, tx, key, ema_decay=0.9)
  update = loop.make_update_fn(noisy_loss, tx, ema_decay=0.9)
  after, _ = update(state, make_batch(0))
  assert state.params["w"].is_deleted()
  assert not params["w"].is_deleted() and not key.is_deleted()
  # The average starts with decay 1 / 10.
  np.testing.assert_allclose(after.ema["w"], 0.9 * after.params["w"], rtol=1e-6)
  assert after.eval_params is after.ema


def test_averaged_parameters_are_what_is_evaluated_and_kept(tmp_path):
  tx = optax.adam(0.1)
  update = loop.make_update_fn(noisy_loss, tx, ema_decay=0.999)
  state = loop.init_state(
    {"w": jnp.zeros(3)}, tx, jax.random.key(3), ema_decay=0.999
  )
  seen = []

  def evaluate(params):
    seen.append(np.array(params["w"]))
    return {"mse": -float(len(seen))}  # The last is the best.

  options = loop.TrainOptions(num_steps=20, monitor="mse", **OPTIONS)
  result = loop.fit(state, update, make_batch, evaluate, options, tmp_path)
  kept, _ = train_state.load_best(tmp_path)
  average, last = result.state.ema, result.state.params
  for found in ({"w": seen[-1]}, kept, result.best_params):
    assert same_bits(found, average) and not same_bits(found, last)
  assert np.abs(average["w"] - last["w"]).max() < 0.2


def test_half_precision_losses_keep_full_precision_parameters():
  def loss_fn(params, batch, key):
    half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), (params, batch))
    assert half[0]["w"].dtype == jnp.bfloat16
    loss, _ = noisy_loss(*half, key)
    return loss, {}

  tx = optax.sgd(1e-4)
  state = loop.init_state(
    {"w": jnp.ones(3)}, tx, jax.random.key(0), ema_decay=0.5
  )
  update = loop.make_update_fn(loss_fn, tx, ema_decay=0.5)
  for step in range(3):
    state, metrics = update(state, make_batch(step))
  assert {x.dtype for x in jax.tree.leaves((state.params, state.ema))} == {
    jnp.dtype("float32")
  }
  # Steps of some 1e-4 around 1 would be lost in bfloat16.
  assert 0 < np.abs(state.params["w"] - 1).max() < 2e-3
  assert math.isfinite(metrics["loss"])


def test_the_best_is_chosen_by_the_monitored_metric_only(problem):
  result = fit(problem, 40, scripted([3.0, 1.0, 2.0, 1.0]))
  assert result.best_step == 20  # The first of equals.
  assert result.best_metrics["mse"] == 1.0
  upto = fit(problem, 20, scripted([3.0, 1.0]))
  assert same_bits(result.best_params, upto.state.params)
  assert not same_bits(result.best_params, result.state.params)


def test_values_that_are_no_numbers_are_never_the_best(problem):
  nan = math.nan
  result = fit(problem, 30, scripted([nan, 2.0, -math.inf]))
  assert result.best_step == 20
  never = fit(problem, 10, scripted([nan]))
  assert (never.best_step, never.best_metrics) == (10, {})
  assert same_bits(never.best_params, never.state.params)


def test_without_evaluation_the_last_parameters_are_the_best(problem, tmp_path):
  for _ in range(2):  # Also when a finished run is started again.
    result = fit(problem, 10, None, tmp_path)
    params, found = train_state.load_best(tmp_path)
    assert found == {"step": 10} and same_bits(params, result.state.params)


def test_training_stops_early_and_stays_stopped(problem, tmp_path):
  values = [3.0, 2.0, 2.5, 2.0, 0.0]
  result = fit(problem, 100, scripted(values), tmp_path, patience=2)
  assert result.stopped_early
  assert (int(result.state.step), result.best_step) == (40, 20)
  again = fit(problem, 100, scripted([]), tmp_path, patience=2)
  assert (int(again.state.step), again.best_step) == (40, 20)
  assert again.stopped_early and same_bits(
    again.best_params, result.best_params
  )
  patient = fit(problem, 50, scripted(values), patience=3)
  assert (int(patient.state.step), patient.best_step) == (50, 50)


def test_patience_survives_a_restart(problem, tmp_path):
  fit(problem, 30, scripted([3.0, 2.0, 2.5]), tmp_path, patience=2)
  result = fit(problem, 100, scripted([2.0]), tmp_path, patience=2)
  assert int(result.state.step) == 40


def test_seconds_count_training_and_not_evaluating(problem, tmp_path):
  def slow(params):
    time.sleep(0.5)
    return distance(params)

  fit(problem, 1)  # Compiles.
  first = fit(problem, 20, slow, tmp_path)
  assert 0 < first.seconds < 1.0
  second = fit(problem, 21, slow, tmp_path)
  # One step more, and never less than what was saved with the checkpoint.
  assert 0.5 * first.seconds < second.seconds < first.seconds + 0.5


def test_a_monitor_that_is_not_measured_is_named(problem):
  with pytest.raises(ValueError, match="monitor is 'tau', which .* gives mse"):
    fit(problem, 10, monitor="tau")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"num_steps": 0}, "num_steps is 0; must be at least 1"),
    ({"log_every": 0}, "log_every is 0; must be at least 1"),
    ({"patience": -1}, "patience is -1; must be at least 0"),
    ({"monitor": "test/mse"}, "choosing by test metrics"),
  ],
)
def test_options_refuse_what_cannot_be(changes, message):
  with pytest.raises(ValueError, match=message):
    loop.TrainOptions(**changes)


def broken(step):
  """A batch that is not finite from update 25 on."""
  batch = make_batch(step)
  return batch if step < 25 else batch | {"y": np.full(4, np.inf, np.float32)}


def test_divergence_is_an_error_and_nothing_is_saved_over(problem, tmp_path):
  start, update = problem
  options = loop.TrainOptions(
    num_steps=100, monitor="mse", **(OPTIONS | {"log_every": 100})
  )
  with pytest.raises(
    loop.TrainingDiverged, match="step 30 the loss is .*learning rate"
  ) as caught:
    loop.fit(start(), update, broken, distance, options, tmp_path)
  assert caught.value.step == 30 and not math.isfinite(caught.value.loss)
  assert train_state.Checkpoints(tmp_path).latest_step == 20
  params, found = train_state.load_best(tmp_path)
  assert np.isfinite(params["w"]).all() and found["step"] == 20


def test_parameters_that_are_not_finite_are_not_saved(problem, tmp_path):
  start, update = problem

  def overflow(state, batch):
    state, metrics = update(state, batch)
    metrics = metrics | {"loss": jnp.float32(1), "grad_norm": jnp.float32(1)}
    return state, metrics

  with pytest.raises(loop.TrainingDiverged, match=r"parameters\['w'\]"):
    loop.fit(
      start(),
      overflow,
      broken,
      distance,
      loop.TrainOptions(num_steps=100, monitor="mse", **OPTIONS),
      tmp_path,
    )
  assert train_state.Checkpoints(tmp_path).latest_step == 20


def test_a_continued_run_equals_an_unbroken_one(problem, tmp_path):
  unbroken = fit(problem, 60, workdir=tmp_path / "unbroken", save_every=7)
  for stop in (9, 31, 60):
    broken = fit(problem, stop, workdir=tmp_path / "broken", save_every=7)
  assert same_bits(broken.state.params, unbroken.state.params)
  assert same_bits(broken.state.opt_state, unbroken.state.opt_state)
  assert same_bits(broken.best_params, unbroken.best_params)
  assert broken.best_metrics == unbroken.best_metrics
  # Each stop is a last step, which is recorded in addition.
  steps = {r["step"] for r in unbroken.history}
  kept = [r for r in broken.history if r["step"] in steps]
  assert lasting(kept) == lasting(unbroken.history)


def test_rates_of_learned_inputs_are_continued_too(tmp_path):
  """Averaged, and with rates that move: to the bit, as without a stop."""

  def loss_fn(params, batch, key):
    return noisy_loss({"w": params["w"] * params["probes"]}, batch, key)

  how = optimizers.OptimizerOptions(probe_rate=0.1, learning_rate=0.01)
  tx = optimizers.make_optimizer(how, 30)
  update = loop.make_update_fn(loss_fn, tx, ema_decay=0.9)

  def run(steps, folder):
    given = {"w": jnp.ones(3), "probes": jnp.ones(3)}
    state = loop.init_state(given, tx, jax.random.key(3), ema_decay=0.9)
    options = loop.TrainOptions(num_steps=steps, monitor="mse", **OPTIONS)
    return loop.fit(state, update, make_batch, distance, options, folder)

  unbroken, _ = run(30, tmp_path / "one"), run(10, tmp_path / "two")
  continued = run(30, tmp_path / "two")
  for name in ("params", "opt_state", "ema"):
    pair = (getattr(r.state, name) for r in (unbroken, continued))
    assert same_bits(*pair)
  moved = jax.tree.map(lambda x: np.abs(x - 1).max(), unbroken.state.params)
  assert moved["probes"] > 3 * moved["w"]


def test_a_training_that_will_not_fit_is_not_begun(
  problem, tmp_path, monkeypatch
):
  start, update = problem
  options = loop.TrainOptions(num_steps=4, monitor="mse", **OPTIONS)
  asked = []

  def free(folder):
    asked.append(folder)
    return 900_000

  monkeypatch.setattr(room, "free", free)
  begin = lambda ahead: loop.fit(
    *(start(), update, make_batch, distance, options, tmp_path / "run"),
    ahead=ahead,
  )
  with pytest.raises(room.NoRoom, match=f"{tmp_path}.*training of 3 seeds"):
    begin(3)
  assert not list(tmp_path.iterdir())
  assert begin(1).state.step == 4  # One has room.


def test_a_finished_run_is_only_read(problem, tmp_path):
  first = fit(problem, 20, workdir=tmp_path)
  with logging.MetricWriter(tmp_path) as writer:
    writer.write(20, {"test/mse": 1.0})
  again = fit(problem, 20, workdir=tmp_path)
  assert again.history == first.history  # The caller tests again.
  assert again.seconds == pytest.approx(first.seconds, abs=0.5)
  assert same_bits(again.best_params, first.best_params)


def test_batches_come_in_order_from_one_other_thread():
  seen = []

  def batch_fn(step):
    seen.append((step, threading.get_ident()))
    time.sleep(0.001 * (step % 3))
    return step

  assert list(prefetch.prefetch(batch_fn, 3, 20)) == list(range(3, 20))
  assert [step for step, _ in seen] == list(range(3, 20))
  (thread,) = {thread for _, thread in seen}
  assert thread != threading.get_ident()


def test_at_most_two_batches_are_prepared_ahead():
  asked = []
  batches = prefetch.prefetch(lambda s: asked.append(s) or s, 0, 100)
  assert next(batches) == 0
  deadline = time.monotonic() + 10
  while len(asked) < 3 and time.monotonic() < deadline:
    time.sleep(0.01)
  time.sleep(0.02)
  assert asked == [0, 1, 2]
  batches.close()
  assert not [t for t in threading.enumerate() if "prefetch" in t.name]


def test_a_failing_batch_is_raised_at_its_place():
  def batch_fn(step):
    if step == 5:
      raise KeyError("member 5")
    return step

  batches = prefetch.prefetch(batch_fn, 0, 100)
  assert [next(batches) for _ in range(5)] == [0, 1, 2, 3, 4]
  with pytest.raises(KeyError, match="member 5"):
    next(batches)


@pytest.mark.parametrize(
  ("metric", "best"), [("kendall_tau", 0), ("mse", 1), ("unheard_of", 1)]
)
def test_which_value_of_a_metric_is_better(metric, best):
  options = loop.TrainOptions(monitor=metric)
  record = train_state.LoopRecord()
  for step, value in enumerate((0.9, 0.1, 0.5)):
    record = observing.judge(record, step, {metric: value}, options)
  assert record.best_step == best
