"""Predictions, codes and gradients of a trained model."""

import dataclasses
import doctest
import json

import jax
import numpy as np
import optax
import pytest

import sne_jax
from sne_jax import predictor
from sne_jax.encoders.sne import encodings, pace
from sne_jax.encoders.sne import options as sne_options
from sne_jax.learning.data import pipeline
from sne_jax.learning.objectives import invariance
from sne_jax.learning.training import large as large_lib
from sne_jax.learning.training import loop, program, train_state, workdirs
from sne_jax.networks import families
from sne_jax.zoo.store import writing

INR = families.inr(widths=(1, 4, 4, 1))
DEEP = families.mlp((2, 3, 3, 3, 1))


@pytest.fixture(scope="module")
def description():
  options = sne_options.SNEOptions(
    width=8,
    heads=2,
    layer_function="deepsets",
    network_function="deepsets",
    identifier_dim=4,
  )
  return {
    "encoder": "sne",
    "encoder_options": vars(options),
    "chunk_options": {
      "chunk_size": 6,
      "linear_rule": "neuron",
      "conv_rule": "neuron",
    },
    "global_scale": 0.1,
    "place_scales": [],
    "head": {"hidden_width": 8},
    "targets": ["frequency", "amplitude"],
    "loss": "mse",
    "target_mean": [1.0, 2.0],
    "target_spread": [3.0, 4.0],
    "max_level": 2,
  }


@pytest.fixture(scope="module")
def params(description):
  encoder = program.build_encoder(description)
  net = program.build_model(description, encoder)
  return jax.jit(lambda: program.init_params(net, encoder, INR, 0))()


@pytest.fixture(scope="module")
def networks():
  rng = np.random.default_rng(0)
  specs = (INR, DEEP, INR)
  return [(s, families.random_weights(s, rng)) for s in specs]


def test_a_saved_model_predicts_as_before(
  tmp_path, description, params, networks
):
  (tmp_path / "seed0").mkdir()
  folder = tmp_path / "seed0"
  (folder / "model.json").write_text(json.dumps(description))
  with pytest.raises(predictor.PredictorError, match="no trained model yet"):
    predictor.Predictor.load(folder)
  train_state.Checkpoints(folder).save_best(1, params, {"loss": 1.0})
  here = predictor.Predictor(description, params)
  loaded = predictor.Predictor.load(folder)
  np.testing.assert_allclose(
    loaded.predict(networks), here.predict(networks), atol=1e-6
  )
  both = predictor.Predictor.load(tmp_path)
  assert len(both.params) == 1
  np.testing.assert_allclose(
    both.predict(networks), here.predict(networks), atol=1e-6
  )
  with pytest.raises(predictor.PredictorError, match=r"holds no model\.json"):
    predictor.Predictor.load(tmp_path / "nothing")


def test_an_unfinished_run_loads_its_finished_seeds(
  tmp_path, description, params, caplog
):
  for name in ("seed0", "seed1", "seed2"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "model.json").write_text(json.dumps(description))
  other = jax.tree.map(lambda x: 2 * x, params)
  train_state.Checkpoints(tmp_path / "seed0").save_best(1, other, {})
  train_state.Checkpoints(tmp_path / "seed1").save_best(1, params, {})
  workdirs.finish(tmp_path / "seed1", {"result.json": "{}"})
  with caplog.at_level("WARNING", logger="absl"):
    loaded = predictor.Predictor.load(tmp_path)
  assert len(loaded.params) == 1
  for one, two in zip(
    jax.tree.leaves(loaded.params[0]), jax.tree.leaves(params), strict=True
  ):
    np.testing.assert_array_equal(one, two)
  [record] = caplog.records
  assert "seed0, seed2 left out" in record.getMessage()


@pytest.mark.slow
def test_order_and_company_do_not_matter(description, params, networks):
  model = predictor.Predictor(description, params, batch_size=2)
  found = model.predict(networks)
  assert found.shape == (3, 2)
  turned = model.predict(networks[::-1])
  np.testing.assert_allclose(turned[::-1], found, atol=1e-5)
  alone = np.concatenate([model.predict([n]) for n in networks])
  np.testing.assert_allclose(alone, found, atol=1e-5)
  assert model.encode(networks).shape == (3, 8)
  scaled = model.logits(networks) * [3.0, 4.0] + [1.0, 2.0]
  np.testing.assert_allclose(scaled, found, rtol=1e-5)


