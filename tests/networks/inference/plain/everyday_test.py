"""Plain networks in everyday names are read in full: all hidden layers move."""

import pytest

from tests.networks.inference.plain_networks import infer, layer

DENSE = {
  "Sequential": (("0", "2", "4"), (4, 9, 9, 3)),
  "Sequential with dropout": (("0", "3", "6"), (4, 9, 9, 3)),
  "fc": (("fc1", "fc2", "fc3"), (4, 9, 8, 3)),
  "layers of a list": (("layers.0", "layers.1", "layers.2"), (4, 9, 8, 3)),
  "net": (("net.0", "net.2"), (4, 9, 3)),
  "wrapped": (("module.net.0", "module.net.2"), (4, 9, 3)),
  "hidden": (("input_layer", "hidden", "output_layer"), (4, 9, 8, 3)),
  "list and head": (("layers.0", "layers.1", "head"), (4, 9, 8, 3)),
  "encoder, decoder": (
    ("encoder.0", "encoder.2", "decoder.0", "decoder.2"),
    (8, 9, 2, 9, 8),
  ),
}


@pytest.mark.parametrize("framework", ["torch", "safetensors"])
@pytest.mark.parametrize("names", DENSE)
def test_dense_networks(names, framework):
  names, widths = DENSE[names]
  shapes = {}
  for name, into, out in zip(names, widths, widths[1:], strict=False):
    shapes |= {f"{name}.{p}": s for p, s in layer(out, into).items()}
  if framework == "safetensors":
    shapes = dict(sorted(shapes.items()))
  assert len(infer(shapes, framework).spec.groups) == len(names) - 1


CONV = {
  "conv and fc": ("conv1", "conv2", "fc1", "fc2"),
  "features": ("features.0", "features.3", "classifier.1", "classifier.4"),
  "lists": ("convs.0", "convs.1", "fcs.0", "fcs.1"),
  "one list": ("net.0", "net.3", "net.7", "net.9"),
}


@pytest.mark.parametrize("framework", ["torch", "safetensors"])
@pytest.mark.parametrize("names", CONV)
def test_convolutional_networks(names, framework):
  sizes = ((6, 3, 5, 5), (16, 6, 5, 5), (120, 400), (10, 120))
  shapes = {}
  for name, size in zip(CONV[names], sizes, strict=True):
    shapes |= {f"{name}.{p}": s for p, s in layer(*size).items()}
  found = infer(shapes, framework)
  assert len(found.spec.groups) == 3
  assert [t.level for t in found.spec.tensors][::2] == [0, 1, 2, 3]


@pytest.mark.parametrize("framework", ["flax", "orbax"])
@pytest.mark.parametrize(
  "names",
  [
    ("Conv_0", "Conv_1", "Dense_0", "Dense_1"),
    ("conv1", "conv2", "fc1", "fc2"),
  ],
)
def test_networks_of_flax(names, framework):
  sizes = ((5, 5, 3, 6), (5, 5, 6, 16), (400, 120), (120, 10))
  shapes = {}
  for name, size in zip(names, sizes, strict=True):
    shapes[f"params/{name}/bias"] = size[-1:]
    shapes[f"params/{name}/kernel"] = size
  assert len(infer(shapes, framework).spec.groups) == 3
  dense = {n: s for n, s in shapes.items() if len(s) < 3 and "onv" not in n}
  assert len(infer(dense, framework).spec.groups) == 1
