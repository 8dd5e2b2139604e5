"""The Hub: a local server of its API, its cache, and none at all."""

import sys

import numpy as np
import pytest

import sne_jax
from sne_jax.sharing import card, folders
from sne_jax.sharing.runs import PredictorError
from tests.sharing import hub_server, models

constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """An empty cache, and a token of nobody."""
  folder = str(tmp_path / "cache")
  monkeypatch.setattr(constants, "HF_HUB_CACHE", folder)
  monkeypatch.setenv("HF_TOKEN", "hf_nobody")
  return tmp_path / "cache"


def test_a_model_goes_to_the_hub_and_comes_back(predictor, cache, monkeypatch):
  repositories: dict[str, dict[str, bytes]] = {}
  some = models.networks(3)
  with hub_server.served(repositories) as address:
    monkeypatch.setenv("HF_ENDPOINT", address)
    said = predictor.push_to_hub("lab/sizes", summary="The size of weights.")
    assert said.endswith(hub_server.COMMIT)
    assert set(repositories["lab/sizes"]) == set(folders.FILES)
    page = repositories["lab/sizes"][card.PAGE].decode()
    assert 'from_pretrained("lab/sizes")' in page
    repositories["lab/sizes"]["run_me.py"] = b"raise SystemExit"
    back = sne_jax.Predictor.from_pretrained("lab/sizes")
    np.testing.assert_allclose(
      back.predict(some), predictor.predict(some), rtol=1e-4
    )
    assert not list(cache.rglob("run_me.py"))
    with pytest.raises(PredictorError, match="lab/other is no folder, and"):
      sne_jax.Predictor.from_pretrained("lab/other")
  # The Hub is gone; what was downloaded is still there.
  again = sne_jax.Predictor.from_pretrained("lab/sizes")
  np.testing.assert_array_equal(again.predict(some), back.predict(some))


def test_without_a_network_there_is_one_line(predictor, cache, monkeypatch):
  monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
  with pytest.raises(PredictorError, match="check name and connection") as one:
    sne_jax.Predictor.from_pretrained("lab/sizes")
  with pytest.raises(PredictorError, match="cannot be written") as two:
    predictor.push_to_hub("lab/sizes")
  assert "\n" not in str(one.value) + str(two.value)


def test_without_the_library_there_is_a_remedy(monkeypatch):
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  with pytest.raises(PredictorError, match="pip install huggingface_hub"):
    sne_jax.Predictor.from_pretrained("lab/sizes")
