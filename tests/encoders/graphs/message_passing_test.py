"""Graphs of networks, and what reads them: the authors' numbers, goldens."""

import dataclasses
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders import segments, table
from sne_jax.encoders.graphs import (
  featuriser,
  graph,
  graph_batches,
  message_passing,
  transformer,
)
from sne_jax.networks import families, inference, scales, symmetry
from tests.encoders import parity_torch
from tests.networks.inference import conventions_test as named

FAST = {"xla_backend_optimization_level": "0"}
FIXTURE = np.load(
  pathlib.Path(__file__).parents[2] / "fixtures/neural_graph.npz"
)
SPEC = families.mlp((2, 4, 3, 1))
CONV = families.cnn((1, 6, 6), (2,), 3, num_classes=2)
FLAT = families.cnn((1, 5, 5), (3,), 2, num_classes=2, head="flatten")
RESNET = families.resnet((1, 4, 4), (2, 3), num_classes=2)
VIT = families.transformer(
  (1, 4, 4), 2, dim=4, depth=1, heads=2, hidden=3, num_classes=2
)


def found(shapes, *without):
  """The spec of tensors under their published names."""
  kept = {n: s for n, s in shapes.items() if not n.startswith(without)}
  override = inference.Override(heads=2)
  return inference.infer(kept, framework="torch", override=override).spec


GPT2 = found(named.gpt2_shapes(8, 2, 11, 6), "no")
BERT = found(named.bert_shapes(), "no")
HEADLESS = found(named.bert_shapes(), "classifier")
LANGUAGE = [GPT2, BERT, HEADLESS]


MEASURED = graph_batches.Measured(
  place_scales=(1.0,) * len(scales.PLACES),
  places=1,
  positions=(2, 2, 1),
  parts=1,
  outputs=1,
  delta=1.0,
)


def params(case):
  prefix = f"{case}/param/"
  return parity_torch.params_from_torch(
    {
      name.removeprefix(prefix): FIXTURE[name]
      for name in FIXTURE.files
      if name.startswith(prefix) and "avg_deg" not in name
    }
  )


def batch_of():
  """The two networks of the fixture, packed; weights are not scaled."""
  rows = []
  for b in range(2):
    for l in range(3):
      rows += [FIXTURE[f"in/w{l}"][b, ..., 0].T.ravel()]
      rows += [FIXTURE[f"in/b{l}"][b, ..., 0]]
  rows = np.concatenate(rows).reshape(2, -1)
  packer = graph_batches.packer((SPEC,), 1, dense=True)
  batch = packer.pack((0, 0), list(rows))
  table = batch.tables["weights"]
  table = table | {"scale": np.ones_like(table["scale"])}
  return batch._replace(tables=batch.tables | {"weights": table})


def run(function, *arrays):
  return jax.jit(function, compiler_options=FAST)(*arrays)


def test_the_graph_is_the_authors():
  batch = batch_of()
  nodes, edges = batch.tables["nodes"], batch.tables["edges"]
  value = np.where(nodes["has_value"], batch.weights[nodes["value"]], 0)
  np.testing.assert_array_equal(
    value.reshape(2, -1), FIXTURE["graph/node"][..., 0]
  )
  dense = np.zeros((2, 10, 10), np.float32)
  place = (edges["network"], edges["local_source"], edges["local_target"])
  dense[place] = batch.weights[edges["index"][:, 0]]
  np.testing.assert_array_equal(dense, FIXTURE["graph/edge"][..., 0])
  assert len(edges["source"]) == 2 * FIXTURE["graph/edge_index"].shape[1]


