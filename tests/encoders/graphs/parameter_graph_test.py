"""Parameter graphs: the authors' counts and edges, and what is refused."""

import dataclasses

import numpy as np
import pytest

from sne_jax.encoders.graphs import parameter_graph
from sne_jax.networks import families
from sne_jax.networks import spec as spec_lib
from sne_jax.networks.families import parts
from tests.encoders.graphs import message_passing_test as graphs
from tests.networks.inference import named_test, plain_networks

WIDE_PARK = families.cnn(
  (1, 6, 6), (3, 2, 5), 3, paddings=1, skips=(-1, -1, 0), num_classes=2
)


def axis(size, group=None):
  return spec_lib.plain_axis(size, group)


def network(tensors, skips=()):
  return spec_lib.NetworkSpec("unknown", tuple(tensors), skips=skips)


def conv(name, out, into, kernel, level, *, bias=False, branch=0, norm=True):
  made = parts.convolution(
    name, out, into, kernel, level, bias=bias, branch=branch
  )
  return made + (parts.batch_norm(made[0])[:2] if norm else [])


def block(name, into, width, level):
  """A basic block from a level on; its tensors and its skip."""
  inside, out = axis(width, f"{name}.in"), axis(width, f"{name}.out")
  is_plain = parts.places(into) == width
  out = into if is_plain else out
  made = conv(f"{name}.conv1", inside, into, 3, level)
  if not is_plain:
    made += conv(f"{name}.shortcut", out, into, 1, level, branch=1)
  made += conv(f"{name}.conv2", out, inside, 3, level + 1)
  return made, out, (level - 1, level + 1)


def basic_block(into, width):
  tensors, _, skip = block("a", axis(into), width, 0)
  return network(tensors, (skip,))


def resnet():
  """The authors' default: a stem of 5 by 5, blocks of 32, and a dense layer."""
  stem = axis(16, "stem")
  tensors = conv("stem", stem, axis(3), 5, 0, bias=True)
  first, out, skip = block("a", stem, 32, 1)
  second, out, other = block("b", out, 32, 3)
  tensors += first + second + parts.linear("dense", axis(10), out, 5)
  return network(tensors, (skip, other))


def transformer(into, dim, heads, out, depth, patch):
  """A transformer without class token, positions and last norm."""
  whole = families.transformer(
    (into, patch, patch),
    *(patch, dim, depth, heads),
    hidden=4 * dim,
    num_classes=out,
  )
  left_out = ("class_token", "position", "norm.scale", "norm.shift")
  kept = [t for t in whole.tensors if t.name not in left_out]
  return network(kept, whole.skips)


def normed(into, hidden, out, *, bias, last_bias=True):
  """A dense layer, a layer norm, and a dense layer."""
  middle = axis(hidden, "middle")
  tensors = parts.linear("a", middle, axis(into), 0, bias=bias)
  tensors += parts.layer_norm("norm", middle, 1)
  return network(
    tensors + parts.linear("b", axis(out), middle, 2, bias=last_bias)
  )


def attention():
  """A dense layer, a layer norm and attention with its residual connection."""
  heads = spec_lib.Factor(1, "heads")
  inside = {
    name: (heads, spec_lib.Factor(1, name, per="heads"))
    for name in ("qk", "vo")
  }
  stream = axis(1, "stream")
  tensors = parts.linear("a", stream, axis(1), 0, bias=False)
  tensors += parts.layer_norm("norm", stream, 1)
  for branch, part in enumerate("qkv"):
    kinds = f"attention_{part}", "attention_bias"
    rows = inside["vo" if part == "v" else "qk"]
    tensors += parts.linear(part, rows, stream, 2, branch=branch, kinds=kinds)
  kinds = "attention_o", "linear_bias"
  tensors += parts.linear("o", stream, inside["vo"], 3, kinds=kinds)
  return network(tensors, ((0, 3),))


def line():
  """A convolution along one axis, with a batch norm, and a dense layer."""
  out = axis(3, "channels")
  axes = (out, axis(1), axis(2))
  kernel = spec_lib.TensorSpec("a.weight", "conv_weight", (3, 1, 2), 0, axes)
  tensors = [kernel, *parts.batch_norm(kernel)[:2]]
  return network(tensors + parts.linear("b", axis(2), out, 1))


def cnn():
  one, two, three = (axis(32, name) for name in "abc")
  tensors = conv("a", one, axis(3), 3, 0, bias=True)
  tensors += conv("b", two, one, 3, 1, bias=True)
  tensors += parts.linear("c", three, two, 2)
  return network(tensors + parts.linear("d", axis(10), three, 3))


