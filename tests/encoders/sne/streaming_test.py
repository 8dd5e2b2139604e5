"""A network in micro-batches has the code that it has at once."""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import weakref

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from sne_jax.encoders.sne import (
  chunk_stream,
  large_sets,
  pace,
  streaming,
  tensor_source,
)
from sne_jax.encoders.sne import module as sne
from sne_jax.encoders.sne import options as sne_options
from sne_jax.encoders.sne import slots as slots_lib
from sne_jax.networks import chunking, families
from sne_jax.networks.chunking import ranges

SPECS = {
  "mlp": families.mlp((3, 6, 5, 2)),
  "cnn": families.tiny_specs()["cnn_flat"],
  "skips": families.tiny_specs()["cnn_skips"],
  "resnet": families.resnet((1, 4, 4), (2, 3), num_classes=2),
  "vit": families.transformer(
    (1, 4, 4), patch=2, dim=4, depth=1, heads=2, hidden=3, num_classes=2
  ),
}
NEURON = chunking.ChunkOptions(
  chunk_size=8, linear_rule="neuron", conv_rule="neuron"
)
FLAT = chunking.ChunkOptions(
  chunk_size=16, linear_rule="flat", conv_rule="flat", embedding_rule="flat"
)
TINY = {
  "width": 8,
  "heads": 2,
  "chunk_blocks": 1,
  "layer_blocks": 1,
  "network_blocks": 1,
  "inducing_points": 2,
  "identifier_dim": 4,
  "feed_forward": 1,
}
MEANS = {"layer_function": "deepsets", "network_function": "deepsets"}
CASES = {
  "the defaults": ("mlp", NEURON, {}),
  "isab, scales by tensor": (
    "cnn",
    NEURON,
    {"layer_function": "isab", "layer_seeds": 2, "weight_scale": "tensor"},
  ),
  "no layers, places": (
    "vit",
    NEURON,
    {"layer_function": "none", "index_features": "neuron"},
  ),
  "no tokens of skips": ("resnet", NEURON, MEANS | {"skip_tokens": False}),
  "the paper's": (
    "cnn",
    FLAT,
    {
      "chunk_function": "sab",
      "identifiers": "none",
      "index_features": "none",
      "weight_scale": "global",
    },
  ),
  "coded, by head, scales by tensor": (
    "vit",
    dataclasses.replace(FLAT, attention_rule="per_head"),
    MEANS
    | {
      "chunk_function": "isab",
      "form": "coded",
      "norm": "post",
      "weight_scale": "tensor",
    },
  ),
  "columns and kernels": (
    "cnn",
    dataclasses.replace(FLAT, linear_rule="col", conv_rule="kernel"),
    MEANS
    | {
      "chunk_function": "deepsets",
      "index_features": "chunk",
      "value_features": "fourier",
      "chunk_tile": 4,
    },
  ),
  "appended biases": (
    "skips",
    dataclasses.replace(
      FLAT, linear_rule="row", conv_rule="filter", bias_rule="append"
    ),
    MEANS | {"chunk_function": "linear", "level_encoding": "learned"},
  ),
  "norms together": (
    "resnet",
    dataclasses.replace(FLAT, norm_rule="concat"),
    MEANS | {"level_again": False, "fan_in_scale": False},
  ),
}


def network(name):
  spec = SPECS[name]
  rng = np.random.default_rng(0)
  return spec, families.random_weights(spec, rng)


def far(one, other):
  """Largest difference between codes."""
  return np.abs(one - other).max()


def drawn(shapes):
  """Draws parameters of given shapes."""
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda x: jnp.asarray(0.5 * rng.standard_normal(x.shape), x.dtype), shapes
  )


@functools.cache
def encode_fn(options, chunk_options, most_slots):
  del most_slots  # Which `make_encode_fn` reads.
  return streaming.make_encode_fn(options, chunk_options)


def streamed(encoder, net, chunk_options, tensors=None, **kwargs):
  """The code of one network in micro-batches, by a `make_encoder` encoder."""
  spec, weights = net
  encode = encode_fn(encoder.options, chunk_options, streaming.MOST_SLOTS)
  tensors = spec.unflatten(weights) if tensors is None else tensors
  return encode(encoder.params["params"], spec, tensors, **kwargs)


