"""Names of models, and of none."""

import pytest

from sne_jax.sharing import folders, hub, names
from sne_jax.sharing.runs import PredictorError


@pytest.fixture
def home(given, monkeypatch):
  """As if the model shipped with the library, under the name `model`."""
  monkeypatch.setattr(names, "HOME", given.parent)
  return given


def test_a_name_is_shipped_or_a_folder(home, tmp_path, monkeypatch):
  assert names.shipped() == ("model",)
  monkeypatch.chdir(tmp_path)
  (tmp_path / "model").mkdir()
  assert names.find("model") == home
  assert names.find("./model").resolve() == (tmp_path / "model").resolve()


@pytest.mark.parametrize("name", ["modle", "Models", "model "])
def test_a_misspelt_name_suggests(home, name):
  with pytest.raises(PredictorError, match="did you mean model\\?") as error:
    names.find(name)
  assert "\n" not in str(error.value)


def test_a_name_that_is_like_none_lists_them(home):
  with pytest.raises(PredictorError, match="There are model with the library"):
    names.find("a/b/c")


def test_a_name_with_an_owner_is_of_the_hub(home, monkeypatch):
  asked = []
  monkeypatch.setattr(
    hub, "download", lambda *given: asked.append(given) or home
  )
  assert names.find("some-one/a.model", "v2") == home
  assert asked == [("some-one/a.model", "v2")]


def test_the_folder_of_a_run_is_refused_with_a_remedy(tmp_path):
  with pytest.raises(PredictorError, match=r"Predictor\.load, or --workdir"):
    folders.read(tmp_path)