SMALL_CNN = families.cnn((1, 28, 28), (16, 16, 16), 3, 2, num_classes=10)
COUNTED = {  # Nodes, parameters, edges and residual edges.
  "mlp": (families.mlp((2, 3, 2)), (9, 17, 17, 0)),
  "inr": (families.inr((2, 32, 32, 1)), (70, 1185, 1185, 0)),
  "small cnn": (SMALL_CNN, (63, 4970, 4970, 0)),
  "cnn": (cnn(), (117, 11658, 11658, 0)),
  "block": (basic_block(1, 1), (7, 22, 23, 1)),
  "wider block": (basic_block(1, 2), (13, 68, 70, 2)),
  "resnet": (resnet(), (203, 34666, 34730, 64)),
  "layer norm": (normed(2, 3, 1, bias=False), (9, 16, 16, 0)),
  "layer norm and biases": (normed(2, 3, 1, bias=True), (10, 19, 19, 0)),
  "line": (line(), (9, 20, 20, 0)),
  "attention": (attention(), (10, 11, 12, 1)),
  "tiny transformer": (transformer(1, 1, 1, 1, 1, 1), (22, 29, 31, 2)),
  "transformer": (
    transformer(3, 64, 2, 10, 2, 4),
    (995, 103754, 104010, 256),
  ),
}


@pytest.mark.parametrize("name", COUNTED)
def test_graphs_have_the_authors_counts(name):
  spec, wanted = COUNTED[name]
  g = parameter_graph.graph_of(spec, "published")
  residual = int((~g.is_weight).sum())
  counts = (len(g.layer), spec.num_weights, len(g.source), residual)
  assert counts == wanted


def test_a_norm_between_dense_layers_is_the_authors_graph():
  g = parameter_graph.graph_of(COUNTED["layer norm and biases"][0])
  source = [*(0, 1) * 3, *[5] * 3, *[6] * 3, *[7] * 3, 2, 3, 4, 9]
  target = [2, 2, 3, 3, 4, 4, *(2, 3, 4) * 3, *[8] * 4]
  assert (g.source.tolist(), g.target.tolist()) == (source, target)
  names = [parameter_graph.NODE_KINDS[kind] for kind in g.kind]
  gains = ["bias", "layer_gain", "layer_shift"]
  assert names == ["neuron"] * 5 + gains + ["neuron", "bias"]
  assert g.layer.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 2, 2]
  assert g.order.tolist() == [0, 1, -1, -1, -1, -1, -1, -1, 0, -1]
  kinds = np.repeat([0, 1, 7, 8, 0, 1], [6, 3, 3, 3, 3, 1])
  assert g.edge_kind.tolist() == kinds.tolist()
  assert (g.place == -1).all()


STREAMED = (graphs.RESNET, graphs.VIT, *graphs.LANGUAGE)
LAST = families.cnn(
  (1, 5, 5),
  (3,),
  2,
  num_classes=2,
  head="flatten",
  flatten_order="channels_last",
)


@pytest.mark.parametrize(
  "spec",
  [graphs.SPEC, graphs.FLAT, LAST, WIDE_PARK, *STREAMED, line(), resnet()],
)
@pytest.mark.parametrize("attention", ["exact", "published"])
def test_a_network_is_read_from_its_graph(spec, attention):
  """Bit for bit, in its order; running statistics are no edges."""
  g = parameter_graph.graph_of(spec, attention)
  weights = np.random.default_rng(0).standard_normal(spec.num_weights)
  value = weights[g.index[g.is_weight]]
  apart = ("norm_mean", "norm_var")
  read = np.concatenate(
    [
      vector.ravel()
      for t, vector in zip(
        spec.tensors, spec.unflatten(weights).values(), strict=True
      )
      if t.kind not in apart
    ]
  )
  np.testing.assert_array_equal(value, read)
  ends = np.concatenate([g.source, g.target])
  assert set(ends.tolist()) == set(range(len(g.layer)))  # None is alone.


