"""Pictures of learned inputs: what is in them, and that runs have them."""

import jax
import matplotlib.image
import numpy as np
import pytest

from sne_jax.cli.reports import probe_figure
from sne_jax.encoders.responses import inputs
from sne_jax.learning.training import train_state

SEEN = {"image": [0, 0, 0], "features": 0, "signals": False}


def learned(source="pixels", image=(0, 0, 0), features=0):
  module = inputs.Inputs(5, image, features, source)
  shape = image if image[0] else (features,)
  return module, module.init(jax.random.key(0), shape)["params"]


@pytest.mark.parametrize("source", ["pixels", "generator"])
def test_images_are_those_that_networks_are_run_on(source):
  module, params = learned(source, (3, 10, 12), 2)
  seen = SEEN | {"image": [3, 10, 12], "features": 2}
  found = inputs.shown(params, seen)
  assert list(found) == ["images"]  # Two features, but of no signal.
  wanted = module.apply({"params": params}, (3, 10, 12))
  np.testing.assert_array_equal(found["images"], wanted)


def test_points_are_coordinates():
  module, params = learned(features=2)
  found = inputs.shown(params, SEEN | {"features": 2, "signals": True})
  wanted = module.apply({"params": params}, (2,), is_signal=True)
  assert list(found) == ["points"]
  np.testing.assert_array_equal(found["points"], wanted)
  assert np.abs(found["points"]).max() < 1


def test_flat_images_are_images():
  _, params = learned(features=25)
  assert inputs.shown(params, SEEN | {"features": 25})["images"].shape == (
    *(5, 1),
    *(5, 5),
  )


def test_a_bright_image_is_bright(tmp_path):
  images = np.zeros((2, 1, 8, 8))
  images[1] = 1
  pixels = matplotlib.image.imread(
    probe_figure.grid(tmp_path / "grid", images)
  )[..., :3].mean(axis=-1)
  half = pixels.shape[1] // 2
  middle = pixels.shape[0] // 2
  assert pixels[middle, half // 2] < 0.05
  assert pixels[middle, half + half // 2] > 0.95


@pytest.mark.parametrize("dimensions", [1, 2])
def test_points_are_drawn(tmp_path, dimensions):
  points = np.random.default_rng(0).uniform(-1, 1, (9, dimensions))
  path = probe_figure.scatter(tmp_path / "points", points)
  empty = probe_figure.scatter(tmp_path / "empty", points[:0])
  dark = [
    (matplotlib.image.imread(p)[..., 0] < 0.1).mean() for p in (path, empty)
  ]
  assert dark[0] > dark[1]  # The points are blue: no red in them.


def renamed(tree):
  """The same parameters, of which none are called inputs."""
  if not isinstance(tree, dict):
    return tree
  return {k.replace("probes", "types"): renamed(v) for k, v in tree.items()}


@pytest.mark.slow
def test_a_run_that_learns_inputs_shows_them(
  launch, tiny_zoo, tmp_path, monkeypatch
):
  reads = ("--responses=outputs", "--response_inputs=3")
  ended = launch(tmp_path / "run", tiny_zoo, *reads)
  assert ended.code == 0, ended
  report = (tmp_path / "run" / "report.md").read_text()
  assert "figures/learned_points.png" in report
  assert (tmp_path / "run" / "figures" / "learned_points.png").exists()
  # The control: the same run, had its encoder learned other vectors only.
  params, metrics = train_state.load_best(tmp_path / "run" / "seed0")
  others = renamed(params)
  monkeypatch.setattr(train_state, "load_best", lambda _: (others, metrics))
  assert not probe_figure.draw(tmp_path / "none", tmp_path / "run" / "seed0")
