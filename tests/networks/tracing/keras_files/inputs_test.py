"""Inputs are drawn as long as a Keras network needs them, and no longer."""

import numpy as np
import pytest

from sne_jax.networks.tracing.keras_files import graph, machines
from tests.networks.tracing.keras_files import written
from tests.networks.tracing.keras_files.written import layer

SHAPES = {"layers/conv1d/vars/0": (3, 4, 6), "layers/conv1d/vars/1": (6,)}


def cropped(cut):
  """A convolution over places, of which `cut` at both ends are cut off."""
  model = written.sequential(
    layer("InputLayer", "in", batch_shape=[None, None, 4]),
    layer("Conv1D", "conv", filters=6, kernel_size=[3], padding="same"),
    layer("Cropping1D", "crop", cropping=[cut, cut]),
  )
  return graph.KerasGraph(model, SHAPES, {})


@pytest.mark.parametrize(
  ("cut", "due"), [(0, 8), (3, 8), (4, 32), (256, 4096), (5000, 16_384)]
)
def test_inputs_are_as_short_as_leaves_an_output(cut, due):
  found, rng = cropped(cut), np.random.default_rng(0)
  inputs = found.example_input(rng)
  assert [x.shape for x in inputs] == [(2, due, 4)]
  tensors = {n: np.ones(s, np.float32) for n, s in SHAPES.items()}
  assert found.forward(tensors, inputs).size == 2 * (due - 2 * cut) * 6


def test_outputs_that_stay_empty_are_said():
  with pytest.raises(machines.CannotRunError, match=r"\(2, 16384, 4\).*empty"):
    cropped(10_000).example_input(np.random.default_rng(0))


def test_images_are_not_made_that_long():
  model = written.sequential(
    layer("InputLayer", "in", batch_shape=[None, None, None, 4]),
    layer("Cropping2D", "crop", cropping=[[300, 300], [300, 300]]),
  )
  with pytest.raises(machines.CannotRunError, match=r"\(2, 512, 512, 4\)"):
    graph.KerasGraph(model, {}, {}).example_input(np.random.default_rng(0))
