"""Folders of models to give away: what is read is what was written."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

import sne_jax
from sne_jax import errors
from sne_jax.sharing import card, folders
from sne_jax.sharing.runs import PredictorError
from tests.sharing import models


@pytest.fixture
def copy(given, tmp_path):
  return shutil.copytree(given, tmp_path / "copy")


def flipped(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def test_a_model_says_the_same_when_it_comes_back(predictor, given):
  some = models.networks(5, seed=1)
  before = predictor.judge(some)
  for back in (
    sne_jax.Predictor.from_pretrained(given),
    sne_jax.Predictor.load(given),
  ):
    assert len(back.params) == 2
    after = back.judge(some)
    np.testing.assert_allclose(after.unlike, before.unlike, rtol=0.02)
    for name in ("predictions", "low", "high", "known"):
      one, two = getattr(before, name), getattr(after, name)
      np.testing.assert_allclose(one, two, rtol=1e-4)


def test_a_folder_holds_what_it_says_and_nothing_that_runs(given):
  assert {p.name for p in given.iterdir()} == set(folders.FILES)
  assert not [p for p in given.parent.iterdir() if p != given]
  kinds = {p.suffix for p in given.iterdir()}
  assert kinds == {".md", ".json", ".safetensors"}
  names = safetensors.numpy.load_file(given / folders.WEIGHTS_FILE)
  assert {name.split("/")[0] for name in names} == {"seed0", "seed1"}


@pytest.mark.parametrize(
  "name", ["model.safetensors", "model.json", "calibration.json", "sha256.json"]
)
def test_a_file_that_was_tampered_with_is_refused(copy, name):
  flipped(copy / name)
  with pytest.raises(errors.DamagedError, match=name) as error:
    sne_jax.Predictor.from_pretrained(copy)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["codes.safetensors", "sha256.json"])
def test_a_file_that_is_gone_is_missed(copy, name):
  (copy / name).unlink()
  with pytest.raises(errors.DamagedError, match=f"{name}: file is missing"):
    sne_jax.Predictor.from_pretrained(copy)


def test_a_swapped_file_is_read_only_where_one_asks_for_it(copy, predictor):
  named = safetensors.numpy.load_file(copy / "model.safetensors")
  other = {name: 2 * array for name, array in named.items()}
  safetensors.numpy.save_file(other, copy / "model.safetensors")
  with pytest.raises(errors.DamagedError, match="verify=False"):
    sne_jax.Predictor.from_pretrained(copy)
  back = sne_jax.Predictor.from_pretrained(copy, verify=False)
  some = models.networks(3)
  assert not np.allclose(back.predict(some), predictor.predict(some))


def test_a_card_that_was_edited_by_hand_does_no_harm(copy, given):
  (copy / card.PAGE).write_text("# Mine now\n")
  (copy / card.FILE).write_text("{")
  some = models.networks(3)
  np.testing.assert_array_equal(
    sne_jax.Predictor.from_pretrained(copy).predict(some),
    sne_jax.Predictor.from_pretrained(given).predict(some),
  )
  with pytest.raises(ValueError, match=r"card\.json holds no facts"):
    folders.read_facts(copy)


def test_nothing_is_written_over_or_left_half(given, tmp_path, predictor):
  before = (given / "model.safetensors").read_bytes()
  with pytest.raises(ValueError, match="is there already"):
    predictor.save_pretrained(given)
  assert (given / "model.safetensors").read_bytes() == before
  with pytest.raises(ValueError, match="no fact 'license'; there are name"):
    predictor.save_pretrained(tmp_path / "new", license="MIT")
  predictor.save_pretrained(tmp_path / "empty")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(card, "page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      predictor.save_pretrained(tmp_path / "broken")
  assert {p.name for p in tmp_path.iterdir()} == {"empty"}


def test_a_file_of_other_seeds_is_refused(copy):
  path = copy / "calibration.json"
  known = json.loads(path.read_text()) | {"seeds": [0, 7]}
  path.write_text(json.dumps(known))
  with pytest.raises(PredictorError, match=r"seeds \[0, 1\]"):
    sne_jax.Predictor.from_pretrained(copy, verify=False)
