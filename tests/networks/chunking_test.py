"""Chunk layouts: counts, rules by hand, round trips, neuron permutations."""

import collections
import dataclasses
import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from sne_jax.networks import chunking, families
from sne_jax.networks.chunking import ChunkOptions
from sne_jax.networks.spec import (
  KINDS,
  WEIGHT_KINDS,
  Factor,
  NetworkSpec,
  TensorSpec,
  plain_axis,
)

ROLE = {name: place for place, name in enumerate(chunking.ROLES)}


def dense(widths, activations=()):
  """An MLP: `w0 [w1, w0], b0 [w1], w1, b1, ...`."""
  tensors = []
  last = len(widths) - 2
  for level, (inner, out) in enumerate(
    zip(widths[:-1], widths[1:], strict=True)
  ):
    rows = plain_axis(out, None if level == last else f"h{level}")
    columns = plain_axis(inner, f"h{level - 1}" if level else None)
    weight = f"w{level}"
    tensors += [
      TensorSpec(weight, "linear_weight", (out, inner), level, (rows, columns)),
      TensorSpec(f"b{level}", "linear_bias", (out,), level, (rows,), weight),
    ]
  return NetworkSpec("dense", tuple(tensors), activations)


def conv_net(channels, num_out, kernel=3, spots=1, norm=False):
  """Convolutions, then a dense layer behind `spots` places per channel."""
  tensors = []
  for level, (inner, out) in enumerate(
    zip(channels[:-1], channels[1:], strict=True)
  ):
    rows = plain_axis(out, f"c{level}")
    columns = plain_axis(inner, f"c{level - 1}" if level else None)
    side = plain_axis(kernel)
    weight, shape = f"conv{level}", (out, inner, kernel, kernel)
    tensors += [
      TensorSpec(
        weight, "conv_weight", shape, level, (rows, columns, side, side)
      ),
      TensorSpec(f"bias{level}", "conv_bias", (out,), level, (rows,), weight),
    ]
    if norm:
      tensors += [
        TensorSpec(f"{kind}{level}", kind, (out,), level, (rows,), weight)
        for kind in ("norm_scale", "norm_shift", "norm_mean", "norm_var")
      ]
  level = len(channels) - 1
  last = channels[-1]
  flat = (Factor(last, f"c{level - 1}"), Factor(spots))
  rows = plain_axis(num_out)
  tensors += [
    TensorSpec(
      "head", "linear_weight", (num_out, last * spots), level, (rows, flat)
    ),
    TensorSpec("head_b", "linear_bias", (num_out,), level, (rows,), "head"),
  ]
  return NetworkSpec("conv", tuple(tensors))


def transformer(entries=5, dim=4, heads=2, units=3, num_out=2):
  """Embedding, one pre-norm attention block with a residual, a dense head."""
  stream = plain_axis(dim, "stream")
  qk = (Factor(heads, "heads"), Factor(units, "qk", per="heads"))
  v = (Factor(heads, "heads"), Factor(units, "v", per="heads"))
  inner = heads * units
  make = TensorSpec
  return NetworkSpec(
    "transformer",
    (
      make(
        "table", "embedding", (entries, dim), 0, ((Factor(entries),), stream)
      ),
      make("class", "class_token", (dim,), 0, (stream,)),
      make("where", "position", (3, dim), 0, ((Factor(3),), stream)),
      make("ln.scale", "norm_scale", (dim,), 1, (stream,)),
      make("ln.shift", "norm_shift", (dim,), 1, (stream,)),
      make("q", "attention_q", (inner, dim), 1, (qk, stream)),
      make("q.b", "attention_bias", (inner,), 1, (qk,), "q"),
      make("k", "attention_k", (inner, dim), 1, (qk, stream)),
      make("v", "attention_v", (inner, dim), 1, (v, stream)),
      make("v.b", "attention_bias", (inner,), 1, (v,), "v"),
      make("o", "attention_o", (dim, inner), 2, (stream, v)),
      make("o.b", "linear_bias", (dim,), 2, (stream,), "o"),
      make("head", "linear_weight", (num_out, dim), 3, ((Factor(2),), stream)),
      make("head.b", "linear_bias", (num_out,), 3, ((Factor(2),),), "head"),
    ),
  )


def linear(name, level, rows, columns):
  """A linear weight of the given axes."""
  shape = tuple(int(np.prod([f.size for f in a])) for a in (rows, columns))
  return TensorSpec(name, "linear_weight", shape, level, (rows, columns))


def residual():
  """A dense stream: stem, two blocks of two layers, a head."""

  stream, one, two = (
    plain_axis(3, "s"),
    plain_axis(2, "one"),
    plain_axis(2, "two"),
  )
  return NetworkSpec(
    "residual",
    (
      linear("stem", 0, stream, plain_axis(2)),
      linear("up1", 1, one, stream),
      linear("down1", 2, stream, one),
      linear("up2", 3, two, stream),
      linear("down2", 4, stream, two),
      linear("head", 5, plain_axis(2), stream),
    ),
    skips=((0, 2), (2, 4)),
  )


INR = dense((1, 32, 32, 1))


def cut_flat(**options):
  """Rules of the paper, but for what is said otherwise."""
  return ChunkOptions.published(**options)


NEURON = {"linear_rule": "neuron", "conv_rule": "neuron"}