def test_the_featuriser_gives_the_authors_numbers():
  batch, found = batch_of(), params("feat_linear")
  for kind in ("bias", "weight"):
    found[f"proj_{kind}_1"] = found.pop(f"proj_{kind}_2")
  options = featuriser.GraphOptions(width=8, kinds=False)
  module = featuriser.Featuriser(options, 6, MEASURED, input_layers=2)
  x, e, none = run(lambda p: module.apply({"params": p}, batch), found)
  expected = FIXTURE["feat_linear/out_node"].reshape(-1, 8)
  np.testing.assert_allclose(x, expected, atol=2e-5)
  edges = batch.tables["edges"]
  place = (edges["network"], edges["local_source"], edges["local_target"])
  dense = FIXTURE["feat_linear/out_edge"]
  np.testing.assert_allclose(e, dense[place], atol=2e-5)
  np.testing.assert_allclose(none, dense[0, 0, 0], atol=2e-5)


@pytest.mark.parametrize("case", ["feat_fourier", "feat_rev"])
def test_fourier_and_reverse_features_are_the_authors(case, monkeypatch):
  """The frequencies of the fixture take the place of ours."""
  plain = featuriser.fourier
  is_rev = case == "feat_rev"
  calls = iter(("bias", "weight"))
  kept = {
    "bias": FIXTURE[f"{case}/param/proj_bias.0.b"],
    "weight": FIXTURE[f"{case}/param/proj_weight.0.b"],
  }
  monkeypatch.setattr(
    featuriser,
    "fourier",
    lambda values, table: plain(values, kept[next(calls)]),
  )
  found = params(case)
  for kind in ("bias", "weight"):
    found.pop(f"proj_{kind}_0")
    found[f"proj_{kind}_0"] = found.pop(f"proj_{kind}_1")
  options = featuriser.GraphOptions(
    width=8, fourier=5, reverse=is_rev, kinds=False
  )
  module = featuriser.Featuriser(options, 6, MEASURED)
  batch = batch_of()
  x, e, _ = module.apply({"params": found}, batch)
  expected = FIXTURE[f"{case}/out_node"].reshape(-1, 8)
  np.testing.assert_allclose(x, expected, atol=5e-5)
  place = featuriser.links(
    batch, is_rev, "network", "local_source", "local_target"
  )
  np.testing.assert_allclose(
    e, FIXTURE[f"{case}/out_edge"][tuple(place)], atol=5e-5
  )


@pytest.mark.parametrize("case", ["rt_attention_mod", "rt_attention_nomod"])
def test_attention_gives_the_authors_numbers(case):
  module = transformer.GraphAttention(16, 4, case.endswith("_mod"))
  real = jnp.ones((2, 10), bool)
  found = run(
    lambda p, x, e: module.apply({"params": p}, x, e, real),
    params(case),
    FIXTURE["in/node"],
    FIXTURE["in/edge"],
  )
  np.testing.assert_allclose(found, FIXTURE[f"{case}/out"], atol=1e-5)


OPTIONS = transformer.GraphTransformerOptions(
  width=8,
  edge_width=6,
  attention_width=16,
  node_hidden=12,
  edge_hidden=10,
  heads=4,
  layers=2,
  kinds=False,
)


@pytest.mark.parametrize("case", ["rt_layer", "rt_layer_noedge"])
def test_a_layer_gives_the_authors_numbers(case):
  module = transformer.GraphLayer(OPTIONS, case == "rt_layer")
  real = jnp.ones((2, 10), bool)
  x, e = run(
    lambda p, x, e: module.apply({"params": p}, x, e, real),
    params(case),
    FIXTURE["in/node"],
    FIXTURE["in/edge"],
  )
  np.testing.assert_allclose(x, FIXTURE[f"{case}/out_node"], atol=1e-5)
  np.testing.assert_allclose(e, FIXTURE[f"{case}/out_edge"], atol=1e-5)


def test_the_transformer_gives_the_authors_numbers():
  found = params("rt_model")
  head = [found.pop(f"proj_out_{n}") for n in (0, 2)]
  found["featuriser"] = found.pop("construct_graph")
  module = transformer.GraphTransformer(OPTIONS, MEASURED)
  batch = batch_of()
  x = run(
    lambda p: module.apply({"params": p}, batch, method="equivariant"), found
  )
  code = np.asarray(x).reshape(2, 10, 8)[:, -1]
  code = np.maximum(code @ head[0]["kernel"] + head[0]["bias"], 0)
  out = code @ head[1]["kernel"] + head[1]["bias"]
  np.testing.assert_allclose(out, FIXTURE["rt_model/out"], atol=2e-5)


