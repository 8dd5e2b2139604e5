"""Keras files are read by their configuration: groups, skips, shared layers.

What each network computes is written here once more, by hand.
"""

import copy

import numpy as np
import pytest

from sne_jax import checkpoints, errors
from sne_jax.networks import inference
from sne_jax.networks.tracing.keras_files import graph
from tests.networks.tracing.keras_files import written
from tests.networks.tracing.keras_files.written import (
  arrays,
  functional,
  given,
  layer,
  sequential,
)

pytest.importorskip("h5py")


def runnable(network):
  found = network.tensors.graph
  assert isinstance(found, graph.KerasGraph)
  return found


relu = lambda x: np.maximum(x, 0)


def dense(name, units, *calls, act: str | None = "relu", **more):
  return layer("Dense", name, *calls, units=units, activation=act, **more)


def affine(t, name, x, act=relu):
  kernel, bias = t[f"layers/{name}/vars/0"], t[f"layers/{name}/vars/1"]
  return act(x @ kernel + bias)


linear = lambda x: x


def grouped(x, groups):
  """Normalises groups of the last axis, over places too."""
  y = x.reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
  mean, var = y.mean((1, 3), keepdims=True), y.var((1, 3), keepdims=True)
  return ((y - mean) / np.sqrt(var + 1e-3)).reshape(x.shape)


def scaled(t, name, x):
  return x * t[f"layers/{name}/vars/0"] + t[f"layers/{name}/vars/1"]


def of_sizes(**sizes):
  """Arrays of dense layers, `name=(inputs, units)`."""
  shapes = {}
  for name, (i, o) in sizes.items():
    shapes |= {f"{name}__0": (i, o), f"{name}__1": (o,)}
  return arrays(**shapes)


ends = of_sizes(dense=(4, 8), dense_9=(8, 2))


def skip(kind, module="keras.layers"):
  """An input and an output layer, and a merge of three hidden ones."""
  model = functional(
    given(4),
    dense("a", 8, ["in"]),
    dense("b", 8, ["a"]),
    layer(
      kind, "m", ["a", "b"] if "ops" in module else [["a", "b"]], module=module
    ),
    dense("out", 2, ["m"], act="linear"),
  )
  held = of_sizes(dense=(4, 8), dense_1=(8, 8), dense_2=(8, 2))

  def forward(t, x, merge):
    a = affine(t, "dense", x)
    b = affine(t, "dense_1", a)
    return affine(t, "dense_2", merge(a, b), linear)

  return model, held, forward


def skips():
  merges = {
    "Add": lambda a, b: a + b,
    "Subtract": lambda a, b: a - b,
    "Maximum": np.maximum,
    "Multiply": lambda a, b: a * b,
    "Average": lambda a, b: (a + b) / 2,
  }
  for kind, merge in merges.items():
    model, held, forward = skip(kind)
    run = lambda t, x, f=forward, m=merge: f(t, x, m)
    yield f"skip {kind}", model, held, run, (4,), 1
  model, held, forward = skip("Add", module="keras.src.ops.numpy")
  run = lambda t, x: forward(t, x, merges["Add"])
  yield "skip x + y", model, held, run, (4,), 1