def kinds_of(layout):
  """Kind name of every chunk."""
  return [KINDS[k] for k in layout.layer_kind[layout.layer]]


def elements(layout, slots, spec):
  """Names of the weights in slots, as `tensor[place]`."""
  return [
    (spec.tensors[t].name, int(i) - spec.offsets[t])
    for t, i in zip(layout.tensor[slots], layout.index[slots], strict=True)
  ]


# Counts.


@pytest.mark.parametrize(
  ("rule", "count"), [("flat", 37), ("row", 68), ("col", 68)]
)
def test_counts_of_the_sine_network(rule, count):
  options = cut_flat(linear_rule=rule)
  assert chunking.num_chunks(INR, options) == count
  layout = chunking.layout(INR, options)
  assert layout.index.shape == (count, 32)
  if rule == "flat":  # W2: each chunk is one neuron's row.
    rows = layout.index[layout.tensor[:, 0] == 2]
    np.testing.assert_array_equal(rows, 64 + np.arange(1024).reshape(32, 32))


def test_counts_of_the_small_cnn():
  spec = conv_net((1, 16, 16, 16), 10)
  assert spec.num_weights == 4970
  kernel = chunking.layout(spec, cut_flat(chunk_size=9))
  assert kinds_of(kernel).count("conv_weight") == 16 + 256 + 256
  flat = chunking.layout(spec, cut_flat(conv_rule="flat"))
  assert kinds_of(flat).count("conv_weight") == 5 + 72 + 72
  by_filter = chunking.layout(spec, cut_flat(conv_rule="filter"))
  assert kinds_of(by_filter).count("conv_weight") == 16 * (1 + 5 + 5)


def test_neuron_rule_of_the_sine_network():
  options = ChunkOptions(chunk_size=34, **NEURON)
  layout = chunking.layout(INR, options)
  assert layout.index.shape == (65, 34)
  assert chunking.num_chunks(INR, options) == 65
  np.testing.assert_array_equal(layout.owner, 1 + np.arange(65))
  seen = np.bincount(layout.index[layout.mask], minlength=INR.num_weights)
  twice = {"w1", "w2"}  # Both ends of w1 and the input end of w2 are hidden.
  for t, start in zip(INR.tensors, INR.offsets, strict=True):
    times = 2 if t.name in twice else 1
    np.testing.assert_array_equal(seen[start : start + t.size], times)
  assert list(layout.layer_tensor) == [0, 2, 4]
  assert list(layout.layer_level) == [0, 1, 2]


# Round trips.


@st.composite
def specs(draw):
  """Draws a function that makes a spec; beartype's own draws stay out of it."""
  sizes = st.integers(1, 5)
  which = draw(st.sampled_from(("dense", "conv", "transformer", "residual")))
  if which == "dense":
    widths = tuple(draw(st.lists(sizes, min_size=2, max_size=4)))
    return functools.partial(dense, widths)
  if which == "conv":
    channels = tuple(draw(st.lists(sizes, min_size=2, max_size=3)))
    return functools.partial(
      conv_net,
      channels,
      draw(sizes),
      kernel=draw(st.integers(1, 3)),
      spots=draw(st.integers(1, 3)),
      norm=draw(st.booleans()),
    )
  if which == "transformer":
    four = [draw(sizes) for _ in range(4)]
    return functools.partial(transformer, *four)
  return residual


@st.composite
def rules(draw):
  pick = lambda *names: draw(st.sampled_from(names))
  options = {
    "chunk_size": draw(st.integers(1, 20)),
    "norm_rule": pick("own", "concat"),
    "embedding_rule": pick("flat", "row"),
  }
  if draw(st.booleans()):
    attention = pick("typed", "one_type")
    return options | NEURON | {"attention_rule": attention}
  bias = pick("own", "append", "drop")
  if bias == "append":
    options |= {"linear_rule": "row", "conv_rule": "filter"}
    attention = pick("typed", "one_type")
  else:
    options["linear_rule"] = pick("flat", "row", "col")
    options["conv_rule"] = pick("kernel", "filter", "flat")
    attention = pick("typed", "one_type", "per_head")
  return options | {"bias_rule": bias, "attention_rule": attention}


@hypothesis.settings(deadline=None, derandomize=True, max_examples=200)
@hypothesis.given(make=specs(), options=rules())
def test_round_trip(make, options):
  spec, options = make(), cut_flat(**options)
  layout = chunking.layout(spec, options)
  size = spec.num_weights
  weights = np.arange(1, 2 * size + 1, dtype=np.float32).reshape(2, size)
  values = chunking.gather(layout, weights)
  assert values.dtype == np.float32
  assert values.shape == (2, *layout.index.shape)
  assert chunking.num_chunks(spec, options) == len(layout.index)
  # Real slots hold weights and padded ones zeros, at the end of a chunk.
  np.testing.assert_array_equal(values != 0, [layout.mask] * 2)
  assert (np.diff(layout.mask.astype(int), axis=1) <= 0).all()
  assert layout.mask[:, 0].all()
  # Every weight is there, in a slot that names it.
  index = layout.index[layout.mask]
  np.testing.assert_array_equal(values[:, layout.mask], weights[:, index])
  seen = set(index.tolist())
  lost = set(range(size)) - seen
  if options.bias_rule != "drop" or options.linear_rule == "neuron":
    assert not lost
  else:
    biases = {"linear_bias", "conv_bias", "attention_bias"}
    assert lost == {
      start + i
      for t, start in zip(spec.tensors, spec.offsets, strict=True)
      for i in range(t.size)
      if t.kind in biases
    }