@pytest.mark.parametrize(
  "case",
  [
    pytest.param(c, marks=() if c == "no layers, places" else pytest.mark.slow)
    for c in CASES
  ],
)
def test_streamed_is_packed(make_encoder, monkeypatch, case):
  name, chunk_options, options = CASES[case]
  net = network(name)
  encoder = make_encoder([net[0]], chunk_options, **TINY | options)
  # Micro-batches that end inside neurons, and inside layers.
  monkeypatch.setattr(streaming, "MOST_SLOTS", 11 * chunk_options.chunk_size)
  code = encoder(net)[0]
  assert np.abs(code).max() > 0.1
  np.testing.assert_allclose(
    streamed(encoder, net, chunk_options), code, rtol=1e-4, atol=1e-5
  )


# One encoder for the rest: no attention, so that compilations are few.


@pytest.fixture(scope="module")
def resnet(make_encoder):
  net = network("resnet")
  encoder = make_encoder([net[0]], NEURON, **TINY | MEANS)
  return net, encoder, encoder(net)[0]


def test_any_micro_batch_gives_the_same(resnet, monkeypatch):
  net, encoder, code = resnet
  for chunks in (1, 50):
    monkeypatch.setattr(streaming, "MOST_SLOTS", chunks * NEURON.chunk_size)
    np.testing.assert_allclose(
      streamed(encoder, net, NEURON), code, rtol=1e-4, atol=1e-5
    )


class OnCall:
  """A tensor that is read when asked for."""

  def __init__(self, array):
    self.shape, self._array = array.shape, array

  def read(self):
    return self._array


def test_tensors_are_read_where_they_lie(resnet, tmp_path):
  net, encoder, code = resnet
  spec, weights = net
  mapped = {}
  for name, array in spec.unflatten(weights).items():
    path = tmp_path / name
    np.ascontiguousarray(array.T).tofile(path)  # Stored the other way round.
    stored = np.memmap(path, np.float32, mode="r", shape=array.T.shape)
    mapped[name] = OnCall(stored.T) if "shortcut" in name else stored.T
  calls = []
  got = streamed(
    encoder, net, NEURON, mapped, progress=lambda *call: calls.append(call)
  )
  np.testing.assert_allclose(got, code, rtol=1e-4, atol=1e-5)
  num_chunks = chunking.num_chunks(spec, NEURON)
  done, total = calls[-1]
  assert done == total and total >= 2 * num_chunks
  assert [done for done, _ in calls] == sorted({done for done, _ in calls})
  mapped[spec.tensors[0].name] = mapped[spec.tensors[0].name] * 2
  assert far(streamed(encoder, net, NEURON, mapped), code) > 1e-3  # Control.


def test_tensors_are_let_go_layer_by_layer():
  """Also where micro-batches end where layers do."""
  spec = families.mlp((8,) * 9)
  options = sne_options.SNEOptions(**TINY)
  plan = ranges.plan(spec.layout, NEURON)
  sizes = set(np.diff(plan.starts)[1:-1].tolist())
  assert len(sizes) == 1
  held, most = weakref.WeakSet(), []

  class Counted(OnCall):
    def read(self):
      array = self._array.copy()
      held.add(Box(array))
      most.append(len(held))
      return array

  class Box:
    """Lives as long as an array does; arrays have no hash of their own."""

    def __init__(self, array):
      weakref.finalize(array, held.discard, self)

  arrays = spec.unflatten(np.ones(spec.num_weights, np.float32))
  for size in (sizes.pop(), 5):
    most.clear()
    stream = chunk_stream.ChunkStream(
      plan,
      {name: Counted(array) for name, array in arrays.items()},
      sne.SNE(options, 1.0, ()).scaling,
      size,
    )
    for _ in range(2):
      for _ in stream.map(lambda slots: np.zeros((len(slots.neuron), 1))):
        pass
    assert len(most) > 2 * len(spec.tensors) - 3  # The last may stay.
    assert max(most) <= 7 < len(spec.tensors)


