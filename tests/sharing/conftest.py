"""One trained model for all tests of this folder."""

import pytest

from tests.sharing import models


@pytest.fixture(scope="package")
def predictor():
  return models.trained()


@pytest.fixture(scope="package")
def given(predictor, tmp_path_factory):
  """The folder of a model to give away."""
  return predictor.save_pretrained(
    tmp_path_factory.mktemp("given") / "model",
    name="sizes",
    summary="The size of weights.",
    zoo="24 drawn networks.",
    limits="Nothing that matters.",
    licence="Apache-2.0",
  )
