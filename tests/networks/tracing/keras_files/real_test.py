"""Files that Keras itself wrote, of random architectures, read and tried.

What is computed is Keras's own: numbers of our run must be its numbers, and
permutations that are claimed must leave its output alone.
"""

import numpy as np
import pytest

from sne_jax import checkpoints
from sne_jax.networks import inference
from sne_jax.networks.tracing.keras_files import KerasGraph

keras = pytest.importorskip("keras")
L = keras.layers

ACTIVATIONS = ("relu", "tanh", "gelu", "silu", "elu", "linear", "softmax")


def norm(rng, x):
  groups = [g for g in (1, 2, x.shape[-1]) if x.shape[-1] % g == 0]
  return (
    lambda: L.BatchNormalization(scale=bool(rng.integers(2))),
    lambda: L.LayerNormalization(center=bool(rng.integers(2))),
    lambda: L.GroupNormalization(int(rng.choice(groups))),
    lambda: L.UnitNormalization(),
  )[rng.integers(4)]()(x)


def of_image(rng, x, shared):
  w, act = int(rng.choice([4, 6])), str(rng.choice(ACTIVATIONS))
  c, bias = x.shape[-1], bool(rng.integers(2))
  options = {"activation": act, "use_bias": bias, "padding": "same"}
  return (
    lambda: L.Conv2D(w, 3, **options)(x),
    lambda: L.Conv2D(2 * w, 2, groups=1 + (c % 2 == 0), **options)(x),
    lambda: L.DepthwiseConv2D(3, depth_multiplier=2, **options)(x),
    lambda: L.SeparableConv2D(w, 2, **options)(x),
    lambda: L.Conv2DTranspose(w, 3, strides=2, **options)(L.MaxPooling2D()(x)),
    lambda: norm(rng, x),
    lambda: L.Add()([x, L.Conv2D(c, 3, **options)(x)]),
    lambda: x * L.Dense(c, activation="sigmoid")(
      L.GlobalAveragePooling2D(keepdims=True)(x)
    ),
    lambda: L.Concatenate()([x, L.Conv2D(w, 1)(x)]),
    lambda: shared("image", c, lambda: L.Conv2D(c, 3, **options))(x),
    lambda: L.PReLU(shared_axes=[1, 2])(x),
  )[rng.integers(11)]()  # fmt: skip


def of_tokens(rng, x, shared):
  w, act = int(rng.choice([4, 6])), str(rng.choice(ACTIVATIONS))
  c = x.shape[-1]
  return (
    lambda: L.Conv1D(w, 3, padding="causal", activation=act)(x),
    lambda: L.Dense(w, activation=act)(x),
    lambda: norm(rng, x),
    lambda: x + L.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True),
    lambda: L.TimeDistributed(L.Dense(w))(x),
    lambda: L.GRU(w, return_sequences=True)(x),
    lambda: L.EinsumDense("abc,cd->abd", (7, w), bias_axes="d")(x),
    lambda: shared("tokens", c, lambda: L.Dense(c, activation=act))(x),
    lambda: L.Attention()([x, L.Dense(c)(x)]),
  )[rng.integers(9)]()


def of_vector(rng, x, shared):
  w, act = int(rng.choice([4, 6])), str(rng.choice(ACTIVATIONS))
  c = x.shape[-1]

  def block():
    i = keras.Input((c,))
    return keras.Model(i, L.Add()([i, L.Dense(c)(L.Dense(w, act)(i))]))

  return (
    lambda: L.Dense(w, activation=act)(x),
    lambda: norm(rng, x),
    lambda: L.Subtract()([x, L.Dense(c, activation=act)(x)]),
    lambda: shared("vector", c, lambda: L.Dense(c, activation=act))(x),
    lambda: shared("block", c, block)(x),
    lambda: keras.Sequential([L.Dense(w, act), L.Dropout(0.2), L.Dense(c)])(x),
    lambda: L.Multiply()([x, L.Dense(c, activation="sigmoid")(x)]),
  )[rng.integers(7)]()


def network(seed):
  """A random model, and an input of it."""
  rng = np.random.default_rng(seed)
  pool = {}

  def shared(kind, width, make):
    return pool.setdefault((kind, width), make())

  kind = ("image", "tokens", "vector")[seed % 3]
  shape = {"image": (8, 8, 3), "tokens": (7,), "vector": (5,)}[kind]
  start = x = keras.Input(shape)
  x = L.Embedding(11, 6)(x) if kind == "tokens" else x
  x = L.Normalization()(x) if kind == "image" else x
  of = {"image": of_image, "tokens": of_tokens, "vector": of_vector}[kind]
  for _ in range(4):
    x = of(rng, x, shared)
  for _ in range(2):
    x = L.Flatten()(x) if len(x.shape) > 2 else of_vector(rng, x, shared)
  model = keras.Model(start, L.Dense(3)(x))
  for v in model.variables:
    if not str(v.dtype).startswith("float"):
      continue
    values = rng.normal(size=tuple(v.shape)) * 0.5
    v.assign(np.abs(values) + 0.5 if "variance" in v.name else values)
  inputs = rng.normal(size=(2, *shape))
  if kind == "tokens":
    inputs = rng.integers(0, 11, (2, 7))
  return model, inputs.astype(np.float32), rng


def runner(model, entries):
  """Runs a model of Keras with arrays by the names of its file.

  Which variable an array of the file is, its numbers tell.
  """
  number = lambda v: keras.ops.convert_to_numpy(v.value)
  kept = {number(v).tobytes(): v for v in model.variables}
  named = {n: kept[np.asarray(e.read()).tobytes()] for n, e in entries.items()}

  def run(tensors, x):
    before = {n: number(named[n]).copy() for n in tensors}
    for arrays in (tensors, before):
      for name, array in arrays.items():
        named[name].assign(np.array(array))
      for layer in model._flatten_layers():
        if isinstance(layer, L.Normalization):
          layer.finalize_state()
      if arrays is tensors:
        y = keras.ops.convert_to_numpy(model(x, training=False))
    return y

  return run


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("seed", range(6))
def test_what_keras_wrote_is_what_we_run(seed, suffix, tmp_path):
  model, x, rng = network(seed)
  model.compile("adam", "mse")
  path = tmp_path / f"a.{suffix}"
  model.save(path)
  found = checkpoints.load(path)
  assert found.inferred.how == "traced"
  weights = {n for n, e in found.tensors.entries.items() if e.size > 1}
  assert {s.name for s in found.inferred.sources} >= weights, "read in full"
  assert "optimizer" in found.tensors.metadata["left_out"]
  run = runner(model, found.tensors.entries)
  want = np.ravel(run({}, x))
  arrays = {n: e.read() for n, e in found.tensors.entries.items()}
  try:
    assert isinstance(found.tensors.graph, KerasGraph)
    got = found.tensors.graph.forward(arrays, [x])
  except ValueError as error:
    assert "is not run here" in str(error)
  else:
    np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-3)
  check = inference.permutation_check(
    found.inferred, found.weights(), run, x, rng, draws=1
  )
  assert check.change < 1e-3