def test_half_precision_is_converted(resnet):
  net, encoder, _ = resnet
  spec, weights = net
  for dtype in (np.float16, ml_dtypes.bfloat16):
    rounded = weights.astype(dtype)
    code = encoder((spec, rounded.astype(np.float32)))[0]
    got = streamed(encoder, net, NEURON, spec.unflatten(rounded))
    np.testing.assert_allclose(got, code, rtol=1e-4, atol=1e-5)


def test_writable_maps_keep_what_was_written(tmp_path):
  spec, weights = network("mlp")
  path = tmp_path / "w"
  weights.tofile(path)
  mapped = np.memmap(path, np.float32, mode="c")
  mapped[:] = 3
  source = tensor_source.TensorSource(spec, spec.unflatten(mapped))
  for place in range(len(source)):
    source.give_back(place)
  assert (mapped == 3).all()


@pytest.mark.slow
def test_random_identifiers_are_given(make_encoder):
  spec, weights = network("mlp")
  encoder = make_encoder(
    [spec], NEURON, **TINY | MEANS | {"identifiers": "random"}
  )
  rngs = {"identifiers": jax.random.key(1)}
  draw = lambda count: encoder.module.apply(
    encoder.params, count, rngs=rngs, method="draw_identifiers"
  )
  code = encoder((spec, weights), rngs=rngs)[0]
  got = streamed(encoder, (spec, weights), NEURON, identifiers=draw)
  np.testing.assert_allclose(got, code, rtol=1e-4, atol=1e-5)
  with pytest.raises(ValueError, match="pass a function that draws them"):
    streamed(encoder, (spec, weights), NEURON)


def test_misfits_are_named(resnet):
  net, encoder, _ = resnet
  spec, weights = net
  tensors = spec.unflatten(weights)
  name = spec.tensors[3].name
  missing = {n: t for n, t in tensors.items() if n != name}
  with pytest.raises(ValueError, match=f"tensor '{name}' is missing"):
    streamed(encoder, net, NEURON, missing)
  with pytest.raises(ValueError, match=f"tensor '{name}' has shape"):
    streamed(encoder, net, NEURON, tensors | {name: tensors[name][:-1]})


# Memory.


def test_limits_that_are_too_low_are_refused(make_encoder):
  options = sne_options.SNEOptions(**TINY)
  with pytest.raises(ValueError, match="one chunk of 8 weights takes"):
    streaming.make_encode_fn(options, NEURON, memory_limit=1000)
  spec = families.mlp((3, 60, 60, 2))
  weights = np.zeros(spec.num_weights, np.float32)
  encode = streaming.make_encode_fn(options, NEURON, memory_limit=60_000)
  with pytest.raises(ValueError, match="is for what is held") as error:
    encode({}, spec, spec.unflatten(weights))
  needed = sum(
    streaming.held_bytes(options, ranges.plan(spec, NEURON)).values()
  )
  assert f"set it to at least {2 * needed}" in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
  "function",
  [
    pytest.param(f, marks=() if f == "product" else pytest.mark.slow)
    for f in ("product", "sab", "isab", "deepsets")
  ],
)
def test_a_micro_batch_fits_its_share(function):
  # Compiled with optimisation, as it is when it counts.
  options = sne_options.SNEOptions(chunk_function=function, chunk_blocks=2)
  size, count = 64, 128
  module = sne.SNE(options)
  shape = lambda *axes, kind=np.float32: jax.ShapeDtypeStruct(axes, kind)
  ints = functools.partial(shape, kind=np.int32)
  slots = slots_lib.Slots(
    weights=shape(count, size),
    log_scale=None,
    mask=shape(count, size, kind=bool),
    role=ints(count, size),
    positions=(ints(count, size),) * 2,
    other=ints(count, size),
    neuron=ints(count),
    chunk=ints(count),
    kind=ints(count),
    level=shape(count, 2),
  )
  spec = families.mlp((3, 6, 5, 2))
  packed = slots_lib.packer([spec], options, NEURON).pack(
    [0], [np.zeros(spec.num_weights, np.float32)]
  )
  params = jax.eval_shape(module.init, jax.random.key(0), packed)
  tables = (shape(64, options.identifier_dim),) * 2
  neurons = shape(64, options.identifier_dim)
  for method, args in (
    ("chunk_codes", (slots, tables, neurons)),
    ("summaries", (slots, tables)),
  ):
    compiled = (
      jax.jit(functools.partial(module.apply, method=method))
      .lower(params, *args)
      .compile({"xla_backend_optimization_level": 2})
    )
    memory = compiled.memory_analysis()
    taken = memory.temp_size_in_bytes + 2 * memory.argument_size_in_bytes
    room = streaming.bytes_per_slot(options, size) * size * count
    assert taken < room
    assert method != "chunk_codes" or room < 6 * taken  # And not out of hand.


