import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal, special

from sne_jax.networks import families
from sne_jax.networks import spec as spec_lib
from sne_jax.networks.families import layers

# Compiling costs more than running here.
jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": "0"}
)

forward = jit(families.forward, static_argnums=0)

SPECS = families.tiny_specs()

every_family = pytest.mark.parametrize("name", SPECS)


def inputs(spec, batch=3):
  rng = np.random.default_rng(1)
  shape = dict(spec.options).get("image_shape", (spec.tensors[0].shape[-1],))
  return rng.standard_normal((batch, *shape), np.float32)


def weights_of(spec, seed=0):
  return families.random_weights(spec, np.random.default_rng(seed))


def convolve(x, kernel, stride, padding):
  """A convolution in numpy, by scipy's correlation of single images."""
  around = ((0, 0), (0, 0), (padding, padding), (padding, padding))
  x = np.pad(x, around)
  out = [
    [
      sum(
        signal.correlate2d(x_in, k_in, mode="valid")
        for x_in, k_in in zip(image, filters, strict=True)
      )
      for filters in kernel
    ]
    for image in x
  ]
  return np.array(out)[:, :, ::stride, ::stride]


def norm(x):
  x = x - x.mean(-1, keepdims=True)
  return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)


@every_family
def test_spec_survives_json(name):
  spec = SPECS[name]
  again = spec_lib.NetworkSpec.from_json(json.loads(json.dumps(spec.to_json())))
  assert again == spec
  assert hash(again) == hash(spec)
  assert again.digest == spec.digest


@every_family
def test_every_tensor_acts_on_every_input_alone(name):
  spec = SPECS[name]
  x, weights = inputs(spec), weights_of(spec)
  # The network as it is, with another input, and with each tensor changed.
  count = len(spec.tensors)
  many = weights[None].repeat(count + 2, axis=0)
  for row, (t, start) in enumerate(
    zip(spec.tensors, spec.offsets, strict=True)
  ):
    noise = np.random.default_rng(row).standard_normal(t.size)
    many[row + 2, start : start + t.size] += 0.3 * noise
  xs = x[None].repeat(count + 2, axis=0)
  xs[1, 1] += 1
  ys = jit(jax.vmap(lambda w, x: families.forward(spec, w, x)))(many, xs)
  y, other, *changed = np.asarray(ys)
  outputs = spec.tensors[-1].shape[0]
  assert y.shape == (3, outputs)
  assert y.dtype == np.float32
  np.testing.assert_allclose(other[[0, 2]], y[[0, 2]], atol=1e-6)
  assert np.abs(other[1] - y[1]).max() > 1e-4
  for t, value in zip(spec.tensors, changed, strict=True):
    if t.name.endswith("k.bias"):
      continue  # Adds the same to all scores of a query: no effect.
    assert np.abs(value - y).max() > 1e-4, f"{t.name} has no effect"


@pytest.mark.parametrize("name", ["inr", "cnn_flat"])
def test_maps_over_networks_with_static_spec(name):
  spec = SPECS[name]
  x = inputs(spec)
  weights = np.stack([weights_of(spec, seed) for seed in range(2)])
  run = jit(
    jax.vmap(families.forward, in_axes=(None, 0, None)), static_argnums=0
  )
  together = run(spec, weights, x)
  for one, y in zip(weights, together, strict=True):
    np.testing.assert_allclose(forward(spec, one, x), y, atol=1e-5)


def test_inr_by_hand():
  spec = families.inr((1, 1, 1, 1), w0=2.0, output_offset=0.25)
  weights = np.array([0.5, 0.1, -1.5, 0.2, 3.0, 0.7], np.float32)
  hidden = math.sin(2 * (-1.5 * math.sin(2 * (0.5 * 0.3 + 0.1)) + 0.2))
  y = forward(spec, weights, np.array([[0.3]], np.float32))
  np.testing.assert_allclose(y, [[3 * hidden + 0.7 + 0.25]], rtol=1e-6)


def test_inr_size_and_initial_weights():
  spec = families.build("inr", widths=(2, 32, 32, 1))
  assert spec.num_weights == 1185
  init = jit(lambda key: families.init(spec, key))
  tensors = spec.unflatten(np.asarray(init(jax.random.key(0))))
  bounds = [math.sqrt(6 / 2) / 30, math.sqrt(6 / 32) / 30, 1 / math.sqrt(32)]
  for level, bound in enumerate(bounds):
    largest = float(np.abs(tensors[f"layer{level}.weight"]).max())
    assert 0.8 * bound < largest <= bound
    assert not tensors[f"layer{level}.bias"].any()