def shared():
  model = functional(
    given(4),
    dense("a", 8, ["in"]),
    layer(
      "Dense", "s", ["a"], [written.value("s")], units=8, activation="relu"
    ),
    dense("out", 2, [written.value("s", 1)], act="linear"),
  )
  held = of_sizes(dense=(4, 8), dense_1=(8, 8), dense_2=(8, 2))

  def twice(t, x):
    y = affine(t, "dense", x)
    y = affine(t, "dense_1", affine(t, "dense_1", y))
    return affine(t, "dense_2", y, linear)

  yield "a shared layer", model, held, twice, (4,), 1

  two = functional(
    given(4, name="one"),
    given(4, name="other"),
    layer("Dense", "s", ["one"], ["other"], units=8, activation="relu"),
    layer(
      "Concatenate", "c", [[written.value("s"), written.value("s", 1)]], axis=1
    ),
    layer("Reshape", "r", ["c"], target_shape=[2, 8]),
    layer("GlobalAveragePooling1D", "g", ["r"]),
    dense("out", 2, ["g"], act="linear"),
    inputs=("one", "other"),
  )
  # Concatenated units never move, though these could: nothing is claimed.
  held = of_sizes(dense=(4, 8), dense_1=(8, 2))

  def towers(t, x):
    a, b = (affine(t, "dense", part) for part in (x, x))
    return affine(t, "dense_1", (a + b) / 2, linear)

  yield "a siamese network", two, held, towers, (4,), 1

  inner = functional(
    given(8), dense("b", 6, ["in"]), dense("c", 8, ["b"]), name="f"
  )
  inner["inbound_nodes"] = [
    {"args": [written.value("a")], "kwargs": {}},
    {"args": [written.value("f")], "kwargs": {"mask": None}},
  ]
  nested = functional(
    given(4),
    dense("a", 8, ["in"]),
    inner,
    dense("out", 2, [written.value("f", 1)], act="linear"),
  )
  held = arrays(
    dense__0=(4, 8), dense__1=(8,), dense_1__0=(8, 2), dense_1__1=(2,),
    functional___dense__0=(8, 6), functional___dense__1=(6,),
    functional___dense_1__0=(6, 8), functional___dense_1__1=(8,),
  )  # fmt: skip

  def again(t, x):
    y = affine(t, "dense", x)
    for _ in range(2):
      y = affine(t, "functional/layers/dense", y)
      y = affine(t, "functional/layers/dense_1", y)
    return affine(t, "dense_1", y, linear)

  yield "a shared model", nested, held, again, (4,), 2


def norms():
  for groups, name in ((4, "groups"), (-1, "each alone"), (1, "one group")):
    model = sequential(
      given(5, 4),
      dense("a", 8, act=None),
      layer("GroupNormalization", "n", groups=groups, axis=-1, epsilon=1e-3),
      layer("ReLU", "r"),
      layer("GlobalAveragePooling1D", "g"),
      dense("out", 2, act=None),
    )
    held = of_sizes(dense=(4, 8), dense_1=(8, 2))
    held |= arrays(1, group_normalization__0=(8,), group_normalization__1=(8,))

    def forward(t, x, groups=groups):
      y = affine(t, "dense", x, linear)
      y = grouped(y, 8 if groups == -1 else groups)
      y = relu(scaled(t, "group_normalization", y)).mean(1)
      return affine(t, "dense_1", y, linear)

    yield f"a norm of {name}", model, held, forward, (5, 4), 1 + (groups == 4)


CASES = {case[0]: case[1:] for case in (*skips(), *shared(), *norms())}


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


def lambda_network(kind, module="keras.layers"):
  odd = layer(kind, "odd", ["a"], module=module, function="os.system")
  last = dense("out", 2, [written.value("odd", shape=(8,))], act=None)
  model = functional(given(4), dense("a", 8, ["in"]), odd, last)
  last = "dense_2" if kind == "Dense" else "dense_1"  # Its class counts.
  return model, of_sizes(**{"dense": (4, 8), last: (8, 2)})


@pytest.mark.parametrize(
  ("kind", "module"),
  [("Lambda", "keras.layers"), ("Strange", "keras.layers"), ("Dense", "mine")],
)
def test_what_is_not_known_is_pinned_and_said(kind, module, tmp_path):
  model, held = lambda_network(kind, module)
  network = checkpoints.load(written.archive(tmp_path / "a.keras", model, held))
  assert not network.spec.groups
  assert any(kind in guess for guess in network.inferred.guesses)
  with pytest.raises(ValueError, match=f"{kind}.* is not run here"):
    runnable(network).example_input(np.random.default_rng(0))


