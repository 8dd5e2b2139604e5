"""Fine-tuning populations: the steps of a zoo, from a given start."""

import numpy as np
import pytest

from sne_jax.networks import families
from sne_jax.zoo.classifiers import fine_tune, fit, generate, images, options

TRAIN, SPARE, TEST, CLASSES = 40, 12, 20, 3
SHAPE = (1, 4, 4)


def image_set(seed=0):
  rng = np.random.default_rng(seed)
  x = rng.integers(0, 256, (TRAIN + SPARE + TEST, *SHAPE), np.uint8)
  y = (x[:, 0, 0, 0] > 127).astype(np.int64) + (x[:, 0, 1, 1] > 200)
  first = TRAIN + SPARE
  return images.Images(x[:first], y[:first], x[first:], y[first:], CLASSES)


SPEC = families.architecture("mlp", SHAPE, CLASSES, "tanh")
PARTS = fine_tune.image_parts(image_set(), TRAIN, 300)
SETTINGS = fine_tune.TuneSettings(
  optimizer="momentum", learning_rate=0.02, weight_decay=0.01, batch_size=8
)


@pytest.fixture(scope="module")
def tuner():
  return fine_tune.Tuner(SPEC, PARTS, SETTINGS, slots=4)


def keys(count):
  return fit.member_keys(5, np.arange(count))


def test_spare_training_images_are_chosen_by():
  data = image_set()
  assert PARTS.sizes == (TRAIN, SPARE, TEST)
  np.testing.assert_array_equal(PARTS.labels[TRAIN:-TEST], data.y_train[TRAIN:])
  np.testing.assert_array_equal(PARTS.pixels[-TEST:], data.x_test)
  few = fine_tune.image_parts(data, TRAIN, 5)
  assert few.sizes == (TRAIN, 5, TEST) and len(few.pixels) == TRAIN + 5 + TEST


def test_without_spare_images_some_test_images_are_chosen_by_alone():
  data = image_set()
  parts = fine_tune.image_parts(data, 0, 8)
  assert parts.sizes == (TRAIN + SPARE, 8, TEST - 8)
  np.testing.assert_array_equal(
    parts.pixels, np.concatenate([data.x_train, data.x_test])
  )
  np.testing.assert_array_equal(parts.labels[-12:], data.y_test[8:])
  with pytest.raises(ValueError, match="too few to choose by 20"):
    fine_tune.image_parts(data, 0, TEST)
  with pytest.raises(ValueError, match="cannot train on 60"):
    fine_tune.image_parts(data, 60, 8)


def test_fresh_networks_become_those_of_a_zoo(tuner, tmp_path):
  """Same start and same steps as `generate_image_zoo`, to the bit."""
  data = image_set()
  made = generate.generate_image_zoo(
    tmp_path / "zoo",
    options.ImageZooOptions(
      num_networks=4,
      seed=5,
      architecture="mlp",
      activation="tanh",
      optimizer="momentum",
      initializer="he_normal",
      learning_rate="0.02",
      weight_decay="0.01",
      dropout="0",
      train_fraction="1",
      batch_size=8,
      snapshots="0,2",
      validation_share=0.0,
      test_share=0.0,
    ),
    data._replace(x_train=data.x_train[:TRAIN], y_train=data.y_train[:TRAIN]),
    dataset="x",
  )
  start = tuner.fresh(keys(4), "he_normal")
  seen = []
  curves = tuner.tune(start, keys(4), 2, seen.append)
  assert seen == [1, 2]
  zoo = made.weights(0)
  np.testing.assert_array_equal(start, zoo[0::2])
  np.testing.assert_allclose(curves.weights, zoo[1::2], rtol=1e-5, atol=1e-6)
  assert np.abs(curves.weights - start).max() > 0.01
  found = made.property("test_accuracy").reshape(4, 2)
  np.testing.assert_allclose(
    curves.accuracy["test"][:, [0, 2]], found, atol=1e-6
  )


def test_a_network_is_trained_as_if_it_were_alone(tuner):
  start = tuner.fresh(keys(3), "he_normal")
  together = tuner.tune(start, keys(3), 1)
  alone = tuner.tune(start[1:2], keys(3)[1:2], 1)
  np.testing.assert_allclose(
    alone.weights, together.weights[1:2], rtol=1e-5, atol=1e-6
  )
  assert alone.accuracy["validation"].shape == (1, 2)
  other = tuner.tune(start[1:2], keys(3)[2:3], 1)
  assert np.abs(other.weights - alone.weights).max() > 1e-4


def test_scores_are_accuracies_on_validation_images_alone(tuner):
  weights = tuner.fresh(keys(6), "he_normal")
  weights[4, 3] = np.nan
  found = tuner.score(weights)
  x = PARTS.pixels[TRAIN:-TEST].astype(np.float32) / 127.5 - 1
  for number, (row, value) in enumerate(zip(weights, found, strict=True)):
    logits = np.asarray(families.forward(SPEC, row, x.reshape(len(x), -1)))
    right = (logits.argmax(-1) == PARTS.labels[TRAIN:-TEST]).mean()
    assert value == pytest.approx(0.0 if number == 4 else right)
  pixels = PARTS.pixels.copy()
  pixels[-TEST:] = 255 - pixels[-TEST:]
  other = fine_tune.Tuner(SPEC, PARTS._replace(pixels=pixels), SETTINGS, 4)
  np.testing.assert_array_equal(other.score(weights), found)
  assert (other.score(weights, "test") != tuner.score(weights, "test")).any()


def test_what_does_not_fit_is_refused(tuner):
  larger = PARTS._replace(pixels=np.zeros((72, 1, 5, 5), np.uint8))
  with pytest.raises(
    ValueError, match="takes images of 16, and these .* 1x5x5"
  ):
    fine_tune.Tuner(SPEC, larger, SETTINGS, 4)
  cnn = families.cnn((1, 8, 8), (2,), (3,), (1,), num_classes=3)
  with pytest.raises(ValueError, match="takes images of 1x8x8"):
    fine_tune.Tuner(cnn, PARTS, SETTINGS, 4)
  with pytest.raises(ValueError, match="5 networks and 5 keys for 4 slots"):
    tuner.tune(np.zeros((5, SPEC.num_weights), np.float32), keys(5), 1)
  for changes in ({"optimizer": "x"}, {"dropout": 1.0}, {"batch_size": 0}):
    with pytest.raises(ValueError, match=next(iter(changes))):
      fine_tune.TuneSettings(**changes)
