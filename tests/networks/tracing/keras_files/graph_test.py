"""Keras files are read by their configuration: groups, skips, shared layers.

What each network computes is written here once more, by hand.
"""

import numpy as np
import pytest

from sne_jax import checkpoints, errors
from sne_jax.networks import inference
from tests.networks.tracing.keras_files import written
from tests.networks.tracing.keras_files.cases import (
  CASES,
  affine,
  dense,
  linear,
  of_sizes,
  relu,
  scaled,
)
from tests.networks.tracing.keras_files.written import (
  arrays,
  given,
  layer,
  runnable,
  sequential,
)

pytest.importorskip("h5py")


ends = of_sizes(dense=(4, 8), dense_9=(8, 2))


@pytest.mark.parametrize("name", CASES)
def test_what_is_claimed_holds(name, tmp_path):
  model, held, forward, shape, num_groups = CASES[name]
  path = written.archive(tmp_path / "a.keras", model, held)
  network = checkpoints.load(path)
  inferred = network.inferred
  assert inferred.how == "traced"
  assert len(inferred.spec.groups) == num_groups
  assert {s.name for s in inferred.sources} == set(held), "read in full"
  rng = np.random.default_rng(0)
  x = rng.normal(size=(3, *shape)).astype(np.float32)
  inputs = [x] * len(runnable(network).example_input(rng))
  np.testing.assert_allclose(
    runnable(network).forward(held, inputs),
    np.ravel(forward(held, x)),
    rtol=1e-4,
    atol=1e-4,
  )
  check = inference.permutation_check(
    inferred, network.weights(), forward, x, rng
  )
  assert check.passes(1e-4), check
  assert (check.control is None) == (num_groups == 0)


def test_flattened_images_are_channels_last(tmp_path):
  model = sequential(
    given(3, 2, 1),
    layer("Conv2D", "c", filters=4, kernel_size=[1, 1], activation="relu"),
    layer("Flatten", "f"),
    dense("out", 2, act=None),
  )
  held = arrays(
    conv2d__0=(1, 1, 1, 4), conv2d__1=(4,), dense__0=(24, 2), dense__1=(2,)
  )
  network = checkpoints.load(written.archive(tmp_path / "a.keras", model, held))
  kernel = next(t for t in network.spec.tensors if t.shape == (2, 24))
  assert [(f.size, f.group is None) for f in kernel.axes[1]] == [
    (6, True),
    (4, False),
  ]

  def forward(t, x):
    y = relu(x @ t["layers/conv2d/vars/0"][0, 0] + t["layers/conv2d/vars/1"])
    return affine(t, "dense", y.reshape(len(x), 24), linear)

  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 3, 2, 1)).astype(np.float32)
  assert inference.permutation_check(
    network.inferred, network.weights(), forward, x, rng
  ).passes()


def test_input_statistics_belong_to_the_inputs(tmp_path):
  model = sequential(
    given(4),
    layer("Normalization", "n", axis=[-1], mean=None, variance=None),
    dense("a", 8),
    dense("out", 2, act=None),
  )
  held = of_sizes(dense=(4, 8), dense_1=(8, 2))
  held |= arrays(normalization__0=(4,), normalization__1_var=(4,))
  held["layers/normalization/vars/2"] = np.int32(7)
  network = checkpoints.load(written.archive(tmp_path / "a.keras", model, held))
  by_name = {s.name: t for s, t in zip(
    network.inferred.sources, network.spec.tensors, strict=True
  )}  # fmt: skip
  mean = by_name["layers/normalization/vars/0"]
  assert (mean.kind, mean.level) == ("norm_mean", 0)
  assert mean.axes[0][0].group is None
  assert by_name["layers/dense/vars/0"].level == 1
  assert "layers/normalization/vars/2" in network.inferred.left_out


def test_a_norm_may_come_first(tmp_path):
  model = sequential(
    given(4), layer("LayerNormalization", "n", axis=[-1]), dense("out", 2)
  )
  held = of_sizes(dense=(4, 2))
  held |= arrays(layer_normalization__0=(4,), layer_normalization__1=(4,))
  network = checkpoints.load(written.archive(tmp_path / "a.keras", model, held))
  x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
  y = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-3)
  want = affine(held, "dense", scaled(held, "layer_normalization", y))
  got = runnable(network).forward(held, [x])
  np.testing.assert_allclose(got, np.ravel(want), rtol=1e-4, atol=1e-5)


def test_names_of_groups_settle_which_layer_is_which(tmp_path):
  # Both of class Dense: the second of the configuration is `dense_1`.
  model = sequential(given(8), dense("x", 8), dense("y", 8, act=None))
  held = of_sizes(dense=(8, 8), dense_1=(8, 8))
  names = {"layers/dense/vars": "x", "layers/dense_1/vars": "y"}
  path = written.archive(tmp_path / "a.keras", model, held, names)
  sources = checkpoints.load(path).inferred.sources
  assert sources[0].name == "layers/dense/vars/0"
  names = {"layers/dense/vars": "y", "layers/dense_1/vars": "x"}
  path = written.archive(tmp_path / "b.keras", model, held, names)
  with pytest.raises(errors.CheckpointError, match="not where its class"):
    checkpoints.load(path)


OLD = {
  "class_name": "Functional",
  "config": {
    "name": "m",
    "layers": [
      {
        "class_name": "InputLayer",
        "name": "in",
        "config": {"name": "in", "batch_input_shape": [None, 4]},
        "inbound_nodes": [],
      },
      {
        "class_name": "Dense",
        "name": "a",
        "config": {"name": "a", "units": 8, "activation": "relu"},
        "inbound_nodes": [[["in", 0, 0, {}]]],
      },
      {
        "class_name": "Sequential",
        "name": "s",
        "config": {
          "name": "s",
          "layers": [
            {
              "class_name": "Dense",
              "config": {"name": "b", "units": 8, "activation": "relu",
                         "batch_input_shape": [None, 8]},
            }
          ],
        },
        "inbound_nodes": [[["a", 0, 0, {}]], [["s", 1, 0, {}]]],
      },
      {
        "class_name": "Add",
        "name": "add",
        "config": {"name": "add"},
        "inbound_nodes": [[["a", 0, 0, {}], ["s", 2, 0, {}]]],
      },
      {
        "class_name": "Dense",
        "name": "out",
        "config": {"name": "out", "units": 2, "activation": "linear"},
        "inbound_nodes": [[["add", 0, 0, {}]]],
      },
    ],
    "input_layers": [["in", 0, 0]],
    "output_layers": [["out", 0, 0]],
  },
}  # fmt: skip


def test_a_file_of_keras_2(tmp_path):
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  layers = {
    "in": {},
    "a": {"a/kernel:0": draw(4, 8), "a/bias:0": draw(8)},
    "s": {"b/kernel:0": draw(8, 8), "b/bias:0": draw(8)},
    "add": {},
    "out": {"out/kernel:0": draw(8, 2), "out/bias:0": draw(2)},
  }
  network = checkpoints.load(written.legacy(tmp_path / "a.h5", OLD, layers))
  assert network.inferred.how == "traced"
  assert len(network.spec.groups) == 1

  def forward(t, x):
    get = lambda n, p, y: (
      y @ t[f"model_weights/{n}/{p}/kernel:0"]
      + t[f"model_weights/{n}/{p}/bias:0"]
    )
    a = relu(get("a", "a", x))
    y = relu(get("s", "b", relu(get("s", "b", a))))
    return get("out", "out", a + y)

  x = draw(3, 4)
  check = inference.permutation_check(
    network.inferred, network.weights(), forward, x, rng
  )
  assert check.passes() and check.control