@pytest.mark.parametrize("order", ["channels_first", "channels_last"])
@pytest.mark.parametrize("pool_first", [False, True])
def test_cnn_against_scipy(order, pool_first):
  spec = families.cnn(
    (2, 13, 12),
    (3, 4),
    kernels=(3, 2),
    strides=(1, 2),
    paddings=(1, 0),
    pools=(2, 1),
    activation="sine",  # Not monotone: pooling before or after differs.
    head="flatten",
    flatten_order=order,
    pool_before_activation=pool_first,
    num_classes=3,
  )
  x, weights = inputs(spec), weights_of(spec)
  t = spec.unflatten(weights)
  y = convolve(x, t["conv0.weight"], 1, 1)
  y = y + t["conv0.bias"].reshape(1, 3, 1, 1)
  y = y if pool_first else np.sin(y)
  y = y[:, :, :12].reshape(3, 3, 6, 2, 6, 2).max(axis=(3, 5))
  y = np.sin(y) if pool_first else y
  y = convolve(y, t["conv1.weight"], 2, 0)
  y = np.sin(y + t["conv1.bias"].reshape(1, 4, 1, 1))
  y = y if order == "channels_first" else y.transpose(0, 2, 3, 1)
  y = y.reshape(3, -1) @ t["dense0.weight"].T + t["dense0.bias"][None]
  got = forward(spec, weights, x)
  np.testing.assert_allclose(got, y, atol=1e-5)


def test_published_small_cnns_have_their_sizes():
  pooled = families.cnn((1, 28, 28), (16, 16, 16), strides=2)
  assert pooled.num_weights == 4970
  flat = functools.partial(
    families.cnn,
    channels=(8, 6, 4),
    kernels=(5, 5, 2),
    pools=(2, 2, 1),
    dense=(20,),
    head="flatten",
    pool_before_activation=True,
  )
  assert flat((1, 28, 28)).num_weights == 2464
  assert flat((3, 28, 28)).num_weights == 2864


