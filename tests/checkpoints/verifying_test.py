"""What is claimed of a file is tried by its own graph, where it has one."""

import dataclasses

import numpy as np
import pytest

from sne_jax import checkpoints
from tests.checkpoints import samples
from tests.networks.tracing.keras_files import written

pytest.importorskip("h5py")

RNG = np.random.default_rng


def residual(folder, biases=True, skips=True):
  """A file of an input layer, a layer with a skip, and an output layer."""
  dense = lambda name, units, *of: written.layer(
    "Dense", name, list(of), units=units, activation="relu", use_bias=biases
  )
  merged = ["a", "b"] if skips else ["b"]
  model = written.functional(
    written.given(4),
    dense("a", 8, "in"),
    dense("b", 8, "a"),
    written.layer("Add", "sum", [merged]),
    dense("out", 3, "sum"),
  )
  shapes = {"dense": (4, 8), "dense_1": (8, 8), "dense_2": (8, 3)}
  sizes = {f"{name}__0": shape for name, shape in shapes.items()}
  if biases:
    sizes |= {f"{name}__1": shape[1:] for name, shape in shapes.items()}
  return written.archive(folder / "a.keras", model, written.arrays(0, **sizes))


def misread(folder, biases=True):
  """A network with a skip of which is claimed what holds without it."""
  chain = checkpoints.load(residual(folder, biases, skips=False)).inferred
  assert len(chain.spec.groups) == 2
  network = checkpoints.load(residual(folder, biases))
  return dataclasses.replace(network, inferred=chain)


def test_a_true_claim_holds_and_a_false_one_does_not(tmp_path):
  network = checkpoints.load(residual(tmp_path))
  check = checkpoints.verify(network, RNG(0))
  assert check.passes() and check.control is not None
  assert not checkpoints.verify(misread(tmp_path), RNG(0)).passes()


def test_a_norm_of_another_axis_than_the_neurons_is_no_fault(tmp_path):
  dense = lambda name, units, of: written.layer(
    "Dense", name, [of], units=units, activation="linear", use_bias=True
  )
  model = written.functional(
    written.given(4, 8),
    dense("a", 8, "in"),
    written.layer("BatchNormalization", "norm", ["a"], axis=1, epsilon=1e-3),
    dense("out", 3, "norm"),
  )
  vectors = ("0", "1", "2", "3_var")
  sizes = {f"batch_normalization__{i}": (4,) for i in vectors[:3]}
  sizes |= {"batch_normalization__3_var": (4,)}
  sizes |= {"dense__0": (8, 8), "dense__1": (8,)}
  sizes |= {"dense_1__0": (8, 3), "dense_1__1": (3,)}
  path = tmp_path / "a.keras"
  network = checkpoints.load(
    written.archive(path, model, written.arrays(0, **sizes))
  )
  check = checkpoints.verify(network, RNG(0))
  assert check.passes() and check.control is not None


def test_neurons_that_are_all_alike_are_told_apart(tmp_path):
  # As they are, no permutation of constant weights changes anything.
  network = misread(tmp_path, biases=False)
  entries = {
    n: dataclasses.replace(
      e, load=lambda e=e: np.full(e.shape, 0.5, np.float32)
    )
    for n, e in network.tensors.entries.items()
  }
  alike = dataclasses.replace(
    network,
    tensors=dataclasses.replace(network.tensors, entries=entries),
  )
  assert not checkpoints.verify(alike, RNG(0)).passes()


def test_a_file_without_a_graph_says_what_to_do(tmp_path):
  path = tmp_path / "a.safetensors"
  path.write_bytes(samples.safetensors_bytes(samples.network()))
  with pytest.raises(checkpoints.NotVerifiedError, match="trace its code"):
    checkpoints.verify(checkpoints.load(path), RNG(0))


def test_what_cannot_be_run_is_said(tmp_path):
  path = residual(tmp_path)
  network = checkpoints.load(path)

  class Broken:
    example_input = staticmethod(lambda rng: [])
    play = staticmethod(lambda player: None)

    def forward(self, tensors, inputs):
      raise RuntimeError("of no\nkind")

  broken = dataclasses.replace(network.tensors, graph=Broken())
  network = dataclasses.replace(network, tensors=broken)
  with pytest.raises(checkpoints.NotVerifiedError, match="run: of no kind"):
    checkpoints.verify(network, RNG(0))


@pytest.mark.parametrize("read", [residual, misread])
def test_smaller_inputs_are_tried_where_larger_ones_say_nothing(read, tmp_path):
  network = misread(tmp_path)
  if read is residual:
    network = checkpoints.load(residual(tmp_path))
  graph, sizes = network.tensors.graph, []

  class Saturated:
    example_input = staticmethod(graph.example_input)
    play = staticmethod(graph.play)

    def forward(self, tensors, inputs):
      sizes.append(float(np.abs(inputs[0]).max()))
      outputs = graph.forward(tensors, inputs)
      return np.ones_like(outputs) if sizes[-1] > 0.5 else outputs

  tensors = dataclasses.replace(network.tensors, graph=Saturated())
  found = dataclasses.replace(network, tensors=tensors)
  check = checkpoints.verify(found, RNG(0))
  assert check.passes() == (read is residual)
  assert max(sizes) > 0.5 > min(sizes) and len(set(sizes)) == 2