def links(count):
  source, target = FIXTURE["graph/edge_index"]
  return np.concatenate(
    [np.stack([source, target]) + 10 * b for b in range(count)], axis=1
  )


def edge_rows():
  source, target = FIXTURE["graph/edge_index"]
  return FIXTURE["in/edge"][:, source, target]


def delta():
  histogram = FIXTURE["pna/degree_histogram"]
  logs = np.log(np.arange(len(histogram)) + 1)
  return float((histogram * logs).sum() / histogram.sum())


def test_messages_are_the_authors():
  module = message_passing.PNAConv(8, delta())
  found = run(
    lambda p, x, e: module.apply({"params": p}, x, e, *links(2)),
    params("pna_conv"),
    FIXTURE["in/node"].reshape(-1, 8),
    edge_rows().reshape(-1, 6),
  )
  expected = FIXTURE["pna_conv/out"].reshape(-1, 8)
  np.testing.assert_allclose(found, expected, atol=1e-4)
  measured = graph_batches.measure(
    [(SPEC, np.ones(SPEC.num_weights, np.float32))]
  )
  assert measured["delta"] == pytest.approx(delta(), rel=1e-6)


@pytest.mark.parametrize("count", [1, 2])
def test_rounds_are_the_authors(count):
  """With the norm over the whole batch, which depends on batch mates."""
  module = message_passing.PNA(8, 6, 2, delta(), "batch")
  x = FIXTURE["in/node"][:count].reshape(-1, 8)
  e = edge_rows()[:count].reshape(-1, 6)
  real = np.ones(len(x), bool)
  found, edges = run(
    lambda p, x, e: module.apply({"params": p}, x, e, *links(count), real),
    params("pna_net"),
    x,
    e,
  )
  name = {1: "out_node_single", 2: "out_node"}[count]
  expected = FIXTURE[f"pna_net/{name}"][:count].reshape(-1, 8)
  np.testing.assert_allclose(found, expected, atol=1e-4)
  if count == 2:
    expected = FIXTURE["pna_net/out_edge"].reshape(-1, 6)
    np.testing.assert_allclose(edges, expected, atol=1e-4)


NAMES = {"pna": "neural_graph", "rt": "neural_graph_transformer"}


def total(name, options, outputs):
  """Parameters of an encoder on 2-32-32-1 INRs, and a last linear map."""
  spec = families.inr((2, 32, 32, 1))
  networks = [(spec, np.ones(spec.num_weights, np.float32))]
  row = table.row(NAMES[name])
  encoder = row.build(options, row.measure(options, networks))
  batch = encoder.make_packer((spec,)).pack([0], [networks[0][1]])
  found = jax.eval_shape(encoder.module.init, jax.random.key(0), batch)
  count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(found))
  return count + (options.width + 1) * outputs


@pytest.mark.parametrize(
  ("probes", "pna", "rt"), [(0, 92010, 376586), (64, 100714, 393866)]
)
def test_parameters_are_as_many_as_the_authors(probes, pna, rt):
  options = message_passing.NeuralGraphOptions(
    fourier=128, kinds=False, readout="last", readout_layers=2, probes=probes
  )
  assert total("pna", options, 10) == pna
  options = transformer.GraphTransformerOptions(
    *(),
    width=64,
    edge_width=32,
    attention_width=128,
    node_hidden=128,
    edge_hidden=64,
    heads=8,
    layers=4,
    fourier=128,
    kinds=False,
    readout="last",
    probes=probes,
  )
  # Theirs has 128 units behind the readout, ours the width of the code, 64.
  ours = total("rt", options, 10)
  assert ours + 64 * (64 + 1 + 10) == rt


