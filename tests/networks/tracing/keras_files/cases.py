"""Small Keras networks by their configurations, and what they compute."""

import numpy as np

from tests.networks.tracing.keras_files import written
from tests.networks.tracing.keras_files.written import (
  arrays,
  functional,
  given,
  layer,
  sequential,
)

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
