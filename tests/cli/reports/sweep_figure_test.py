"""The picture of a sweep: axes that suit the options, and labels apart."""

import contextlib

import numpy as np
import pytest
from matplotlib import image

from sne_jax.cli.reports import drawing, sweep_figure

WORDS = ["a_rather_long_name", "another_long_name", "a_third_long_name", "x"]


@pytest.fixture
def seen(monkeypatch):
  """Axes that were drawn on, once the picture is laid out."""
  found, drawn = [], drawing.drawn

  @contextlib.contextmanager
  def kept(*arguments):
    with drawn(*arguments) as picture:
      yield picture
      picture.canvas.draw()
      found.extend(picture.axes)

  monkeypatch.setattr(drawing, "drawn", kept)
  return found


def trials(count=12):
  rng = np.random.default_rng(0)
  return [
    (
      {
        "learning_rate": float(10 ** rng.uniform(-4, -2)),
        "width": int(rng.integers(8, 65)),
        "encoder": WORDS[n % 4],
        "augment": bool(n % 2),
      },
      float("nan") if n == 5 else float(n),
    )
    for n in range(count)
  ]


def test_rates_are_logarithmic_and_no_label_lies_on_another(seen, tmp_path):
  given = trials()
  names = ["learning_rate", "width", "encoder", "augment"]
  path = sweep_figure.draw(
    tmp_path / "sweep", given, names, label="validation tau", best=2
  )
  assert image.imread(path).ndim == 3
  assert [axes.get_xlabel() for axes in seen[:4]] == names
  scales = [axes.get_xscale() for axes in seen[:4]]
  assert scales == ["log", "linear", "linear", "linear"]
  for axes, name in zip(seen, names, strict=False):
    every, ringed = axes.collections
    assert len(every.get_offsets()) == 11  # One has no value.
    (best,) = ringed.get_offsets()
    assert best[1] == 2.0
    if name in ("learning_rate", "width"):
      assert best[0] == pytest.approx(given[2][0][name])
    labels = [t for t in axes.get_xticklabels() if t.get_text()]
    corners = [t.get_window_extent().x1 for t in labels]
    apart = np.diff(sorted(corners))
    size = 8 * 150 / 72  # Turned labels need the height of their letters.
    assert len(labels) < 2 or name == "learning_rate" or apart.min() > size


def test_a_few_numbers_have_a_label_each(seen, tmp_path):
  """Of powers of 2 the axis is logarithmic; close ones are not all named."""
  lists = {
    "head_width": [16, 32, 64, 128],
    "dropout": [0.0, 0.1, 0.3, 0.1],
    "weight_decay": [0.0, 1e-4, 2e-4, 0.1],
  }
  given = [({k: v[n] for k, v in lists.items()}, n / 4) for n in range(4)]
  sweep_figure.draw(tmp_path / "s", given, list(lists), label="tau")
  texts = [[t.get_text() for t in a.get_xticklabels()] for a in seen[:3]]
  assert texts[0] == ["16", "32", "64", "128"]
  assert texts[1] == ["0", "0.1", "0.3"]
  assert "0.0001" not in texts[2]
  assert [axes.get_xscale() for axes in seen[:3]] == ["log"] + ["linear"] * 2


def test_a_sweep_without_values_is_drawn(tmp_path):
  sweep_figure.draw(tmp_path / "a", [], ["x"], label="tau")
  sweep_figure.draw(tmp_path / "b", [({"x": 1}, np.nan)], ["x"], label="tau")
