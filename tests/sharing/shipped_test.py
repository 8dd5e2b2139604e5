"""Models that ship: small, whole, and as good as their cards say.

Each predicts test networks that are committed (`shipped_fixtures.py`).
"""

import numpy as np
import pytest

import sne_jax
from experiments import ship
from sne_jax.sharing import card, folders, names
from tests.sharing import shipped_fixtures


def figure(name: str, metric: str) -> dict:
  """Returns a published figure of a model."""
  facts = folders.read_facts(names.HOME / name)
  [of_target] = facts.metrics["test"].values()
  return of_target[metric]


@pytest.mark.parametrize("name", names.shipped())
def test_a_model_that_ships_is_small_and_explained(name):
  folder = names.HOME / name
  assert {path.name for path in folder.iterdir()} <= set(folders.FILES)
  size = sum(path.stat().st_size for path in folder.iterdir())
  assert size <= ship.MOST_BYTES
  facts = folders.read_facts(folder)
  for said in (facts.summary, facts.zoo, facts.limits, facts.licence):
    assert said
  assert facts.name == name and name in facts.made_by and facts.metrics
  assert facts.limits in (folder / card.PAGE).read_text()
  assert sne_jax.Predictor.from_pretrained(name).targets


TESTED = {"sine-frequency", "inr-digit"}


def test_every_model_that_ships_has_a_recipe_and_a_test():
  assert set(names.shipped()) <= set(ship.recipes())
  assert set(names.shipped()) == TESTED


def test_the_sine_frequency():
  pairs, truth = shipped_fixtures.read("sines", "frequency")
  model = sne_jax.Predictor.from_pretrained("sine-frequency")
  judged = model.judge(pairs)
  errors = np.abs(judged.predictions[:, 0] - truth)
  published = figure("sine-frequency", "mae")
  assert published["high"] < 1  # A constant is off by 2.4.
  assert errors.mean() < 1.5 * published["high"]
  inside = (judged.low[:, 0] <= truth) & (truth <= judged.high[:, 0])
  assert inside.mean() > 0.75  # 90 % are due, of 36.
  assert (judged.unlike < 1).mean() > 0.7


def test_the_inr_digit():
  name = "inr-digit"
  pairs, truth = shipped_fixtures.read("images", "label")
  model = sne_jax.Predictor.from_pretrained(name)
  found = np.array(model.classes)[model.predict(pairs).argmax(axis=-1)]
  published = figure(name, "accuracy")["value"]
  spread = np.sqrt(published * (1 - published) / len(truth))
  assert published > 0.9
  assert abs((found == truth.astype(found.dtype)).mean() - published) < (
    3 * spread + 1 / len(truth)
  )
