"""Estimators of scikit-learn: what its own tools and checks make of them."""

import pickle

import numpy as np
import pytest
import safetensors.numpy
from sklearn import base, exceptions, linear_model, model_selection, pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

import sne_jax.sklearn
from sne_jax.encoders.baselines import stat_nn
from tests.sharing import models

QUICK = {
  "encoder": "stat_pool",
  "options": stat_nn.StatOptions(width=8),
  "num_steps": 60,
  "batch_size": 8,
  "learning_rate": 1e-2,
  "fit_options": {"devices": 1, "programs": {}},
}
"""The encoder that compiles fastest."""


def quick(kind, **more):
  return kind(**(QUICK | more))


@pytest.fixture(scope="module")
def drawn():
  networks = models.networks(40)
  return list(networks.pairs()), networks.targets[:, 0]


@pytest.fixture(scope="module")
def regressor(drawn):
  return quick(sne_jax.sklearn.SNERegressor).fit(*drawn)


@pytest.fixture(scope="module")
def classifier(drawn):
  pairs, values = drawn
  kinds = np.where(values > np.median(values), 10, 2)
  return quick(sne_jax.sklearn.SNEClassifier).fit(pairs, kinds), kinds


def test_a_regressor_predicts_and_is_scored(regressor, drawn):
  pairs, values = drawn
  found = regressor.predict(pairs)
  assert found.shape == values.shape
  assert regressor.score(pairs, values) > 0.5
  low, high = regressor.predictor_.interval(pairs, coverage=0.5)
  assert (low[:, 0] < found).all() and (found < high[:, 0]).all()


@pytest.mark.slow
def test_columns_of_targets(drawn):
  pairs, values = drawn
  columns = quick(sne_jax.sklearn.SNERegressor, num_steps=2)
  columns.fit(pairs, np.stack([values, -values], axis=1))
  assert columns.predict(pairs).shape == (40, 2)


def test_a_classifier_knows_its_classes(classifier, drawn):
  model, kinds = classifier
  assert model.classes_.tolist() == [2, 10]
  proba = model.predict_proba(drawn[0])
  np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
  np.testing.assert_array_equal(
    model.predict(drawn[0]), np.where(proba[:, 1] > proba[:, 0], 10, 2)
  )
  assert model.score(drawn[0], kinds) > 0.8


def test_all_that_is_a_network_is_taken(regressor, drawn, tmp_path):
  spec, weights = drawn[0][0]
  names = ("0.weight", "0.bias", "2.weight", "2.bias")
  arrays = spec.unflatten(weights).values()
  path = tmp_path / "net.safetensors"
  safetensors.numpy.save_file(dict(zip(names, arrays, strict=True)), path)
  alone = regressor.predict([drawn[0][0]])
  np.testing.assert_allclose(regressor.predict([str(path)]), alone, rtol=1e-5)
  np.testing.assert_allclose(
    regressor.predict(models.networks(40))[:1], alone, rtol=1e-4
  )


def test_the_tools_of_scikit_learn(drawn):
  """Cross-validation, and pipelines with a network's code in the middle."""
  scores = model_selection.cross_val_score(
    quick(sne_jax.sklearn.SNERegressor), *drawn, cv=2
  )
  assert scores.shape == (2,) and scores.min() > 0
  read = FunctionTransformer(lambda given: list(given.pairs()))
  line = pipeline.Pipeline(
    [
      ("read", read),
      ("codes", quick(sne_jax.sklearn.SNERegressor)),
      ("ridge", linear_model.Ridge()),
    ]
  )
  line.set_params(codes__num_steps=20)
  assert (
    line.fit(models.networks(40), drawn[1]).score(models.networks(40), drawn[1])
    > 0.5
  )


def test_a_pickle_predicts_the_same(regressor, classifier, drawn):
  for model in (regressor, classifier[0]):
    before = model.get_params()
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_allclose(
      copy.predict(drawn[0]), model.predict(drawn[0]), rtol=1e-4
    )
    assert copy.get_params().keys() == before.keys()
  fresh = base.clone(regressor)
  assert not hasattr(fresh, "predictor_")
  with pytest.raises(exceptions.NotFittedError):
    pickle.loads(pickle.dumps(fresh)).predict(drawn[0])


def test_wrong_data_are_refused_in_one_line(drawn):
  pairs, values = drawn
  with pytest.raises(ValueError, match="40 networks and y 39 values"):
    quick(sne_jax.sklearn.SNERegressor).fit(pairs, values[:-1])
  with pytest.raises(ValueError, match="at least two classes"):
    quick(sne_jax.sklearn.SNEClassifier).fit(pairs, np.ones(40))
  with pytest.raises(ValueError, match="network 0 is ndarray; give the path"):
    quick(sne_jax.sklearn.SNERegressor).fit(np.ones((4, 3)), np.ones(4))


CHECKED = (
  *("check_no_attributes_set_in_init", "check_get_params_invariance"),
  *("check_set_params", "check_estimator_repr", "check_valid_tag_types"),
  *("check_estimator_tags_renamed", "check_mixin_order"),
  *("check_do_not_raise_errors_in_init_or_set_params",),
  *("check_parameters_default_constructible", "check_estimators_unfitted"),
  *("check_estimator_cloneable",),
)
"""Checks of scikit-learn that make sense here.

All others feed a matrix of numbers to `fit`, and X is a list of networks: what
they ask (that columns, types, sparse and missing values are taken or refused,
that few samples or one feature are) is asked of `Networks` elsewhere.
"""


@pytest.mark.parametrize("kind", ["SNERegressor", "SNEClassifier"])
@pytest.mark.parametrize("name", CHECKED)
def test_the_checks_of_scikit_learn(kind, name):
  check = getattr(estimator_checks, name)
  given = getattr(sne_jax.sklearn, kind)()
  check(kind, given)


def test_scikit_learn_itself_asks_nothing_of_lists():
  """It leaves out what feeds matrices, by the tags of the estimators."""
  given = sne_jax.sklearn.SNERegressor()
  with pytest.warns(exceptions.SkipTestWarning):
    names = [
      c.func.__name__
      for _, c in estimator_checks.estimator_checks_generator(given)
    ]
  assert set(names) <= {*CHECKED}
