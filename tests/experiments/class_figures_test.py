"""The confusion matrix: it is written, and shows shares of the true class."""

import numpy as np
import pytest
from matplotlib import axes as axes_lib
from matplotlib import image

from experiments import class_figures

pytestmark = pytest.mark.filterwarnings("error")

NAMES = ("adam", "momentum", "rmsprop")
COUNTS = np.array([[9.0, 1, 0], [2, 6.3, 1.7], [0, 0, 20]])


def draw(path, counts=COUNTS, names=NAMES):
  return class_figures.confusion(path, counts, names, name="optimizer")


@pytest.fixture
def drawn(monkeypatch):
  """The axes of what is drawn."""
  found, imshow = [], axes_lib.Axes.imshow

  def keep(axes, *args, **kwargs):
    found.append(axes)
    return imshow(axes, *args, **kwargs)

  monkeypatch.setattr(axes_lib.Axes, "imshow", keep)
  return found


def test_cells_say_how_many_and_what_share(tmp_path, drawn):
  path = draw(tmp_path / "folder" / "picture")
  assert path == tmp_path / "folder" / "picture.png"
  (axes,) = drawn
  texts = [text.get_text() for text in axes.texts]
  assert texts[:3] == ["9\n90 %", "1\n10 %", "0\n0 %"]
  assert texts[4] == "6.3\n63 %"
  np.testing.assert_allclose(
    axes.images[0].get_array(), COUNTS / [[10], [10], [20]]
  )
  assert [t.get_text() for t in axes.get_yticklabels()] == list(NAMES)
  assert axes.get_ylabel() == "true optimizer"
  assert axes.get_xlabel() == "predicted optimizer"
  assert image.imread(path).min() < 0.5


def test_a_class_that_nobody_has(tmp_path, drawn):
  counts = COUNTS * [[1], [0], [1]]
  draw(tmp_path / "picture", counts)
  assert drawn[0].texts[4].get_text() == "0"


def test_equal_data_give_equal_bytes(tmp_path):
  first, second = (draw(tmp_path / n).read_bytes() for n in "ab")
  assert first == second


def test_the_caption_says_what_is_seen(tmp_path):
  found = class_figures.confusion_by_caption(
    tmp_path, "optimizer", counts=COUNTS, classes=NAMES
  )
  ((caption, path),) = found.items()
  assert "mean over seeds" in caption
  assert path == tmp_path / "confusion_optimizer.png"
  assert path.exists()