def test_edges_of_kernels_and_images_know_their_places():
  out = axis(2, "channels")
  axes = (out, axis(1), axis(1), axis(5))
  wide = spec_lib.TensorSpec("a.weight", "conv_weight", (2, 1, 1, 5), 0, axes)
  tensors = parts.linear("b", axis(2), (*out, *axis(6)), 1, bias=False)
  g = parameter_graph.graph_of(network([wide, *tensors]))
  places = [[0, column, -1] for column in range(5)]
  assert g.place[:10].tolist() == places * 2
  # Six places are no square: they are numbered.
  assert g.place[10:].tolist() == [[n, -1, -1] for n in range(6)] * 4

  edges = {}
  for spec in (graphs.FLAT, LAST):
    g = parameter_graph.graph_of(spec)
    dense = g.edge_layer == 1
    ends = (g.target, g.source, *g.place.T)
    rows = np.stack(ends, axis=1)[dense & (g.edge_kind == 0)]
    edges[spec] = rows[np.lexsort(rows.T)]
    assert (rows[:, 2:4].min(0) == 0).all() and (rows[:, 4] == -1).all()
  np.testing.assert_array_equal(edges[graphs.FLAT], edges[LAST])
  first, last = (_places(spec)[15:, :2].tolist() for spec in edges)
  # The second channel comes after sixteen places, or at once.
  assert first[:5] == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0]]
  assert last[:6] == [[0, 0]] * 3 + [[0, 1]] * 3


def _places(spec):
  return parameter_graph.graph_of(spec).place


def test_heads_are_marked_and_tie_queries_keys_and_values():
  """Ours; in the authors' graph all three lead to the same neurons."""
  spec = transformer(1, 4, 2, 1, 1, 1)
  exact, published = (
    parameter_graph.graph_of(spec, a) for a in ("exact", "published")
  )
  neurons = lambda g: int((g.kind == 12).sum())
  assert (neurons(published), neurons(exact)) == (8, 12)
  joined = ~exact.is_weight & (exact.place[:, 0] == 0)
  joins = np.stack([exact.source, exact.target], axis=1)[joined]
  assert len(joins) == 2 * 2 * 2
  first, other = (set(map(tuple, part.tolist())) for part in np.split(joins, 2))
  ends = [{end for pair in part for end in pair} for part in (first, other)]
  assert len(ends[0]) == len(ends[1]) == 4 and not ends[0] & ends[1]
  marked = [
    exact.place[exact.is_weight & (exact.place[:, 0] == n)] for n in (1, 2)
  ]
  assert [len(part) for part in marked] == [16, 16]
  assert (published.place[:, 0] <= 0).all()


def test_channels_that_both_layers_have_are_added():
  g = parameter_graph.graph_of(WIDE_PARK)
  assert int((~g.is_weight).sum()) == 3
  assert (g.order >= 0).sum() == 1 + 2  # Hidden channels have no order.


def grouped(into):
  """A convolution of each channel alone, behind one of `into` channels."""
  out = axis(into, "a")
  tensors = parts.convolution("a", out, axis(1), 3, 0)
  tensors += parts.convolution("b", out, axis(1), 3, 1)
  return network(tensors + parts.linear("c", axis(2), out, 2))


def other():
  spec = families.mlp((2, 3, 2))
  first = dataclasses.replace(spec.tensors[1], kind="other", of=None)
  return network([spec.tensors[0], first, *spec.tensors[2:]])


def beside():
  """A dense layer that reads two layers of unlike neurons."""
  tensors = parts.linear("a", axis(3, "a"), axis(2), 0)
  tensors += parts.linear("b", axis(4, "b"), axis(2), 0)
  return network(tensors + parts.linear("c", axis(2), axis(7), 1))


def strange_skip():
  return network(families.mlp((2, 3, 3, 2)).tensors, ((0, 1),))


@pytest.mark.parametrize(
  ("spec", "reason"),
  [
    (grouped(3), "b.weight reads 1 neurons"),
    (named_test.mobile_shapes(), "reads 1 neurons"),
    (other(), "layer0.bias is of no layer"),
    (beside(), "c.weight reads 7 neurons"),
    (strange_skip(), "residual connection from level 0 to level 1"),
  ],
  ids=["grouped", "depthwise", "other", "beside", "skip"],
)
def test_what_graphs_do_not_describe_is_refused(spec, reason):
  if isinstance(spec, dict):
    spec = plain_networks.infer(spec, "torch").spec
  with pytest.raises(ValueError, match=f"^gmn cannot read .*{reason}") as error:
    parameter_graph.graph_of(spec)
  assert "encoders that read it: sne" in str(error.value)
  assert "\n" not in str(error.value)


def test_published_attention_needs_a_value_for_each_query():
  spec = graphs.VIT
  out = axis(6, "values")
  tensors = [
    dataclasses.replace(t, shape=(6, *t.shape[1:]), axes=(out, *t.axes[1:]))
    if ".v." in t.name
    else t
    for t in spec.tensors
  ]
  with pytest.raises(ValueError, match="block0.v.weight has 6 rows, not one"):
    parameter_graph.graph_of(network(tensors, spec.skips), "published")