# Sets in blocks.


@pytest.mark.slow
@pytest.mark.parametrize(
  "function",
  [
    pytest.param(f, marks=() if f == "none" else pytest.mark.slow)
    for f in ("none", "isab", "sab", "deepsets")
  ],
)
def test_sets_in_blocks(function):
  form = "coded" if function == "sab" else "published"
  options = sne_options.SNEOptions(
    **TINY
    | {"form": form, "layer_blocks": 2, "network_blocks": 1}
    | {"layer_function": function}
    | ({"network_function": function} if function != "none" else {}),
    norm="pre" if form == "published" else "post",
  )
  rng = np.random.default_rng(0)
  members = rng.standard_normal((21, 8)).astype(np.float32)
  stages = ("network",) if function == "none" else ("network", "layer")
  for stage in stages:
    module = sne.SetEncoder(options, stage)
    x = jnp.asarray(members), jnp.ones(21, bool)
    params = drawn(jax.eval_shape(module.init, jax.random.key(0), *x))["params"]
    code = module.apply({"params": params}, *x)
    for block in (4, 64):  # In six, of which the last is not full; at once.
      encode = large_sets.make_set_fn(options, stage, block=block)
      told = []
      got = encode(params, members.copy(), told.append)
      steps = large_sets.steps(options, stage, len(members), block=block)
      assert sum(told) == steps and (block > 21) == (steps == 1)
      np.testing.assert_allclose(got, code, rtol=1e-4, atol=1e-5)
    assert far(encode(params, members[:20].copy()), code) > 1e-4  # Control.


def test_an_estimate_is_the_work_at_the_pace_of_a_piece(resnet, monkeypatch):
  (spec, weights), encoder, code = resnet
  encode = encode_fn(encoder.options, NEURON, streaming.MOST_SLOTS)
  params, tensors = encoder.params["params"], spec.unflatten(weights)
  assert encode.pace(params, spec, tensors) == (None, 0.0)  # It is small.
  monkeypatch.setattr(pace, "FEW_PARTS", 0)
  clock = iter(np.arange(1000.0).tolist())  # Each piece takes a second.
  monkeypatch.setattr(pace.time, "perf_counter", lambda: next(clock))
  found, seconds = encode.pace(params, spec, tensors)
  plan = ranges.plan(spec.layout, NEURON)
  assert found.passes == (1 / plan.num_chunks,) * 2  # One micro-batch.
  assert (found.layer, found.network) == (1.0, 0.0)
  assert seconds == pytest.approx(2 + len(plan.starts) - 1)
  told = []
  got = encode(
    *(params, spec, tensors),
    pace=found,
    progress=lambda *both: told.append(both),
  )
  assert told[-1] == pytest.approx((seconds, seconds))
  np.testing.assert_allclose(got, code, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_memory_of_a_large_network_is_bounded(tmp_path):
  # 20M weights: the arrays of a packed batch of them take 1.8 GB.
  out = tmp_path / "large.json"
  command = [sys.executable, "-m", "benchmarks.large_networks"]
  command += ["--networks=mlp_20m", "--memory_limit=256"]
  command += [f"--folder={tmp_path}", f"--out={out}"]
  optimised = {k: v for k, v in os.environ.items() if "OPTIMIZ" not in k}
  root = pathlib.Path(__file__).parents[3]
  subprocess.run(command, check=True, timeout=1200, cwd=root, env=optimised)
  (row,) = json.loads(out.read_text())["networks"]
  assert row["parameters"] > 2e7
  assert row["peak_mib"] < 700