def test_resnet_against_scipy():
  spec = SPECS["resnet"]
  x, weights = inputs(spec), weights_of(spec)
  t = spec.unflatten(weights)

  def conv(name, x, stride):
    kernel = t[f"{name}.weight"]
    x = convolve(x, kernel, stride, kernel.shape[-1] // 2)
    scale, shift, mean, var = (
      t[f"{name}.norm.{part}"].reshape(1, -1, 1, 1)
      for part in ("scale", "shift", "mean", "var")
    )
    return (x - mean) / np.sqrt(var + 1e-5) * scale + shift

  def relu(x):
    return np.maximum(x, 0)

  y = relu(conv("stem", x, 1))
  inner = relu(conv("block0.conv1", y, 1))
  y = relu(y + conv("block0.conv2", inner, 1))
  inner = relu(conv("block1.conv1", y, 2))
  y = relu(conv("block1.shortcut", y, 2) + conv("block1.conv2", inner, 1))
  y = y.mean(axis=(2, 3)) @ t["dense.weight"].T + t["dense.bias"][None]
  got = forward(spec, weights, x)
  np.testing.assert_allclose(got, y, atol=1e-5)


def test_resnet_levels_branches_and_ties():
  spec = families.resnet((1, 8, 8), widths=(4, 6), blocks=(2, 1))
  assert spec.skips == ((0, 2), (2, 4), (4, 6))
  assert spec.num_levels == 8
  assert spec.tensor("block2.shortcut.weight").branch == 1
  assert spec.tensor("block2.shortcut.weight").level == 5
  assert spec.tensor("block2.shortcut.norm.mean").branch == 1
  assert spec.tensor("block2.conv2.norm.mean").of == "block2.conv2.weight"
  ends = [spec.tensor(f"{n}.weight").axes[0] for n in ("stem", "block1.conv2")]
  assert ends[0] == ends[1]
  assert spec.tensor("block2.conv1.weight").axes[1] == ends[0]
  assert spec.tensor("dense.weight").axes[1][0].group == "stage1"


@pytest.mark.parametrize("name", ["transformer", "transformer_bare"])
def test_transformer_against_loops_over_tokens(name):
  spec = SPECS[name]
  x, weights = inputs(spec), weights_of(spec).astype(np.float64)
  t = spec.unflatten(weights)

  def linear(name, x):
    return x @ t[f"{name}.weight"].T + t.get(f"{name}.bias", np.zeros(1))

  def layer_norm(name, x):
    return norm(x) * t[f"{name}.scale"] + t[f"{name}.shift"]

  t["patch.weight"] = t["patch.weight"].reshape(6, -1)
  outputs = []
  for image in x:
    patches = [image[:, :4].reshape(-1), image[:, 4:].reshape(-1)]
    tokens = [t["class_token"], *(linear("patch", p) for p in patches)]
    s = np.stack(tokens) + t["position"]
    for block in range(2 if name == "transformer" else 1):
      b = f"block{block}"
      y = layer_norm(f"{b}.norm1", s)
      q, k, v = (linear(f"{b}.{part}", y) for part in "qkv")
      mixed = np.zeros((3, 12))
      for head in range(3):
        own = slice(4 * head, 4 * head + 4)
        for place in range(3):
          scores = k[:, own] @ q[place, own] / 2
          mixed[place, own] = special.softmax(scores) @ v[:, own]
      s = s + linear(f"{b}.o", mixed)
      y = linear(f"{b}.ff1", layer_norm(f"{b}.norm2", s))
      s = s + linear(f"{b}.ff2", y * special.ndtr(y))
    outputs.append(linear("head", layer_norm("norm", s)[0]))
  got = forward(spec, weights.astype(np.float32), x)
  np.testing.assert_allclose(got, np.stack(outputs), atol=1e-5)


def test_transformer_levels():
  spec = SPECS["transformer"]
  assert spec.num_levels == 15
  assert spec.skips == ((0, 3), (3, 6), (6, 9), (9, 12))
  assert [spec.activations[level] for level in (5, 11)] == ["gelu", "gelu"]
  assert spec.tensor("block1.ff1.weight").level == 11
  branches = [spec.tensor(f"block0.{p}.weight").branch for p in "qkv"]
  assert branches == [0, 1, 2]


def test_activations_by_hand():
  x = jnp.array([-2.0, 0.5])
  known = {
    "relu": [0, 0.5],
    "leaky_relu": [-0.02, 0.5],
    "gelu": [-2 * special.ndtr(-2), 0.5 * special.ndtr(0.5)],
    "silu": [-2 * special.expit(-2), 0.5 * special.expit(0.5)],
    "tanh": np.tanh([-2, 0.5]),
    "sigmoid": special.expit([-2, 0.5]),
    "sine": np.sin([-2, 0.5]),
    "none": [-2, 0.5],
  }
  for name, value in known.items():
    np.testing.assert_allclose(
      layers.activate(name, x), value, rtol=1e-5, err_msg=name
    )
  np.testing.assert_allclose(
    layers.activate("sine", x, 3.0), np.sin([-6, 1.5]), rtol=1e-5
  )


@pytest.mark.parametrize(
  ("scheme", "std"),
  [
    ("glorot_uniform", math.sqrt(2 / (9 * (40 + 50)))),
    ("glorot_normal", math.sqrt(2 / (9 * (40 + 50)))),
    ("he_uniform", math.sqrt(2 / (9 * 40))),
    ("lecun_normal", math.sqrt(1 / (9 * 40))),
    ("he_normal", math.sqrt(2 / (9 * 40))),
    ("fan_in_uniform", math.sqrt(1 / (3 * 9 * 40))),
    ("orthogonal", math.sqrt(1 / (9 * 40))),
    ("normal", 0.3),
    ("truncated_normal", 0.3 * 0.8796),  # Cut at two deviations.
  ],
)
def test_initial_deviation(scheme, std):
  spec = families.cnn((1, 9, 9), (40, 50))
  init = jit(lambda key: families.init(spec, key, scheme, std=0.3, bias=0.01))
  tensors = spec.unflatten(np.asarray(init(jax.random.key(0))))
  kernel = tensors["conv1.weight"]
  assert kernel.shape == (50, 40, 3, 3)
  # 18,000 draws: the estimate is within two percent.
  assert abs(kernel.std() / std - 1) < 0.02
  np.testing.assert_allclose(tensors["conv1.bias"], 0.01)
  if scheme == "orthogonal":
    rows = kernel.reshape(50, -1)
    np.testing.assert_allclose(rows @ rows.T, np.eye(50), atol=1e-5)


def test_initial_weights_map_over_networks_and_deviations():
  spec = families.cnn((1, 9, 9), (8, 8))
  keys = jax.random.split(jax.random.key(0), 3)
  stds = jnp.array([0.01, 0.1, 1.0])
  draw = jit(jax.vmap(lambda k, s: families.init(spec, k, "normal", std=s)))
  tensors = spec.unflatten(np.asarray(draw(keys, stds)))
  found = tensors["conv1.weight"].reshape(3, -1).std(axis=1)
  np.testing.assert_allclose(found, stds, rtol=0.15)


def test_orthogonal_weights_map_over_networks():
  # Batched LAPACK factorizations of several tensors can wait for each other.
  spec = families.cnn((1, 9, 9), (8, 8))
  keys = jax.random.split(jax.random.key(0), 24)
  draw = jit(jax.vmap(lambda k: families.init(spec, k, "orthogonal")))
  tensors = spec.unflatten(np.asarray(draw(keys)))
  for name in ("conv0.weight", "conv1.weight"):
    rows = tensors[name].reshape(24, 8, -1)
    product = np.einsum("nri,nsi->nrs", rows, rows)
    eye = np.broadcast_to(np.eye(8), product.shape)
    np.testing.assert_allclose(product, eye, atol=1e-5)
  assert "lapack" not in draw.lower(keys).as_text()


@every_family
def test_fresh_norms_are_the_identity_and_draws_differ(name):
  spec = SPECS[name]
  init = jit(lambda key: families.init(spec, key))
  weights = init(jax.random.key(0))
  assert weights.shape == (spec.num_weights,)
  assert weights.dtype == jnp.float32
  weights = spec.unflatten(np.asarray(weights))
  other = spec.unflatten(np.asarray(init(jax.random.key(1))))
  constant = {"norm_scale": 1, "norm_var": 1, "norm_shift": 0, "norm_mean": 0}
  for t in spec.tensors:
    value = weights[t.name]
    if t.kind in constant:
      np.testing.assert_array_equal(value, constant[t.kind])
    elif not t.kind.endswith("bias"):
      assert (value != other[t.name]).all(), t.name


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: families.build("rnn"), "unknown family 'rnn'; known are mlp"),
    (lambda: families.build("inr", width=3), "'width'; its options are widths"),
    (lambda: families.build("mlp"), "'widths'"),
    (lambda: families.mlp((3,)), "2 or more"),
    (lambda: families.mlp((3, 0, 2)), "at least 1"),
    (lambda: families.mlp((3, 4, 2), "swish"), "unknown activation 'swish'"),
    (lambda: families.mlp((3, 4, 2), ("relu", "relu")), "or 1"),
    (lambda: families.inr(w0=0.0), "w0"),
    (lambda: families.cnn((28, 28), (4,)), "image_shape"),
    (lambda: families.cnn((1, 4, 4), (4, 4, 4)), "does not fit"),
    (lambda: families.cnn((1, 4, 4), (4,), pools=4), "nothing is left"),
    (lambda: families.cnn((1, 8, 8), (4, 4), strides=(1,)), "strides"),
    (lambda: families.cnn((1, 8, 8), (4,), head="mean"), "pool, flatten"),
    (lambda: families.resnet((1, 8, 8), kernel=2), "odd"),
    (lambda: families.transformer((1, 8, 8), patch=3), "divide the image"),
    (lambda: families.transformer((1, 8, 8), 4, dim=6), "heads"),
    (
      lambda: families.init(SPECS["mlp"], jax.random.key(0), "xavier"),
      "unknown scheme 'xavier'",
    ),
    (
      lambda: families.forward(SPECS["mlp"], np.zeros(71), np.zeros((2, 4))),
      r"\('B', 3\), got \(2, 4\)",
    ),
  ],
)
def test_faults_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def renamed(spec, groups=lambda name: name):
  """The spec under other names of tensors, and groups as told."""
  name = lambda old: None if old is None else f"module.{old}"
  group = lambda old: None if old is None else groups(old)
  axes = lambda tensor: tuple(
    tuple(spec_lib.Factor(f.size, group(f.group), group(f.per)) for f in axis)
    for axis in tensor.axes
  )
  tensors = [
    dataclasses.replace(t, name=name(t.name), of=name(t.of), axes=axes(t))
    for t in spec.tensors
  ]
  return spec_lib.NetworkSpec("unknown", tuple(tensors), skips=spec.skips)


