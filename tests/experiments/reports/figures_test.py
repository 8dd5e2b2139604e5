"""Every figure is written, shows its data, and leaves no state behind."""

import contextlib

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import axes as axes_lib
from matplotlib import image

from sne_jax.cli.reports import drawing, figures

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
    path, Y, {"seed 0": PREDICTION}, name="frequency"
  ),
  "scatter_seeds": lambda path: figures.predicted_against_true(
    path, Y, {"seed 0": PREDICTION, "seed 1": Y}, name="frequency"
  ),
  "curves": lambda path: figures.learning_curves(
    path,
    {
      "loss": {"seed 0": (STEPS, CURVE)},
      "error": {"seed 0": (STEPS, 2 * CURVE)},
    },
  ),
  "errors": lambda path: figures.error_against_property(
    path, Y, PREDICTION, name="frequency"
  ),
  "log_bars": lambda path: figures.bars_with_intervals(
    path, {"permutation": 1e-4, "shuffle": ROW}, xlabel="ratio", x_log=True
  ),
  "bars": lambda path: figures.bars_with_intervals(
    path, {"full": ROW, "failed": FAILED}, xlabel="MSE"
  ),
  "heat_map": lambda path: figures.heat_maps(
    path, {"a": np.array([[0.1, np.nan]])}, ["x"], ["y", "z"], name="tau"
  ),
  "heat_maps": lambda path: figures.heat_maps(
    path, {c: np.eye(2) for c in "abcde"}, ["x", "y"], ["y", "z"], name="tau"
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
    path, Y[:1], {"seed 0": Y[:1]}, name="frequency"
  ),
  "no_member": lambda path: figures.predicted_against_true(
    path, Y[:0], {"seed 0": Y[:0]}, name="frequency"
  ),
  "not_finite": lambda path: figures.predicted_against_true(
    path, Y, {"seed 0": np.where(Y > 5, np.nan, np.inf)}, name="frequency"
  ),
  "diverged": lambda path: figures.learning_curves(
    path, {"loss": {"seed 0": (STEPS, CURVE * np.nan)}}
  ),
  "no_curve": lambda path: figures.learning_curves(path, {}),
  "no_error": lambda path: figures.error_against_property(
    path, Y, Y, name="frequency"
  ),
  "error_of_none": lambda path: figures.error_against_property(
    path, Y[:0], Y[:0], name="frequency"
  ),
  "exactly_invariant": lambda path: figures.bars_with_intervals(
    path, {"permutation": 0.0, "shuffle": np.nan}, xlabel="ratio", x_log=True
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


def test_curves_of_different_units_share_no_axis(tmp_path, monkeypatch):
  seen, drawn = [], drawing.drawn

  @contextlib.contextmanager
  def kept(*arguments):
    with drawn(*arguments) as picture:
      yield picture
      seen.extend(picture.axes)

  monkeypatch.setattr(drawing, "drawn", kept)
  path = DRAW["curves"](tmp_path / "curves.png")
  assert [axes.get_ylabel() for axes in seen] == ["loss", "error"]
  for axes, curve in zip(seen, (CURVE, 2 * CURVE), strict=True):
    (line,) = axes.get_lines()
    np.testing.assert_array_equal(line.get_ydata(), curve)
  assert image.imread(path).shape[1] == round(150 * 8.6)


def test_a_cell_that_was_measured_says_undefined(tmp_path, monkeypatch):
  seen, drawn = [], drawing.drawn

  @contextlib.contextmanager
  def kept(*arguments):
    with drawn(*arguments) as picture:
      yield picture
      seen.extend(picture.axes)

  monkeypatch.setattr(drawing, "drawn", kept)
  values = np.array([[0.5, np.nan], [np.nan, 0.25]])
  measured = np.array([[True, True], [False, True]])
  for undefined in (None, {"a": measured}):
    figures.heat_maps(
      *(tmp_path / "a", {"a": values}, ["r", "s"], ["c", "d"]),
      name="tau",
      undefined=undefined,
    )
  texts = [[t.get_text() for t in axes.texts] for axes in seen if axes.texts]
  assert texts[0] == ["0.50", "", "", "0.25"]
  assert texts[1] == ["0.50", "undefined", "", "0.25"]


@pytest.mark.parametrize("name", ["scatter_seeds", "lines", "heat_maps"])
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
  assert drawing.png_path(tmp_path / "a.png").name == "a.png"


def test_global_style_is_left_alone(tmp_path):
  before = dict(mpl.rcParams)
  DRAW["curves"](tmp_path / "a")
  assert dict(mpl.rcParams) == before


NAMES = ("adam", "momentum", "rmsprop")
COUNTS = np.array([[9.0, 1, 0], [2, 6.3, 1.7], [0, 0, 20]])


def confusion(path, counts=COUNTS, names=NAMES):
  return figures.confusion(path, counts, names, name="optimizer")


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
  path = confusion(tmp_path / "folder" / "picture")
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
  confusion(tmp_path / "picture", counts)
  assert drawn[0].texts[4].get_text() == "0"


@contextlib.contextmanager
def kept(monkeypatch):
  """Gives a list that holds the axes that are drawn."""
  found, drawn = [], drawing.drawn

  @contextlib.contextmanager
  def keeping(*arguments):
    with drawn(*arguments) as picture:
      yield picture
      picture.canvas.draw()
      found.extend(picture.axes)

  with monkeypatch.context() as patch:
    patch.setattr(drawing, "drawn", keeping)
    yield found


def test_a_measured_value_that_is_none_is_undefined(tmp_path, monkeypatch):
  with kept(monkeypatch) as seen:
    rows = {"good": ROW, "constant": FAILED}
    figures.bars_with_intervals(tmp_path / "bars", rows, xlabel="tau")
  (axes,) = seen
  texts = [text.get_text() for text in axes.texts]
  assert texts == ["0.5", "undefined"]


@pytest.mark.parametrize("ends", [(0.94, 1.08), (0.3, 4.0), (1e-4, 1.0)])
def test_an_axis_of_a_loss_has_several_labels(ends, tmp_path, monkeypatch):
  with kept(monkeypatch) as seen:
    curve = {"loss": {"seed 0": (np.array([1, 2]), np.array(ends))}}
    figures.learning_curves(tmp_path / "curves", curve)
  (axes,) = seen
  low, high = axes.get_ylim()
  labels = [t for t in axes.get_yticklabels() if t.get_text()]
  assert sum(low <= t.get_position()[1] <= high for t in labels) >= 3