def test_the_gradient_is_that_of_finite_differences(
  description, params, networks
):
  model = predictor.Predictor(description, params)
  spec, weights = networks[0]
  predict = jax.jit(lambda w: model.function(spec)(w)[0])
  assert predict(weights) == pytest.approx(
    model.predict([networks[0]])[0, 0], abs=1e-5
  )
  gradient = jax.grad(predict)(weights)
  assert gradient.shape == weights.shape
  direction = np.random.default_rng(1).standard_normal(len(weights))
  direction = (direction / np.linalg.norm(direction)).astype(np.float32)
  step = 2e-3
  slope = (
    predict(weights + step * direction) - predict(weights - step * direction)
  ) / (2 * step)
  assert float(gradient @ direction) == pytest.approx(
    float(slope), rel=5e-2, abs=1e-2
  )


def test_forward_mode_and_vmap_agree_with_the_gradient(
  description, params, networks
):
  function = predictor.Predictor(description, params).function(INR)
  weights = np.stack([networks[0][1], networks[2][1]])
  direction = np.random.default_rng(1).standard_normal(weights.shape[1])
  direction = direction.astype(np.float32)

  def both(w):
    value, slope = jax.jvp(function, (w,), (direction,))
    rows = jax.vmap(lambda t: jax.vjp(function, w)[1](t)[0])(np.eye(len(value)))
    return slope, rows, jax.jacfwd(function)(w)

  slopes, backward, forward = jax.jit(jax.vmap(both))(weights)
  np.testing.assert_allclose(forward, backward, rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(slopes, backward @ direction, rtol=1e-3, atol=1e-3)


def test_nothing_to_predict_is_said(description, params):
  with pytest.raises(ValueError, match="no networks given"):
    predictor.Predictor(description, params).predict([])


@pytest.mark.slow
def test_a_trained_run_is_loaded_and_reads_zoo_members(
  tmp_path, description, params
):
  rng = np.random.default_rng(3)
  vectors = np.stack([families.random_weights(INR, rng) for _ in range(6)])
  others = np.stack([families.random_weights(DEEP, rng) for _ in range(2)])
  zoo = writing.write_zoo(
    tmp_path / "zoo",
    specs=[INR, DEEP],
    weights=[vectors, others],
    ids=[f"m{n}" for n in range(8)],
    spec_numbers=[0, 1, 0, 0, 1, 0, 0, 0],
    rows=[0, 0, 1, 2, 1, 3, 4, 5],
  )
  members = zoo.vectors(np.arange(8))
  numbers = np.asarray(zoo.members["spec"])
  networks = pipeline.Networks(
    tuple(zoo.specs), numbers, members, np.ones((8, 2))
  )
  encoder = program.build_encoder(description)
  net = program.build_model(description, encoder)
  tx = optax.adam(1e-2)
  batches = pipeline.Pipeline(
    networks,
    encoder.make_packer(zoo.specs),
    pipeline.DataOptions(batch_size=4),
    seed=0,
  )
  options = invariance.InvarianceOptions()
  result = loop.fit(
    loop.init_state(params, tx, jax.random.key(0)),
    loop.make_update_fn(invariance.make_loss(net, "mse", options), tx),
    lambda step: jax.tree.map(lambda x: x[0], batches(step)),
    None,
    loop.TrainOptions(num_steps=2),
    tmp_path / "run",
  )
  (tmp_path / "run" / "model.json").write_text(json.dumps(description))
  model = predictor.Predictor.load(tmp_path / "run", batch_size=4)
  assert isinstance(model, predictor.Predictor)
  given = [(zoo.specs[n], w) for n, w in zip(numbers, members, strict=True)]
  expected = predictor.Predictor(description, result.best_params)
  found = model.predict(given)
  assert found.shape == (8, 2)
  np.testing.assert_allclose(found, expected.predict(given), atol=1e-5)
  untrained = predictor.Predictor(description, params).predict(given)
  assert np.abs(found - untrained).max() > 1e-4
  # Weights on the device are as good as those on the host.
  one = [(given[1][0], jax.numpy.asarray(given[1][1]))]
  np.testing.assert_allclose(model.predict(one), found[1:2], atol=1e-5)


def test_deeper_networks_are_encoded_with_one_warning(
  description, params, networks, caplog
):
  model = predictor.Predictor(description, params)
  with caplog.at_level("WARNING", logger="absl"):
    model.predict(networks[:1])
    assert not caplog.records
    assert np.isfinite(model.predict(networks)).all()
    model.encode(networks)
    model.function(DEEP)
  [record] = caplog.records
  assert "up to 4 levels" in record.getMessage()
  assert "no more than 3" in record.getMessage()


def test_learned_levels_beyond_the_table_share_its_last_row():
  module = encodings.LevelEncoding(4, "learned", max_levels=3)
  levels = np.array([[0, 0], [1, 0.1], [2, 0.2], [3, 0.3], [99, 1]], np.float32)
  codes, _ = module.init_with_output(jax.random.key(0), levels)
  assert np.isfinite(codes).all()
  assert (codes[1] != codes[2]).any()
  np.testing.assert_array_equal(codes[2:], np.stack([codes[2]] * 3))


def test_a_damaged_description_is_one_clear_error(
  tmp_path, description, params
):
  train_state.Checkpoints(tmp_path).save_best(1, params, {})
  wrong = {k: v for k, v in description.items() if k != "targets"}
  wrong_options = description | {"encoder_options": {"width": 7, "heads": 2}}
  for text in ("{", json.dumps(wrong), json.dumps(wrong_options)):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(
      predictor.PredictorError, match=r"model\.json describes"
    ):
      predictor.Predictor.load(tmp_path)


def test_an_encoder_that_is_not_registered_is_named(
  tmp_path, description, params
):
  train_state.Checkpoints(tmp_path).save_best(1, params, {})
  text = json.dumps(description | {"encoder": "mine"})
  (tmp_path / "model.json").write_text(text)
  with pytest.raises(
    predictor.PredictorError,
    match=r"encoder 'mine'.* --encoder_file, or in Python import the file",
  ):
    predictor.Predictor.load(tmp_path)


def test_wrong_weights_are_named(description, params, networks):
  model = predictor.Predictor(description, params)
  spec, weights = networks[0]
  with pytest.raises(
    ValueError, match=r"inr of .* got weights of shape \(3,\)"
  ):
    model.predict([(spec, weights[:3])])
  with pytest.raises(ValueError, match=r"got weights of shape .* jax\.vmap"):
    model.function(spec)(weights[None])


def test_several_seeds_are_a_mean_and_one_program(
  description, params, networks, monkeypatch
):
  spec, weights = networks[0]
  trees = [jax.tree.map(lambda x, f=f: f * x, params) for f in (1.0, 1.1, 0.9)]
  traces = []
  outputs = program.Program._outputs

  def counted(self, params, packed):
    traces.append(packed.weights.shape)
    return outputs(self, params, packed)

  monkeypatch.setattr(program.Program, "_outputs", counted)
  packed = []
  batches = program.Program.batches
  monkeypatch.setattr(
    program.Program,
    "batches",
    lambda self, given: packed.append(1) or batches(self, given),
  )
  both = predictor.Predictor(description, trees)
  found = both.predict(networks)
  assert len(traces) == len(packed) == 1  # Whatever the number of seeds.
  parts = [predictor.Predictor(description, t).predict(networks) for t in trees]
  assert np.abs(parts[0] - parts[1]).max() > 1e-4
  np.testing.assert_allclose(found, np.mean(parts, axis=0), atol=1e-5)
  assert both.encode(networks).shape == (3, 24)
  function = both.function(spec)
  np.testing.assert_allclose(function(weights), found[0], atol=1e-4)
  _, slope = jax.jvp(function, (weights,), (weights,))  # Forward mode too.
  backward = jax.grad(lambda w: function(w)[0])(weights) @ weights
  assert slope[0] == pytest.approx(float(backward), rel=1e-3, abs=1e-4)
  with pytest.raises(ValueError, match="at least one seed"):
    predictor.Predictor(description, [])


def test_seeds_of_different_models_are_refused(tmp_path, description, params):
  renamed = description | {"targets": ["frequency", "phase"]}
  for seed, one in enumerate((description, renamed)):
    folder = tmp_path / f"seed{seed}"
    train_state.Checkpoints(folder).save_best(1, params, {})
    (folder / "model.json").write_text(json.dumps(one))
  with pytest.raises(predictor.PredictorError, match="their targets differ"):
    predictor.Predictor.load(tmp_path)


@pytest.mark.slow
def test_probabilities_are_between_zero_and_one(description, params, networks):
  model = predictor.Predictor(description | {"loss": "bce"}, params)
  found = model.predict(networks)
  expected = 1 / (1 + np.exp(-model.logits(networks)))
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  spec, weights = networks[0]
  np.testing.assert_allclose(model.function(spec)(weights), found[0], atol=1e-5)


@pytest.fixture(scope="module")
def of_classes(description, params):
  """A model of three classes, which shares its encoder with `params`."""
  known = {k: v for k, v in description.items() if "target_" not in k}
  known |= {"targets": ["optimizer"], "loss": "classes"}
  known |= {"classes": ["adam", "rmsprop", "sgd"]}
  kernel = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
  head = {"kernel": kernel, "bias": np.array([0.0, 1.0, -1.0], np.float32)}
  own = {"params": {**params["params"], "logits": head}}
  return predictor.Predictor(known, own)


@pytest.fixture(scope="module")
def probabilities(of_classes, networks):
  return of_classes.predict(networks)


def test_classes_have_probabilities(of_classes, probabilities, networks):
  assert of_classes.classes == ("adam", "rmsprop", "sgd")
  logits = of_classes.logits(networks)
  assert probabilities.shape == logits.shape == (3, 3)
  expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  np.testing.assert_allclose(probabilities, expected, rtol=1e-5)
  spec, weights = networks[0]
  found = jax.jit(of_classes.function(spec))(weights)
  np.testing.assert_allclose(found, probabilities[0], atol=1e-5)


def test_the_head_has_a_logit_for_each_class(of_classes):
  encoder = program.build_encoder(of_classes.description)
  net = program.build_model(of_classes.description, encoder)
  shapes = jax.eval_shape(lambda: program.init_params(net, encoder, INR, 0))
  assert shapes["params"]["logits"]["kernel"].shape == (8, 3)


def test_a_saved_model_of_classes_predicts_as_before(
  tmp_path, of_classes, probabilities, networks
):
  train_state.Checkpoints(tmp_path).save_best(1, of_classes.params[0], {})
  description = of_classes.description
  (tmp_path / "model.json").write_text(json.dumps(description))
  loaded = predictor.Predictor.load(tmp_path)
  assert loaded.classes == ("adam", "rmsprop", "sgd")
  np.testing.assert_allclose(loaded.predict(networks), probabilities, atol=1e-6)
  nameless = {k: v for k, v in description.items() if k != "classes"}
  (tmp_path / "model.json").write_text(json.dumps(nameless))
  with pytest.raises(predictor.PredictorError, match=r"model\.json describes"):
    predictor.Predictor.load(tmp_path)


def test_seeds_give_the_mean_of_probabilities(
  of_classes, probabilities, networks
):
  trees = [*of_classes.params, jax.tree.map(lambda x: -x, of_classes.params[0])]
  both = predictor.Predictor(of_classes.description, trees)
  other = predictor.Predictor(of_classes.description, trees[1])
  np.testing.assert_allclose(
    both.predict(networks),
    (probabilities + other.predict(networks)) / 2,
    rtol=1e-5,
  )


def test_numbers_have_no_classes(description, params):
  assert predictor.Predictor(description, params).classes == ()


@pytest.mark.slow
def test_random_identifiers_are_averaged_over_fixed_draws(
  description, networks
):
  options = description["encoder_options"] | {"identifiers": "random"}
  random = description | {"encoder_options": options}
  encoder = program.build_encoder(random)
  net = program.build_model(random, encoder)
  params = jax.jit(lambda: program.init_params(net, encoder, INR, 0))()
  one, two = (
    predictor.Predictor(random, params, draws=n).logits(networks[:1])
    for n in (1, 2)
  )
  again = predictor.Predictor(random, params, draws=1).logits(networks[:1])
  np.testing.assert_array_equal(one, again)
  assert np.abs(one - two).max() > 1e-6


def test_public_names_exist():
  assert {"Predictor", "NetworkSpec", "SNE", "Zoo"} <= set(sne_jax.__all__)
  for name in sne_jax.__all__:
    assert hasattr(sne_jax, name), name


def test_the_example_of_the_package_runs():
  done = doctest.testmod(sne_jax)
  assert done.failed == 0 and done.attempted == 3


@pytest.mark.slow
@pytest.mark.parametrize("identifiers", ["content", "random"])
def test_large_networks_are_predicted_as_small_ones(
  description, params, networks, identifiers
):
  options = description["encoder_options"] | {"identifiers": identifiers}
  description = description | {"encoder_options": options}
  many = {"stream_above": INR.num_weights, "draws": 2}
  mixed = predictor.Predictor(description, params, **many)
  alone = predictor.Predictor(description, params, draws=2)
  assert DEEP.num_weights > INR.num_weights
  # One at a time: random identifiers depend on the place in a batch.
  at_once = np.concatenate([alone.predict([net]) for net in networks])
  got = np.concatenate([mixed.predict([net]) for net in networks])
  np.testing.assert_allclose(got, at_once, rtol=1e-4)
  spec, weights = networks[0]
  tensors = spec.unflatten(weights)
  found = alone.encode([(spec, tensors), (spec, weights)])
  np.testing.assert_allclose(found[0], alone.encode(networks[:1])[0], rtol=1e-4)
  tensors.pop(spec.tensors[0].name)
  with pytest.raises(ValueError, match="is missing"):
    alone.predict([(spec, tensors)])


def test_a_limit_that_cannot_be_held_is_named(
  tmp_path, description, params, monkeypatch
):
  train_state.Checkpoints(tmp_path).save_best(1, params, {})
  (tmp_path / "model.json").write_text(json.dumps(description))
  with pytest.raises(program.MemoryLimitError, match="set it to at least"):
    predictor.Predictor.load(tmp_path, memory_limit=1)
  build = program.build_encoder
  monkeypatch.setattr(
    program,
    "build_encoder",
    lambda found: dataclasses.replace(build(found), make_large_fn=None),
  )
  assert not predictor.Predictor.load(tmp_path).can_stream
  with pytest.raises(program.MemoryLimitError, match="no form of bounded"):
    predictor.Predictor.load(tmp_path, memory_limit=2**30)


def test_what_takes_long_is_announced_before_and_may_be_refused(
  description, params, networks, monkeypatch
):
  monkeypatch.setattr(pace, "FEW_PARTS", 0)
  told = []

  def refuse(spec, seconds):
    told.append((spec, seconds))
    raise ValueError("not now")

  large = {"stream_above": 0, "draws": 1}
  asking = predictor.Predictor(
    description, [params] * 2, **large, long_seconds=0, before_long=refuse
  )
  with pytest.raises(ValueError, match="not now"):
    asking.predict(networks[:1])
  ((spec, seconds),) = told  # Once, of both seeds.
  assert spec == networks[0][0] and seconds > 0
  patient = predictor.Predictor(
    description, [params] * 2, **large, long_seconds=1e9, before_long=refuse
  )
  codes = patient.encode(networks[:1])
  assert len(told) == 1  # The control: it is not long.
  shown = []
  monkeypatch.setattr(
    large_lib.progress_lib.Progress,
    "update",
    lambda self, *now: shown.append(now),
  )
  calm = predictor.Predictor(description, [params] * 2, **large, long_seconds=0)
  np.testing.assert_allclose(calm.encode(networks[:1]), codes, rtol=1e-5)
  assert shown[-1] == (100, 100) and shown == sorted(shown)
  assert {50} < {done for done, _ in shown}  # The first seed of two.


def test_judgements_as_a_frame(description, params, networks):
  model = predictor.Predictor(description, params)
  judged = model.judge(networks)
  table = model.to_frame(networks, library="arrow").to_pydict()
  names = [f"network {n}" for n in range(len(networks))]
  assert table["network"] == names
  for t, name in enumerate(description["targets"]):
    for column, values in (
      (name, judged.predictions),
      (f"{name} low", judged.low),
      (f"{name} high", judged.high),
    ):
      np.testing.assert_array_equal(table[column], values[:, t])
  assert table["known"] == judged.known.tolist()
  with pytest.raises(ValueError, match="library is 'xls'"):
    model.to_frame(networks, library="xls")