@hypothesis.settings(deadline=None, derandomize=True, max_examples=80)
@hypothesis.given(make=specs(), options=rules())
def test_indices_agree_with_the_spec(make, options):
  spec, options = make(), cut_flat(**options)
  layout = chunking.layout(spec, options)
  assert (np.diff(layout.layer) >= 0).all()
  assert sorted(set(layout.layer)) == list(range(len(layout.layer_kind)))
  for layer in set(layout.layer):
    chunks = layout.chunk[layout.layer == layer]
    np.testing.assert_array_equal(chunks, np.arange(len(chunks)))
  for chunk, slot in np.argwhere(layout.mask):
    tensor = spec.tensors[layout.tensor[chunk, slot]]
    place = layout.index[chunk, slot] - spec.offsets[layout.tensor[chunk, slot]]
    expected = np.zeros(4, int)
    expected[: len(tensor.shape)] = np.unravel_index(place, tensor.shape)
    np.testing.assert_array_equal(layout.places[chunk, slot], expected)
  for name in ("index", "role", "places", "io", "other", "tensor"):
    assert not getattr(layout, name)[~layout.mask].any(), name
  assert layout.other.max() <= layout.num_neurons
  assert layout.owner.max() <= layout.num_neurons


@pytest.mark.parametrize("width", [1, 6, 7, 8, 13, 14, 15])
def test_sizes_around_multiples_of_the_chunk_size(width):
  spec = dense((width, 1))
  layout = chunking.layout(spec, cut_flat(chunk_size=7))
  counts = collections.Counter(layout.layer.tolist())
  assert counts == {0: -(-width // 7), 1: 1}
  weights = np.random.default_rng(0).normal(size=width + 1)
  values = chunking.gather(layout, weights)
  np.testing.assert_array_equal(values[layout.mask], weights)


# Indices by hand. Dense 2-3-2: w0 [3, 2] in 0-5, b0 6-8, w1 [2, 3] 9-14, b1
# 15-16. Neurons: hidden 1, 2, 3; outputs 4, 5.


def test_rows_by_hand():
  layout = chunking.layout(
    dense((2, 3, 2)), cut_flat(chunk_size=4, linear_rule="row")
  )
  assert layout.index.tolist() == [
    [0, 1, 0, 0],
    [2, 3, 0, 0],
    [4, 5, 0, 0],
    [6, 7, 8, 0],
    [9, 10, 11, 0],
    [12, 13, 14, 0],
    [15, 16, 0, 0],
  ]
  assert layout.owner.tolist() == [1, 2, 3, 0, 4, 5, 0]
  assert layout.other.tolist() == [
    [0, 0, 0, 0],
    [0, 0, 0, 0],
    [0, 0, 0, 0],
    [1, 2, 3, 0],
    [1, 2, 3, 0],
    [1, 2, 3, 0],
    [4, 5, 0, 0],
  ]
  assert layout.io[..., 0].tolist() == [[1, 2, 0, 0]] * 3 + [[0] * 4] * 4
  assert layout.io[4:, :, 1].tolist() == [
    [1, 1, 1, 0],
    [2, 2, 2, 0],
    [1, 2, 0, 0],
  ]
  assert not layout.io[:4, :, 1].any()
  assert layout.chunk.tolist() == [0, 1, 2, 0, 0, 1, 0]
  assert layout.layer.tolist() == [0, 0, 0, 1, 2, 2, 3]
  assert not layout.role.any()
  assert layout.num_neurons == 5
  assert layout.places[1, 1].tolist() == [1, 1, 0, 0]
  assert layout.places[3, 2].tolist() == [2, 0, 0, 0]


def test_columns_by_hand():
  layout = chunking.layout(
    dense((2, 3, 2)), cut_flat(chunk_size=2, linear_rule="col")
  )
  chosen = layout.layer == 2
  assert layout.index[chosen].tolist() == [[9, 12], [10, 13], [11, 14]]
  assert layout.owner[chosen].tolist() == [1, 2, 3]
  assert layout.other[chosen].tolist() == [[4, 5]] * 3
  assert layout.owner[layout.layer == 0].tolist() == [0] * 4  # Inputs.
  assert layout.other[layout.layer == 0].tolist() == [[1, 2], [3, 0]] * 2


def test_flat_by_hand():
  layout = chunking.layout(dense((2, 3, 2)), cut_flat(chunk_size=3))
  chosen = layout.layer == 0
  assert layout.index[chosen].tolist() == [[0, 1, 2], [3, 4, 5]]
  assert layout.owner[chosen].tolist() == [0, 0]  # Both straddle neurons.
  assert layout.owner[layout.layer == 2].tolist() == [4, 5]
  assert layout.other[layout.layer == 2].tolist() == [[1, 2, 3]] * 2


def test_appended_biases_by_hand():
  options = cut_flat(chunk_size=4, linear_rule="row", bias_rule="append")
  layout = chunking.layout(dense((2, 3, 2)), options)
  assert layout.index[:, :3].tolist()[:3] == [[0, 1, 6], [2, 3, 7], [4, 5, 8]]
  assert layout.index[3:].tolist() == [[9, 10, 11, 15], [12, 13, 14, 16]]
  assert layout.role[3].tolist() == [0, 0, 0, ROLE["bias"]]
  assert layout.owner.tolist() == [1, 2, 3, 4, 5]
  assert layout.other[4].tolist() == [1, 2, 3, 0]
  assert layout.io[4].tolist() == [[0, 2]] * 4
  assert [KINDS[k] for k in layout.layer_kind] == ["linear_weight"] * 2
  assert layout.tensor[3].tolist() == [2, 2, 2, 3]


def test_neurons_by_hand():
  layout = chunking.layout(
    dense((2, 3, 2)), ChunkOptions(chunk_size=5, **NEURON)
  )
  first, out = [1, 1, 2, 4, 4], [1, 1, 1, 2, 0]
  assert layout.index.tolist() == [
    [0, 1, 6, 9, 12],
    [2, 3, 7, 10, 13],
    [4, 5, 8, 11, 14],
    [9, 10, 11, 15, 0],
    [12, 13, 14, 16, 0],
  ]
  assert layout.role.tolist() == [first] * 3 + [out] * 2
  assert layout.owner.tolist() == [1, 2, 3, 4, 5]
  assert layout.other.tolist() == (
    [[0, 0, 0, 4, 5]] * 3 + [[1, 2, 3, 0, 0]] * 2
  )
  assert layout.io[0].tolist() == [[1, 0], [2, 0], [0, 0], [0, 1], [0, 2]]
  assert layout.io[4].tolist() == [[0, 2]] * 4 + [[0, 0]]
  assert layout.tensor[0].tolist() == [0, 0, 1, 2, 2]


def test_large_neurons_take_several_chunks():
  spec = dense((2, 3, 2))
  layout = chunking.layout(spec, ChunkOptions(chunk_size=2, **NEURON))
  assert (
    layout.owner.tolist() == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 2 + [5] * 2
  )
  assert layout.chunk.tolist() == [*range(9), *range(4)]
  assert layout.index[:3].tolist() == [[0, 1], [6, 9], [12, 0]]


def test_convolution_and_flattened_image_by_hand():
  """Conv 1 -> 2, kernel 1x2 places, then dense 2 from 2 channels x 3 spots."""
  spec = conv_net((1, 2, 2), 2, kernel=2, spots=3, norm=True)
  layout = chunking.layout(spec, ChunkOptions(chunk_size=64, **NEURON))
  assert layout.owner.tolist() == [1, 2, 3, 4, 5, 6]
  # The second channel of the first convolution.
  real = layout.mask[1]
  assert elements(layout, (1, real), spec) == (
    [("conv0", i) for i in range(4, 8)]
    + [("bias0", 1)]
    + [(f"norm_{n}0", 1) for n in ("scale", "shift", "mean", "var")]
    + [("conv1", i) for i in (4, 5, 6, 7, 12, 13, 14, 15)]
  )
  names = [chunking.ROLES[r] for r in layout.role[1][real]]
  assert names == ["in"] * 4 + ["bias"] + ["norm"] * 4 + ["out"] * 8
  assert layout.other[1][real].tolist() == [0] * 9 + [3] * 4 + [4] * 4
  assert layout.io[1][:4, 0].tolist() == [1] * 4
  # The second channel of the last: all its spots, of both outputs.
  out = layout.role[3] == ROLE["out"]
  assert elements(layout, (3, out), spec) == [
    ("head", i) for i in (3, 4, 5, 9, 10, 11)
  ]
  assert layout.other[3][out].tolist() == [5] * 3 + [6] * 3
  # An output reads the channel of every spot.
  assert layout.other[4][layout.mask[4]].tolist() == [3] * 3 + [4] * 3 + [0]
  # Kernels lie between two neurons.
  kernels = chunking.layout(spec, cut_flat(chunk_size=4))
  chosen = kernels.tensor[:, 0] == spec.index("conv1")
  assert kernels.owner[chosen].tolist() == [3, 3, 4, 4]
  assert kernels.other[chosen, 0].tolist() == [1, 2, 1, 2]
  assert kernels.places[chosen][2].tolist() == [
    [1, 0, y, x] for y in (0, 1) for x in (0, 1)
  ]


def test_flattened_inputs_count_one_by_one():
  rows = plain_axis(2)
  image = (Factor(3), Factor(4))
  spec = NetworkSpec(
    "dense", (TensorSpec("w", "linear_weight", (2, 12), 0, (rows, image)),)
  )
  layout = chunking.layout(spec, cut_flat(chunk_size=12))
  assert layout.io[..., 0].tolist() == [list(range(1, 13))] * 2
  assert layout.io[..., 1].tolist() == [[1] * 12, [2] * 12]


# Attention, residual streams, tables, norms.


def test_attention_under_the_neuron_rule():
  spec = transformer()  # Neurons: q 1-6, k 7-12, v 13-18, o 19-22, head 23-24.
  layout = chunking.layout(spec, ChunkOptions(chunk_size=64, **NEURON))
  last = {
    name: np.flatnonzero(layout.layer_tensor == spec.index(name))[0]
    for name in ("q", "v", "o", "head")
  }
  row = {n: np.flatnonzero(layout.layer == layer) for n, layer in last.items()}
  assert len(row["q"]) == 6
  # Nothing reads what q and k make; v feeds o; o feeds the head.
  assert not (layout.role[row["q"]] == ROLE["out"]).any()
  unit = row["v"][4]  # Head 1, unit 1.
  out = layout.role[unit] == ROLE["out"]
  assert elements(layout, (unit, out), spec) == [
    ("o", r * 6 + 4) for r in range(4)
  ]
  assert layout.owner[unit] == 17
  assert layout.other[unit][out].tolist() == [19, 20, 21, 22]
  first = row["o"][0]
  assert layout.other[first][layout.mask[first]].tolist() == (
    [13, 14, 15, 16, 17, 18] + [0] + [19 + 4, 19 + 5]
  )
  # No weight makes what q reads: the stream has numbers of its own, which the
  # tables and the norm in front share.
  query = row["q"][0]
  assert layout.other[query][:4].tolist() == [25, 26, 27, 28]
  assert layout.num_neurons == 28
  for name in ("table", "where"):
    chosen = layout.tensor[:, 0] == spec.index(name)
    assert layout.other[chosen][0, :4].tolist() == [25, 26, 27, 28]
  for name in ("class", "ln.scale"):
    chosen = layout.tensor[:, 0] == spec.index(name)
    chosen &= layout.mask[:, 0] & (layout.owner == 0)
    assert layout.other[chosen][0, :4].tolist() == [25, 26, 27, 28]
  head = row["head"][0]
  assert layout.other[head][:4].tolist() == [19, 20, 21, 22]


def test_attention_kinds_and_heads():
  spec = transformer()
  attention = ("attention_q", "attention_k", "attention_v", "attention_o")

  def kinds(rule):
    options = cut_flat(attention_rule=rule)
    layout = chunking.layout(spec, options)
    return [KINDS[k] for k in layout.layer_kind if KINDS[k] in attention]

  assert kinds("typed") == list(attention)
  assert kinds("per_head") == list(attention)
  assert kinds("one_type") == ["attention_q"] * 4

  def chunks(name, **options):
    options = cut_flat(chunk_size=12, attention_rule="per_head", **options)
    layout = chunking.layout(spec, options)
    place = spec.index(name)
    chosen = layout.layer_tensor[layout.layer] == place
    return [
      row[keep].tolist()
      for row, keep in zip(
        layout.index[chosen] - spec.offsets[place],
        layout.mask[chosen],
        strict=True,
      )
    ]

  # q [2 * 3, 4]: the rows of each head. o [4, 2 * 3]: the columns of each.
  assert chunks("q") == [list(range(12)), list(range(12, 24))]
  assert chunks("o") == [
    [6 * r + 3 * h + u for r in range(4) for u in range(3)] for h in range(2)
  ]
  assert chunks("o", linear_rule="row")[:2] == [[0, 1, 2], [6, 7, 8]]
  assert chunks("q", linear_rule="col")[0] == [0, 4, 8]
  assert len(chunks("q", linear_rule="col")) == 8


def test_residual_streams_meet_the_nearest():
  spec = residual()  # stem 1-3, up1 4-5, down1 6-8, up2 9-10, down2 11-13.
  layout = chunking.layout(spec, ChunkOptions(chunk_size=32, **NEURON))
  named = [t.name for t in spec.tensors]

  def outgoing(name):
    chosen = layout.layer_tensor[layout.layer] == named.index(name)
    out = (layout.role == ROLE["out"]) & chosen[:, None]
    return {named[t] for t in layout.tensor[out]}

  assert outgoing("stem") == {"up1"}
  assert outgoing("down1") == {"up2"}
  assert outgoing("down2") == {"head"}
  assert outgoing("head") == set()

  def read(name):
    chosen = layout.layer_tensor[layout.layer] == named.index(name)
    chosen = (layout.role == ROLE["in"]) & chosen[:, None]
    return sorted(set(layout.other[chosen].tolist()))

  assert read("stem") == [0]
  assert read("up1") == [1, 2, 3]
  assert read("down1") == [4, 5]
  assert read("up2") == [6, 7, 8]
  assert read("head") == [11, 12, 13]
  times = np.bincount(layout.index[layout.mask])
  assert times.max() == 2


def test_embedding_rows():
  spec = transformer()
  count = lambda rule, kind: kinds_of(
    chunking.layout(spec, cut_flat(chunk_size=8, embedding_rule=rule))
  ).count(kind)
  assert count("flat", "embedding") == 3  # 20 weights.
  assert count("row", "embedding") == 5
  assert count("flat", "position") == 2  # 12 weights.
  assert count("row", "position") == 3
  assert count("row", "class_token") == 1


def test_norm_rules():
  spec = conv_net((1, 2, 2), 2, norm=True)
  kinds = lambda spec, rule: [
    KINDS[k]
    for k in chunking.layout(spec, cut_flat(norm_rule=rule)).layer_kind
    if KINDS[k].startswith("norm")
  ]
  four = ["norm_scale", "norm_shift", "norm_mean", "norm_var"]
  assert kinds(spec, "own") == four * 2
  assert kinds(spec, "concat") == ["norm_scale"] * 2
  layout = chunking.layout(spec, cut_flat(norm_rule="concat"))
  chosen = layout.layer_kind[layout.layer] == KINDS.index("norm_scale")
  first = np.flatnonzero(chosen)[0]
  assert layout.index[first, :8].tolist() == [*range(20, 28)]
  assert layout.other[first, :8].tolist() == [1, 2] * 4
  with pytest.raises(ValueError, match="norm_mean0.*folding.fold_norms"):
    chunking.layout(spec, cut_flat(norm_rule="fold"))
  with pytest.raises(ValueError, match=r"folding\.fold_norms"):
    chunking.num_chunks(spec, ChunkOptions(norm_rule="fold", **NEURON))
  assert kinds(transformer(), "fold") == ["norm_scale", "norm_shift"]
  assert kinds(transformer(), "concat") == ["norm_scale"]


def test_two_norm_layers_in_a_row_are_not_merged():
  axis = plain_axis(2, "h")
  vectors = [
    TensorSpec(f"{kind}{i}", kind, (2,), 0, (axis,))
    for i in range(2)
    for kind in ("norm_scale", "norm_shift")
  ]
  spec = NetworkSpec("norms", tuple(vectors))
  layout = chunking.layout(spec, cut_flat(norm_rule="concat"))
  assert layout.layer_tensor.tolist() == [0, 2]


def test_only_the_ends_of_the_network_are_inputs_and_outputs():
  """Axes without a group in the middle are neither, and meet nobody."""
  spec = NetworkSpec(
    "dense",
    (
      linear("first", 0, plain_axis(2), plain_axis(3)),
      linear("last", 1, plain_axis(4), plain_axis(2)),
    ),
  )
  layout = chunking.layout(spec, ChunkOptions(chunk_size=3, **NEURON))
  assert layout.io[:2].tolist() == [[[1, 0], [2, 0], [3, 0]]] * 2
  assert layout.io[2:, :2].tolist() == [[[0, i]] * 2 for i in (1, 2, 3, 4)]
  assert not (layout.role == ROLE["out"]).any()
  assert not layout.other.any()


def test_two_producers_of_one_stream():
  """Both own their chunks; the reader points to the nearest."""
  stream = plain_axis(2, "s")
  spec = NetworkSpec(
    "dense",
    (
      linear("far", 0, stream, plain_axis(1)),
      linear("near", 1, stream, plain_axis(1)),
      linear("twin", 1, stream, plain_axis(1)),
      linear("head", 2, plain_axis(1), stream),
    ),
  )
  layout = chunking.layout(spec, ChunkOptions(chunk_size=4, **NEURON))
  assert layout.index[:, 1].tolist() == [6, 7] * 3 + [7]
  assert layout.owner.tolist() == [1, 2, 3, 4, 5, 6, 7]
  assert layout.other[-1].tolist() == [3, 4, 0, 0]
  plain = chunking.layout(spec, cut_flat(chunk_size=1, linear_rule="col"))
  assert plain.owner[-2:].tolist() == [3, 4]


def test_norm_behind_a_weight_of_its_level():
  stream = plain_axis(2, "s")
  spec = NetworkSpec(
    "dense",
    (
      linear("w", 0, stream, plain_axis(1)),
      TensorSpec("scale", "norm_scale", (2,), 0, (stream,)),
    ),
  )
  layout = chunking.layout(spec, cut_flat(chunk_size=2))
  assert layout.other.tolist() == [[0, 0], [1, 2]]


def test_axes_of_several_factors_meet():
  """Equal axes place by place; others by member, whatever the order."""
  rows = (Factor(2, "a"), Factor(3, "b"))
  turned = (Factor(3, "b"), Factor(2, "a"))
  grid = (Factor(2, "a"), Factor(2))
  spec = NetworkSpec(
    "dense",
    (
      linear("one", 0, rows, plain_axis(1)),  # 1-6
      linear("two", 1, grid, turned),  # 7-10
      linear("three", 2, grid, grid),  # 11-14
      linear("four", 3, plain_axis(1), plain_axis(2, "a")),
    ),
  )
  layout = chunking.layout(spec, cut_flat(chunk_size=24, linear_rule="row"))
  assert layout.other[6, :6].tolist() == [1, 4, 2, 5, 3, 6]
  assert layout.other[10, :4].tolist() == [7, 8, 9, 10]
  assert layout.other[14, :2].tolist() == [11, 13]  # The first of each member.
  layout = chunking.layout(spec, ChunkOptions(chunk_size=24, **NEURON))
  out = layout.role == ROLE["out"]
  assert elements(layout, (1, out[1]), spec) == [
    ("two", 6 * r + 2) for r in range(4)
  ]
  assert elements(layout, (8, out[8]), spec) == [
    ("three", 4 * r + 2) for r in range(4)
  ]
  assert elements(layout, (11, out[11]), spec) == [("four", 0)]
  assert elements(layout, (12, out[12]), spec) == [("four", 1)]


# Symmetry.


def as_sets(layout, values):
  """Chunks as an unordered collection of (layer, weights with their role)."""
  return sorted(
    (layer, sorted(zip(role[keep].tolist(), row[keep].tolist(), strict=True)))
    for layer, role, row, keep in zip(
      layout.layer.tolist(), layout.role, values, layout.mask, strict=True
    )
  )


def permuted(spec, weights, moves):
  """Applies `moves`: tensor name -> (axis, permutation of its places)."""
  tensors = dict(spec.unflatten(weights))
  for name, axis, order in moves:
    tensors[name] = np.take(tensors[name], order, axis)
  return spec.flatten(tensors, np)


HIDDEN = np.array([2, 0, 3, 1])
SPOTS = (HIDDEN[:, None] * 2 + np.arange(2)).reshape(-1)
# Heads swapped, and the units of each head turned in a way of its own.
UNITS = np.array([5, 3, 4, 1, 2, 0])


@pytest.mark.parametrize(
  ("spec", "coupled"),
  [
    (
      dense((2, 4, 3)),
      [("w0", 0, HIDDEN), ("b0", 0, HIDDEN), ("w1", 1, HIDDEN)],
    ),
    (
      conv_net((1, 4, 4), 2, kernel=2, spots=2, norm=True),
      [
        (f"{name}1", 0, HIDDEN)
        for name in ("conv", "bias", "norm_scale", "norm_shift")
        + ("norm_mean", "norm_var")
      ]
      + [("head", 1, SPOTS)],
    ),
    (
      transformer(),
      [("v", 0, UNITS), ("v.b", 0, UNITS), ("o", 1, UNITS)],
    ),
  ],
  ids=["dense", "conv", "attention"],
)
def test_neuron_permutations_permute_the_chunks(spec, coupled):
  layout = chunking.layout(spec, ChunkOptions(chunk_size=64, **NEURON))
  weights = np.random.default_rng(0).normal(size=spec.num_weights)
  sets = lambda w: as_sets(layout, chunking.gather(layout, w))
  moved = permuted(spec, weights, coupled)
  assert not np.array_equal(moved, weights)
  assert sets(moved) == sets(weights)
  # Control: the same rows with other columns, or with no columns at all.
  name, axis, order = coupled[-1]
  uncoupled = [*coupled[:-1], (name, axis, np.roll(order, 1))]
  assert sets(permuted(spec, weights, uncoupled)) != sets(weights)
  assert sets(permuted(spec, weights, coupled[:-1])) != sets(weights)


def test_index_free_chunks_do_not_see_the_pairing():
  """What the plain rules miss: an uncoupled permutation, same chunks."""
  spec = dense((2, 4, 3))
  options = cut_flat(chunk_size=4, linear_rule="row")
  layout = chunking.layout(spec, options)
  weights = np.random.default_rng(0).normal(size=spec.num_weights)
  moves = [("w0", 0, HIDDEN), ("w1", 1, np.roll(HIDDEN, 1))]
  moved = permuted(spec, weights, moves)
  assert as_sets(layout, chunking.gather(layout, weights)) == as_sets(
    layout, chunking.gather(layout, moved)
  )


def test_two_functions_with_the_same_chunks():
  """The reviewers' pair: one set of chunks, told apart by `chunk` alone."""
  rows = plain_axis(1)
  spec = NetworkSpec(
    "dense",
    (TensorSpec("w", "linear_weight", (1, 6), 0, (rows, plain_axis(6))),),
  )
  layout = chunking.layout(spec, cut_flat(chunk_size=3))
  one, two = (
    chunking.gather(layout, np.array(w, np.float32))
    for w in ([1, 2, 3, 4, 5, 6], [4, 5, 6, 1, 2, 3])
  )
  assert as_sets(layout, one) == as_sets(layout, two)
  numbered = lambda values: list(
    zip(layout.chunk.tolist(), values.tolist(), strict=True)
  )
  assert sorted(numbered(one)) != sorted(numbered(two))
  fine = chunking.layout(spec, cut_flat(chunk_size=2))  # Control.
  assert as_sets(fine, chunking.gather(fine, np.arange(6.0))) != as_sets(
    fine, chunking.gather(fine, np.array([3.0, 4, 5, 0, 1, 2]))
  )


# Gathering.


def test_gather_on_jax_arrays():
  spec = dense((2, 3, 2))
  layout = chunking.layout(spec, ChunkOptions(chunk_size=4, **NEURON))
  weights = np.random.default_rng(0).normal(size=(2, 3, 17)).astype(np.float32)
  with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
    values = jax.jit(lambda w: chunking.gather(layout, w))(weights)
    single = jax.vmap(jax.vmap(lambda w: chunking.gather(layout, w)))(weights)
  assert isinstance(values, jax.Array)
  np.testing.assert_array_equal(values, chunking.gather(layout, weights))
  np.testing.assert_array_equal(values, single)


def test_gather_is_differentiable():
  spec = dense((2, 3, 2))
  layout = chunking.layout(spec, ChunkOptions(chunk_size=4, **NEURON))
  gradient = jax.grad(lambda w: chunking.gather(layout, w).sum())(jnp.ones(17))
  # Each weight counts as often as it stands in a chunk; padding adds nothing.
  assert gradient.tolist() == [1] * 9 + [2] * 6 + [1] * 2


def test_padding_never_shows_a_weight():
  layout = chunking.layout(dense((2, 3, 2)), cut_flat(chunk_size=4))
  weights = np.zeros(17)
  weights[0] = np.nan  # The place that padded slots point to.
  assert np.isnan(chunking.gather(layout, weights)).sum() == 1


def test_lengths_are_checked():
  layout = chunking.layout(dense((2, 3, 2)), cut_flat(chunk_size=4))
  with pytest.raises(ValueError, match="network of 17 weights, got 18"):
    chunking.gather(layout, np.zeros(18))


def test_layouts_are_cached_and_read_only():
  options = cut_flat(chunk_size=4)
  layout = chunking.layout(dense((2, 3, 2)), options)
  assert chunking.layout(dense((2, 3, 2)), options) is layout
  with pytest.raises(ValueError, match="read-only"):
    layout.index[0, 0] = 1


# Refusals.


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"chunk_size": -1}, "chunk_size is -1; must be at least 0"),
    ({"linear_rule": "kernel"}, "linear_rule is 'kernel'; choose one of"),
    ({"conv_rule": "row"}, "conv_rule is 'row'; choose one of"),
    ({"bias_rule": "none"}, "bias_rule is 'none'; choose one of"),
    ({"norm_rule": "drop"}, "norm_rule is 'drop'; choose one of"),
    ({"embedding_rule": "col"}, "embedding_rule is 'col'; choose one of"),
    ({"attention_rule": "heads"}, "attention_rule is 'heads'; choose one of"),
    ({"bias_rule": "append"}, "'append' with linear_rule='flat'"),
    (
      {"bias_rule": "append", "linear_rule": "row"}
      | {"attention_rule": "per_head"},
      "append.*per_head",
    ),
    (NEURON | {"attention_rule": "per_head"}, "per_head.*neuron"),
  ],
)
def test_options_refuse(options, message):
  with pytest.raises(ValueError, match=message):
    cut_flat(**options)