def faults():
  good = lambda: sequential(given(4), dense("a", 8), dense("out", 2))
  held = of_sizes(dense=(4, 8), dense_1=(8, 2))
  yield "no variable", good(), of_sizes(dense=(4, 8)), "no kernel"
  model = sequential(given(4), dense("a", 9), dense("out", 2))
  yield "other sizes", model, held, "other units"
  model = functional(given(4), dense("a", 8, ["b"]), dense("b", 8, ["a"]))
  yield (
    "a circle",
    model,
    of_sizes(dense=(4, 8), dense_1=(8, 8)),
    "nothing gives",
  )
  model = good()
  for _ in range(40):
    model = sequential(model)
  yield "too deep", model, held, "nested"
  model = functional(given(4), given(4), dense("b", 8, ["in"]))
  yield "one name twice", model, held, "one name"
  model = good()
  model["config"]["layers"][1]["config"] = 3
  yield "nonsense", model, held, "not understood|says no shape"


@pytest.mark.parametrize(
  ("model", "held", "message"),
  [pytest.param(*case[1:], id=case[0]) for case in faults()],
)
def test_what_does_not_fit_is_refused(model, held, message, tmp_path):
  path = written.archive(tmp_path / "a.keras", model, held)
  with pytest.raises(errors.CheckpointError, match=message) as caught:
    checkpoints.load(path)
  assert len(str(caught.value).splitlines()) == 1
  # The remedy that is named works.
  network = checkpoints.load(path, override={"opaque": True})
  assert not network.spec.groups


def test_calls_are_counted(tmp_path, monkeypatch):
  monkeypatch.setattr(graph, "MAX_CALLS", 8)
  model = functional(given(4), dense("a", 4, ["in"], use_bias=False), name="m0")
  for number in range(3):  # Two calls of two calls of two calls ...
    inner = model
    inner["inbound_nodes"] = [
      {"args": [written.value("in")], "kwargs": {}} for _ in range(2)
    ]
    sums = [written.value(inner["name"], call) for call in range(2)]
    model = functional(
      given(4), inner, layer("Add", "s", [sums]), name=f"m{number + 1}"
    )
  held = arrays(functional___functional___functional___dense__0=(4, 4))
  path = written.archive(tmp_path / "a.keras", model, held)
  with pytest.raises(errors.CheckpointError, match="more than 8 calls"):
    checkpoints.load(path)


ODD = (None, -1, 0, "x", [], {}, 10**30, 1.5, [[]], {"class_name": "Model"})


def places(tree, path=()):
  yield path
  if isinstance(tree, dict | list):
    keys = tree if isinstance(tree, dict) else range(len(tree))
    for key in keys:
      yield from places(tree[key], (*path, key))


def test_any_damage_of_a_configuration_is_one_error():
  rng = np.random.default_rng(0)
  done = {"read": 0, "refused": 0}
  for name, (model, held, *_) in CASES.items():
    shapes = {n: np.shape(a) for n, a in held.items()}
    found = [p for p in places(model) if p]
    for _ in range(12):
      damaged = inner = copy.deepcopy(model)
      *path, last = found[rng.integers(len(found))]
      for key in path:
        inner = inner[key]
      inner[last] = ODD[rng.integers(len(ODD))]
      if not graph.KerasGraph.describes(damaged):
        continue
      try:
        inference.infer(
          shapes,
          framework="keras",
          graph=graph.KerasGraph(damaged, shapes, {}),
        )
        done["read"] += 1
      except inference.AmbiguousError as error:
        assert len(str(error).splitlines()) == 1, name
        done["refused"] += 1
  assert min(done.values()) > 20, done


def test_a_class_of_ones_own_is_read_by_names(tmp_path):
  model = sequential(given(4), dense("a", 8), dense("out", 2, act=None))
  model |= {"class_name": "Mine", "module": "mine"}
  held = of_sizes(dense=(4, 8), dense_1=(8, 2))
  network = checkpoints.load(written.archive(tmp_path / "a.keras", model, held))
  assert network.tensors.graph is None and network.inferred.how != "traced"
