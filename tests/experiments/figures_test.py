"""Every figure is written, shows its data, and leaves no state behind."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import image

from experiments import drawing, figures

pytestmark = pytest.mark.filterwarnings("error")

RNG = np.random.default_rng(0)
Y = RNG.uniform(1, 10, 60)
PREDICTION = Y + RNG.normal(size=60)
STEPS = np.arange(0, 1000, 100)
CURVE = np.exp(-STEPS / 300) + 0.1
ROW = {"value": 0.5, "low": 0.4, "high": 0.7}
FAILED = {"value": None, "low": None, "high": None}

DRAW = {
  "scatter": lambda path: figures.predicted_against_true(
    path, Y, PREDICTION, name="frequency", unit="rad/s", notes=["n = 60"]
  ),
  "scatter_seeds": lambda path: figures.predicted_against_true(
    path, Y, {"seed 0": PREDICTION, "seed 1": Y}, name="frequency"
  ),
  "curves": lambda path: figures.learning_curves(
    path,
    {"train/loss": (STEPS, CURVE), "val/loss": (STEPS, CURVE * 2)},
    ylabel="loss",
  ),
  "errors": lambda path: figures.error_against_property(
    path, Y, PREDICTION, name="frequency"
  ),
  "invariance": lambda path: figures.invariance(
    path, {"permutation": 1e-4}, {"shuffle": 0.3}
  ),
  "bars": lambda path: figures.bars_with_intervals(
    path, {"full": ROW, "failed": FAILED}, xlabel="MSE", baseline=0.4
  ),
  "lines": lambda path: figures.lines(
    path,
    {"a": {0.1: ROW, 1.0: 0.3}, "b": {0.1: 0.9}},
    xlabel="share",
    ylabel="MSE",
    x_log=True,
    y_log=True,
  ),
}

ODD = {
  "one_member": lambda path: figures.predicted_against_true(
    path, Y[:1], Y[:1], name="frequency"
  ),
  "no_member": lambda path: figures.predicted_against_true(
    path, Y[:0], Y[:0], name="frequency"
  ),
  "not_finite": lambda path: figures.predicted_against_true(
    path, Y, np.where(Y > 5, np.nan, np.inf), name="frequency"
  ),
  "diverged": lambda path: figures.learning_curves(
    path, {"loss": (STEPS, CURVE * np.nan)}, ylabel="loss"
  ),
  "no_curve": lambda path: figures.learning_curves(path, {}, ylabel="loss"),
  "no_error": lambda path: figures.error_against_property(
    path, Y, Y, name="frequency"
  ),
  "error_of_none": lambda path: figures.error_against_property(
    path, Y[:0], Y[:0], name="frequency"
  ),
  "exactly_invariant": lambda path: figures.invariance(
    path, {"permutation": 0.0}, {"shuffle": float("nan")}
  ),
  "no_bar": lambda path: figures.bars_with_intervals(path, {}, xlabel="MSE"),
  "negative_bar": lambda path: figures.bars_with_intervals(
    path, {"a": {"mean": -0.2, "low": -0.3, "high": 0.1}}, xlabel="R2"
  ),
  "no_line": lambda path: figures.lines(path, {}, xlabel="x", ylabel="y"),
}


def _ink(path):
  """Share of the pixels that are not white."""
  pixels = image.imread(path)[..., :3]
  return float((pixels.min(axis=-1) < 0.9).mean())


@pytest.mark.parametrize("name", sorted(DRAW | ODD))
def test_is_written(name, tmp_path):
  path = (DRAW | ODD)[name](tmp_path / "folder" / "picture")
  assert path == tmp_path / "folder" / "picture.png"
  assert 0.005 < _ink(path) < 0.6


def test_resolution_and_pdf(tmp_path):
  path = figures.learning_curves(
    tmp_path / "curves.png", {"l": (STEPS, CURVE)}, ylabel="loss", pdf=True
  )
  assert image.imread(path).shape[1] == round(150 * 5.6)
  assert (tmp_path / "curves.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("name", ["scatter_seeds", "lines"])
def test_equal_data_give_equal_bytes(name, tmp_path):
  first, second = (DRAW[name](tmp_path / n).read_bytes() for n in "ab")
  assert first == second


def test_data_are_seen(tmp_path):
  def colored(path):
    pixels = image.imread(path)[..., :3]
    return float((np.ptp(pixels, axis=-1) > 0.3).mean())

  bar = figures.bars_with_intervals(
    tmp_path / "bar", {"a": ROW, "b": ROW}, xlabel="MSE"
  )
  none = figures.bars_with_intervals(
    tmp_path / "none", {"a": FAILED, "b": FAILED}, xlabel="MSE"
  )
  assert colored(bar) > 0.1
  assert colored(none) == 0


def test_names_with_a_dot_keep_it(tmp_path):
  assert drawing.png_path(tmp_path / "lr0.1").name == "lr0.1.png"
  assert drawing.png_path(tmp_path / "a.pdf").name == "a.png"


def test_global_style_is_left_alone(tmp_path):
  before = dict(mpl.rcParams)
  DRAW["curves"](tmp_path / "a")
  assert dict(mpl.rcParams) == before