def transformer_of_inrs(**changes):
  """The authors' transformer of INRs."""
  return transformer.GraphTransformerOptions(
    *(),
    **{"width": 64, "edge_width": 32, "attention_width": 128, "heads": 8}
    | {"node_hidden": 128, "edge_hidden": 64, "layers": 4, "fourier": 128}
    | {"kinds": False, "readout": "last"}
    | changes,
  )


SEVEN = ["gelu", "leaky_relu", "none", "relu", "sigmoid", "silu", "tanh"]
ZOO = families.cnn((1, 28, 28), (16, 16, 16), 3, 2, num_classes=10)
PARK = families.cnn((3, 28, 28), (4, 4), 7, num_classes=10)


@pytest.mark.parametrize(
  ("name", "spec", "hidden", "changes", "number"),
  [
    ("pna", ZOO, 3, {"width": 256, "dense_apart": True}, 5587969),
    ("pna", PARK, 5, {"width": 64}, 369025),
    ("pna", PARK, 5, {"width": 32}, 101569),
    (
      *("rt", ZOO, 3),
      {"width": 128, "edge_width": 64, "attention_width": 256}
      | {"node_hidden": 256, "edge_hidden": 128},
      1807873,
    ),
    (
      *("rt", PARK, 5),
      {"width": 32, "edge_width": 16, "attention_width": 32, "heads": 4}
      | {"node_hidden": 64, "edge_hidden": 64, "layers": 3},
      92705,
    ),
    ("rt", PARK, 5, {}, 466945),
  ],
)
def test_readers_of_cnns_have_the_authors_parameters(
  name, spec, hidden, changes, number
):
  """Ten output nodes end to end, and one number at the end."""
  if name == "pna":
    options = message_passing.NeuralGraphOptions(
      fourier=128, kinds=False, readout="last", reverse=False, **changes
    )
    options = dataclasses.replace(options, activations=True, readout_layers=2)
  else:
    options = transformer_of_inrs(activations=True, **changes)
  networks = [(spec, np.ones(spec.num_weights, np.float32))]
  row = table.row(NAMES[name])
  measured = row.measure(options, networks) | {"activations": SEVEN}
  measured["positions"] = [spec.tensors[0].shape[1], hidden, 10]
  encoder = row.build(options, measured)
  batch = encoder.make_packer((spec,)).pack([0], [networks[0][1]])
  found = jax.eval_shape(encoder.module.init, jax.random.key(0), batch)
  total = sum(math.prod(x.shape) for x in jax.tree.leaves(found))
  if name == "pna":
    total += options.width + 1
  else:  # Theirs has two layers of another width behind the readout.
    wide = {32: 64, 64: 128, 128: 256}[options.width]
    ends = 10 * options.width
    total -= (ends + 1) * options.width
    total += (ends + 1) * wide + (wide + 1) * wide + wide + 1
  assert total == number