def test_misfits_are_refused():
  spec = conv_net((1, 2, 2), 2)
  options = cut_flat(bias_rule="append", linear_rule="row")
  with pytest.raises(ValueError, match="'bias0'.*conv_rule='filter'"):
    chunking.layout(spec, options)
  tensors = list(dense((2, 3)).tensors)
  tensors[1] = TensorSpec(
    "b0", "linear_bias", (2,), 0, (plain_axis(2),), of="w0"
  )
  with pytest.raises(ValueError, match="'b0'.*'w0', which has 3 outputs"):
    chunking.layout(NetworkSpec("dense", tuple(tensors)), cut_flat())


def test_bias_rule_says_nothing_under_the_neuron_rule():
  spec = dense((2, 3, 2))
  plain = chunking.layout(spec, ChunkOptions(**NEURON))
  for rule in ("append", "drop"):
    layout = chunking.layout(spec, ChunkOptions(bias_rule=rule, **NEURON))
    np.testing.assert_array_equal(layout.index, plain.index)


def test_weight_kinds_are_all_cut_by_neuron():
  """Each weight tensor heads one pseudo-layer, and only those own chunks."""
  spec = transformer()
  layout = chunking.layout(spec, ChunkOptions(chunk_size=8, **NEURON))
  for layer, tensor in enumerate(layout.layer_tensor):
    own = layout.owner[layout.layer == layer]
    weight = spec.tensors[tensor].kind in WEIGHT_KINDS
    assert (own > 0).all() == weight