def test_a_group_of_one_is_no_part_of_the_anatomy():
  spec = families.architecture("schuerholt", (1, 20, 20), 10, "tanh")
  axis = spec.tensor("dense0.weight").axes[1]
  assert [f.size for f in axis] == [4, 1]  # One place is left of the image.
  tensors = [
    dataclasses.replace(t, axes=(t.axes[0], axis[:1]))
    if t.name == "dense0.weight"
    else t
    for t in spec.tensors
  ]
  other = spec_lib.NetworkSpec("unknown", tuple(tensors), skips=spec.skips)
  assert other.layout != spec.layout and other.anatomy == spec.anatomy


@every_family
def test_names_are_no_part_of_the_anatomy(name):
  spec = SPECS[name]
  own = renamed(spec, lambda group: f"neurons of {group}")
  assert own.layout != spec.layout and own.anatomy == spec.anatomy
  assert spec.anatomy.num_weights == spec.num_weights
  first = next(iter(spec.groups))
  frozen = renamed(spec, lambda group: None if group == first else group)
  nested = any(per == first for _, per in spec.groups.values())
  assert nested or frozen.anatomy != spec.anatomy  # Which neurons move.
  for place, tensor in enumerate(spec.tensors):
    if tensor.of is None and not tensor.kind.endswith("bias"):
      deeper = dataclasses.replace(tensor, branch=tensor.branch + 1)
      tensors = (*spec.tensors[:place], deeper, *spec.tensors[place + 1 :])
      other = spec_lib.NetworkSpec("unknown", tensors, skips=spec.skips)
      assert other.anatomy != spec.anatomy
      break