@pytest.mark.parametrize(
  "wanted", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_activations_are_seen_where_wanted(wanted):
  one, other = (families.mlp((2, 3, 2), a) for a in ("relu", "tanh"))
  new = families.mlp((2, 3, 2), "gelu")
  weights = families.random_weights(one, np.random.default_rng(0))
  for name in ("neural_graph", "neural_graph_transformer"):
    options = table.row(name).options(width=8, layers=1, activations=wanted)
    measured = table.measure(name, options, [(one, weights), (other, weights)])
    encoder = table.build(name, vars(options), {}, measured)
    packer = encoder.make_packer((one, other, new))
    batch = packer.pack([0, 1, 2], [weights] * 3)
    init = jax.jit(encoder.module.init_with_output, compiler_options=FAST)
    codes = np.asarray(init(jax.random.key(0), batch)[0])
    assert len(np.unique(codes.round(5), axis=0)) == (3 if wanted else 1)


@pytest.mark.slow
def test_single_values_of_dense_layers_can_be_apart():
  spec = families.cnn((1, 5, 5), (3,), 2, num_classes=2)
  start = spec.offsets[spec.index("dense0.weight")]
  weights = families.random_weights(spec, np.random.default_rng(0))
  moved = weights.copy()
  moved[start] += 1
  for apart in (False, True):
    module = featuriser.Featuriser(
      featuriser.GraphOptions(width=4, dense_apart=apart),
      4,
      dataclasses.replace(MEASURED, places=4, positions=(1, 1, 2)),
    )
    packer = graph_batches.packer((spec,), 4, dense=False)
    batches = [packer.pack([0], [w]) for w in (weights, moved)]
    params = module.init(jax.random.key(0), batches[0])
    edges = [module.apply(params, b)[1] for b in batches]
    rows = np.flatnonzero(np.abs(edges[1] - edges[0]).max(1) > 1e-6)
    assert len(rows) == 1
    assert batches[0].tables["edges"]["kind"][rows[0]] == graph.KINDS.index(
      "linear_weight"
    )
    assert ("proj_dense_in" in params["params"]) == apart


@pytest.mark.parametrize("spec", [SPEC, CONV, FLAT, RESNET, VIT, *LANGUAGE])
def test_every_weight_is_in_the_graph_once(spec):
  for places in (1, 4, 9):
    g = graph.graph_of(spec, places)
    named = np.concatenate([g.index[g.mask], g.value[g.has_value]])
    np.testing.assert_array_equal(np.sort(named), np.arange(spec.num_weights))
    assert g.source.max() < len(g.value) > g.target.max()


def test_kernels_are_centred_and_skips_are_ones():
  g = graph.graph_of(RESNET, 9)
  skips = g.kind == graph.SKIP
  assert skips.sum() == 2 + 3
  np.testing.assert_array_equal(g.constant[skips], np.eye(9)[[4] * 5])
  dense = g.kind == graph.KINDS.index("linear_weight")
  np.testing.assert_array_equal(g.mask[dense], np.eye(9)[[4] * dense.sum()])
  g = graph.graph_of(FLAT, 4)  # 16 image places in 4 parallel edges.
  dense = g.kind == graph.KINDS.index("linear_weight")
  np.testing.assert_array_equal(np.unique(g.part[dense]), range(4))


def reachable(g):
  """Nodes from which an output can be reached."""
  found = g.role == graph.OUTPUT
  for _ in range(len(found)):
    found = found | np.isin(np.arange(len(found)), g.source[found[g.target]])
  return found


@pytest.mark.parametrize("spec", [SPEC, CONV, FLAT, RESNET, VIT])
def test_every_neuron_leads_to_an_output(spec):
  assert reachable(graph.graph_of(spec, 9)).all()


@pytest.mark.parametrize("spec", LANGUAGE, ids=["gpt2", "bert", "headless"])
def test_words_lead_to_all_that_follows(spec):
  """A stream that begins with an embedding, pinned or free, is one chain."""
  assert spec.tensors[0].kind == "embedding"
  g = graph.graph_of(spec, 1)
  words = g.source[g.kind == graph.KINDS.index("embedding")]
  inside = (g.role == graph.HIDDEN) | (g.role == graph.OUTPUT)
  ahead = np.isin(np.arange(len(inside)), words)
  for _ in range(40):
    ahead |= np.isin(np.arange(len(inside)), g.target[ahead[g.source]])
  assert ahead[inside].all()
  assert np.isin(np.arange(len(inside)), [g.source, g.target]).all()
  # The other way: every node is read by the last norm, or by the head.
  last = np.arange(len(inside)) >= len(inside) - spec.tensors[-1].shape[0]
  for _ in range(40):
    last |= np.isin(np.arange(len(inside)), g.source[last[g.target]])
  assert last.all()
  assert (g.kind == graph.SKIP).sum() == 8 * len(spec.skips)


@pytest.mark.parametrize("spec", LANGUAGE, ids=["gpt2", "bert", "headless"])
def test_permuted_language_models_have_one_graph(spec):
  """In numpy: messages of any kind end in the same sums over all nodes."""
  rng = np.random.default_rng(0)
  weights = families.random_weights(spec, rng).astype(float)
  g = graph.graph_of(spec, 1)
  kinds = rng.normal(size=(2, graph.NUM_KINDS))
  marks = np.where(g.role == graph.HIDDEN, g.number, 100 + g.number)

  def sums(w):
    x = np.sin(marks + 7.0 * g.role) + np.where(g.has_value, w[g.value], 0)
    e = (np.where(g.mask, w[g.index], g.constant) @ [1.0]) * kinds[0][g.kind]
    for _ in range(3):
      told = np.bincount(g.target, np.sin(e + kinds[1][g.kind] * x[g.source]))
      heard = np.bincount(g.source, np.sin(e - x[g.target]), len(x))
      told = np.pad(told, (0, len(x) - len(told)))
      x = np.tanh((x + told + 0.5 * heard) / 6)
    return np.array([x.sum(), (x**2).sum()])

  index = symmetry.draw_permutation(spec, rng)
  np.testing.assert_allclose(sums(weights[index]), sums(weights), rtol=1e-9)
  index = symmetry.draw_uncoupled(spec, rng)
  assert np.abs(sums(weights[index]) - sums(weights)).max() > 1e-3


@pytest.mark.parametrize("spec", [SPEC, RESNET, VIT], ids=["mlp", "res", "vit"])
@pytest.mark.parametrize("name", ["pna", "rt"])
def test_nodes_are_equivariant(name, spec):
  """In float64: permuted networks have the same nodes in another order."""
  with jax.enable_x64(True):
    row = table.row(NAMES[name])
    small = {"pna": {}, "rt": {"edge_width": 4, "attention_width": 4}}[name]
    options = row.options(width=4, layers=2, **small)
    rng = np.random.default_rng(0)
    weights = families.random_weights(spec, rng)
    encoder = row.build(options, row.measure(options, [(spec, weights)]))
    template = encoder.make_packer((spec,)).template([0])

    def nodes(values, weights):
      batch = template._replace(weights=weights)
      x = encoder.module.apply(values, batch, method="equivariant")
      return x[0] if name == "pna" else x

    w = weights.astype(float)
    batch = template._replace(weights=jnp.asarray(w))
    shapes = jax.eval_shape(encoder.module.init, jax.random.key(0), batch)
    values = jax.tree.map(
      lambda s: jnp.asarray(rng.standard_normal(s.shape)), shapes
    )
    apply = jax.jit(nodes, compiler_options=FAST)
    in_order = lambda x: np.asarray(x)[np.lexsort(np.asarray(x).T.round(6))]
    out = in_order(apply(values, w))
    size = np.abs(out).max()
    index = symmetry.draw_permutation(spec, rng)
    moved = apply(values, w[index])
    np.testing.assert_allclose(in_order(moved), out, atol=1e-10 * size)
    assert np.abs(moved - apply(values, w)).max() > 1e-4 * size
    changes = []
    for _ in range(4):  # One may be a permutation by luck.
      index = symmetry.draw_uncoupled(spec, rng)
      changes.append(np.abs(in_order(apply(values, w[index])) - out).max())
    assert max(changes) > 1e-4 * size


@pytest.mark.parametrize("function", ["min", "max"])
def test_extremes_of_segments_have_the_derivative_of_jax(function):
  plain = getattr(jax.ops, f"segment_{function}")
  rows = np.array([[1.0, 2], [3, 2], [3, 0], [5, 5], [1, 1]], np.float32)
  owner = np.array([0, 0, 0, 2, 3])  # Equal extremes; none of 1; 3: padding.
  direction = np.arange(10, dtype=np.float32).reshape(5, 2) - 3

  def moved(segment):
    value = lambda x: jnp.where(
      np.array([[True], [False], [True]]), segment(x) ** 2, 0
    )
    tangent = jax.jvp(value, (rows,), (direction,))
    return *tangent, jax.grad(lambda x: value(x).sum())(rows)

  ours = moved(lambda x: segments.extreme(plain, x, owner, 3))
  for one, other in zip(ours, moved(lambda x: plain(x, owner, 3)), strict=True):
    assert np.abs(one).max() > 0
    np.testing.assert_allclose(one, other, rtol=1e-6)
