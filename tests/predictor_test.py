"""Predictions, codes and gradients of a trained model."""

import json

import jax
import numpy as np
import pytest

from sne_jax import predictor
from sne_jax.encoders import sne_options
from sne_jax.learning import checkpoint
from sne_jax.networks import families

INR = families.inr(widths=(1, 4, 4, 1))
DEEP = families.mlp((2, 3, 3, 3, 1))


@pytest.fixture(scope="module")
def description():
  options = sne_options.SNEOptions(
    width=8, heads=2, layer_blocks=1, network_blocks=1, identifier_dim=4
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
  encoder = predictor.build_encoder(description)
  net = predictor.build_model(description, encoder)
  return jax.jit(lambda: predictor.init_params(net, encoder, INR, 0))()


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
  checkpoint.Checkpoints(folder).save_best(1, params, {"loss": 1.0})
  here = predictor.Predictor(description, params)
  loaded = predictor.Predictor.load(folder)
  np.testing.assert_allclose(
    loaded.predict(networks), here.predict(networks), atol=1e-6
  )
  both = predictor.Predictor.load(tmp_path)
  assert isinstance(both, predictor.Ensemble)
  np.testing.assert_allclose(
    both.predict(networks), here.predict(networks), atol=1e-6
  )
  with pytest.raises(predictor.PredictorError, match=r"holds no model\.json"):
    predictor.Predictor.load(tmp_path / "nothing")


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


def test_nothing_to_predict_is_said(description, params):
  with pytest.raises(ValueError, match="no networks given"):
    predictor.Predictor(description, params).predict([])