# Sizes, and what cutting does to the symmetry.


def test_a_size_from_the_networks():
  options, spec = ChunkOptions(), families.mlp((1, 32, 32, 1))
  assert chunking.resolved(options, [spec]).chunk_size == 34
  wide = families.mlp((3, 50, 7, 2))
  assert chunking.resolved(options, [spec, wide]).chunk_size == 50 + 1 + 2
  assert chunking.layout(wide, options).index.shape[1] == 53
  huge = families.mlp((4, 500, 3))
  assert chunking.resolved(options, [spec, huge]).chunk_size == 320
  chosen = ChunkOptions(chunk_size=5)
  assert chunking.resolved(chosen, [huge]) == chosen


def test_one_rule_does_not_ask_for_another():
  cnn = families.build("cnn", image_shape=(1, 8, 8), channels=(3, 4))
  dense_only = ChunkOptions(chunk_size=64, conv_rule="kernel")
  layout = chunking.layout(cnn, dense_only)
  kinds = [KINDS[k] for k in layout.layer_kind]
  assert kinds.count("conv_bias") == 2  # Of kernels apart.
  assert "linear_bias" not in kinds  # In its neuron's chunk.
  whole = chunking.layout(cnn, ChunkOptions(chunk_size=64))
  assert "conv_bias" not in [KINDS[k] for k in whole.layer_kind]


@pytest.mark.parametrize("name", families.tiny_specs())
def test_the_default_keeps_the_symmetry_of_every_family(name):
  spec = families.tiny_specs()[name]
  options = chunking.resolved(ChunkOptions(), [spec])
  assert chunking.keeps_symmetry(spec, options)
  assert not chunking.keeps_symmetry(
    spec, dataclasses.replace(options, chunk_size=3)
  )


@pytest.mark.parametrize(
  ("widths", "options", "kept"),
  [
    ((1, 32, 32, 1), ChunkOptions.published(32), True),  # A row is a chunk.
    ((1, 32, 32, 1), ChunkOptions.published(16), False),
    ((1, 30, 30, 1), ChunkOptions.published(32), False),
    # Inputs never move: where they are cut, nothing is lost.
    ((700, 20, 3), ChunkOptions(), True),
    ((700, 20, 3), ChunkOptions(chunk_size=15), False),
    ((4, 400, 9, 3), ChunkOptions(), False),
  ],
)
def test_which_cuts_keep_the_symmetry(widths, options, kept):
  spec = families.mlp(widths)
  options = chunking.resolved(options, [spec])
  assert chunking.keeps_symmetry(spec, options) == kept
