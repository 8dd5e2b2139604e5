"""Graph metanetworks: the published form, exact symmetries, controls."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders import table
from sne_jax.encoders.graphs import parameter_graph
from sne_jax.networks import families, scales, symmetry
from tests.encoders.graphs import message_passing_test as graphs
from tests.encoders.graphs import parameter_graph_test as counted

FAST = {"xla_backend_optimization_level": "0"}
SPECS = {
  "mlp": families.mlp((2, 5, 4, 3)),
  "cnn": families.cnn((1, 6, 6), (3, 2), 2, num_classes=2),
  "flat": graphs.FLAT,
  "resnet": graphs.RESNET,
  "park": counted.WIDE_PARK,
  "vit": graphs.VIT,
  "gpt2": graphs.GPT2,
  "bert": graphs.BERT,
}


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


class Encoder:
  """An encoder of float64 whose parameters are all drawn at random."""

  def __init__(self, specs, name="gmn", **changes):
    options = table.row(name).options(width=8, layers=3)
    options = dataclasses.replace(options, **changes)
    rng = np.random.default_rng(0)
    networks = [(s, families.random_weights(s, rng)) for s in specs]
    self.measured = table.measure(name, options, networks)
    self.built = table.build(
      name, dataclasses.asdict(options), {}, self.measured
    )
    self.specs, self.packer = specs, self.built.make_packer(specs)
    self.params = None

  def pack(self, specs, weights, packer=None):
    packer = packer or self.packer
    batch = packer.pack(
      [packer.specs.index(s) for s in specs],
      [np.asarray(w, np.float32) for w in weights],
    )
    flat = np.zeros(batch.room)
    flat[: sum(map(len, weights))] = np.concatenate(weights)
    return batch._replace(weights=flat)

  def __call__(self, specs, weights, packer=None):
    batch = self.pack(specs, weights, packer)
    if self.params is None:
      shapes = jax.eval_shape(self.built.module.init, jax.random.key(0), batch)
      self.params = drawn(shapes)
    run = jax.jit(self.built.module.apply, compiler_options=FAST)
    return np.asarray(run(self.params, batch))


def drawn(shapes):
  rng = np.random.default_rng(1)

  def draw(path, x):
    noise = rng.standard_normal(x.shape)
    if x.ndim > 1:
      return 2 * noise * x.shape[0] ** -0.5
    return 1.0 * (path[-1].key == "scale") + 0.3 * noise

  return jax.tree_util.tree_map_with_path(draw, shapes)


def networks_of(spec, count=2):
  rng = np.random.default_rng(2)
  return [
    families.random_weights(spec, rng).astype(np.float64) for _ in range(count)
  ]


def total(options, outputs):
  spec = families.inr((2, 32, 32, 1))
  row = table.row("gmn")
  networks = [(spec, np.ones(spec.num_weights, np.float32))]
  encoder = row.build(options, row.measure(options, networks))
  batch = encoder.make_packer((spec,)).pack([0], [networks[0][1]])
  found = jax.eval_shape(encoder.module.init, jax.random.key(0), batch)
  count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(found))
  return count + (options.width + 1) * outputs


def test_parameters_are_as_many_as_the_authors():
  """With eight outputs: the number with which both of their counts agree."""
  options = table.row("gmn").options()
  assert total(options, 8) == 46952
  changes = {"fourier": True, "norms": True, "readout": "both"}
  assert total(dataclasses.replace(options, **changes), 8) == 49288


def reference(params, spec, weights, options, scale):
  """The published form, one edge after another."""
  g = parameter_graph.graph_of(spec, options["attention"])
  p, relu = params["params"], lambda x: np.maximum(x, 0)
  lin = lambda m, x: x @ m["kernel"] + m["bias"]
  silu = lambda x: x / (1 + np.exp(-x))
  cat = lambda *x: np.concatenate(x)

  def norm(m, x):
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    return x * m["scale"] + m["bias"]

  def first(m, numbers, kind):
    waves = [np.sin(lin(m[n]["linear"], np.array(v))) for n, v in numbers]
    x = cat(*waves, m["type"]["embedding"][kind])
    return lin(m["embed"], relu(lin(m["proj"], x)))

  value = np.where(g.is_weight, (weights * scale)[g.index], 1.0)
  body = p["body"]
  x = [
    first(body["nodes"], [("layer", [l]), ("order", [o])], k)
    for l, o, k in zip(g.layer, g.order, g.kind, strict=True)
  ]
  e = [
    first(body["edges"], [("value", [v]), ("layer", [l]), ("place", at)], k)
    for v, l, at, k in zip(
      value, g.edge_layer, g.place, g.edge_kind, strict=True
    )
  ]
  links = list(zip(g.source, g.target, strict=True))
  if options["undirected"]:
    e, links = e + e, links + [(b, a) for a, b in links]
  for number in range(options["layers"]):
    m, is_last = body[f"convs_{number}"], number + 1 == options["layers"]
    nx = x if is_last else [norm(m["node_norm"], row) for row in x]
    ne = [norm(m["edge_norm"], row) for row in e]
    ne = [
      relu(lin(m["edge_model"], cat(nx[s], nx[t], row)))
      for (s, t), row in zip(links, ne, strict=True)
    ]
    if not is_last:
      for node, row in enumerate(list(x)):
        mail = [
          relu(lin(m["message"], cat(nx[s], edge)))
          for (s, t), edge in zip(links, ne, strict=True)
          if t == node
        ]
        mean = np.mean(mail, axis=0) if mail else np.zeros_like(row)
        new = relu(lin(m["node_model"], cat(nx[node], mean)))
        x[node] = row + lin(m["node_mlp"], silu(new))
    e = [
      row + lin(m["edge_mlp"], silu(new))
      for row, new in zip(e, ne, strict=True)
    ]
  e = [lin(p["final"], norm(p["final_norm"], row)) for row in e]
  e = np.mean([relu(lin(p["pre_pool_e"], row)) for row in e], axis=0)
  if options["readout"] == "edges":
    return relu(lin(p["post_pool"], e))
  x = np.mean([relu(lin(p["pre_pool_x"], row)) for row in x], axis=0)
  code = relu(lin(p["post_pool"], norm(p["post_norm_0"], cat(x, e))))
  return norm(p["post_norm_1"], code)


@pytest.mark.parametrize(
  ("name", "changes"),
  [
    ("mlp", {}),
    ("resnet", {"undirected": True, "readout": "both"}),
    ("vit", {"attention": "published"}),
  ],
)
def test_codes_are_those_of_the_published_form(name, changes):
  spec = SPECS[name]
  encode = Encoder([spec], weight_scale="none", **changes)
  weights = networks_of(spec)
  codes = encode([spec] * 2, weights)
  options = dataclasses.asdict(encode.built.module.options)
  for vector, code in zip(weights, codes, strict=True):
    wanted = reference(encode.params, spec, vector, options, 1.0)
    np.testing.assert_allclose(code, wanted, rtol=1e-10, atol=1e-12)


def test_weights_are_as_in_training_unless_they_are_to_stay():
  spec = SPECS["mlp"]
  weights = networks_of(spec)[0]
  one, other = (Encoder([spec], weight_scale=s) for s in ("place", "none"))
  one([spec], [weights])
  other.params = one.params
  rows = np.concatenate([np.full(t.size, t.fan_in**0.5) for t in spec.tensors])
  places = dict(zip(spec.tensors, scales.tensor_places(spec), strict=True))
  sizes = np.concatenate(
    [
      np.full(t.size, one.measured["place_scales"][places[t]])
      for t in spec.tensors
    ]
  )
  np.testing.assert_allclose(
    other([spec], [weights * rows / sizes]), one([spec], [weights]), rtol=1e-6
  )
  assert np.abs(other([spec], [weights]) - one([spec], [weights])).max() > 1e-3


CASES = [
  *((name, {}) for name in SPECS),
  ("resnet", {"undirected": True, "readout": "both"}),
  ("resnet", {"readout": "tensors"}),
  ("mlp", {"fourier": True, "norms": True, "aggregation": "sum"}),
]


@pytest.mark.parametrize(("name", "changes"), CASES, ids=str)
def test_codes_are_exactly_invariant(name, changes):
  """And not under shuffles of inputs, or without regard to neurons."""
  spec, rng = SPECS[name], np.random.default_rng(3)
  weights = networks_of(spec, 1)[0]
  draws = (symmetry.draw_permutation, symmetry.draw_input_shuffle)
  orders = [draw(spec, rng) for draw in draws]
  encode = Encoder([spec], **changes)
  moved = [weights, *(weights[order] for order in orders)]
  code, permuted, shuffled = encode([spec] * 3, moved)
  size = np.abs(code).max()
  assert (moved[1] != weights).any()
  assert np.abs(permuted - code).max() <= 1e-10 * size
  assert np.abs(shuffled - code).max() > 1e-6 * size


def test_inputs_outputs_and_places_of_an_image_have_an_order():
  spec = SPECS["flat"]
  weights = networks_of(spec, 1)[0]
  tensors = dict(spec.unflatten(weights))
  dense = tensors["dense0.weight"].reshape(2, 3, 16)
  names = ("dense0.weight", "dense0.bias")
  turned = [
    tensors | {name: np.flip(tensors[name], 0) for name in names},
    tensors | {"dense0.weight": np.flip(dense, 2).reshape(2, -1)},
  ]
  encode = Encoder([spec])
  moved = [weights, *(spec.flatten(t, np) for t in turned)]
  code, *others = encode([spec] * 3, moved)
  mlp = SPECS["mlp"]
  tensors = dict(mlp.unflatten(networks_of(mlp, 1)[0]))
  first = mlp.tensors[0].name
  flipped = tensors | {first: np.flip(tensors[first], 1)}
  encode = Encoder([mlp])
  pair = encode([mlp] * 2, [mlp.flatten(t, np) for t in (tensors, flipped)])
  for one, two in ((code, others[0]), (code, others[1]), pair):
    assert np.abs(one - two).max() > 1e-5 * np.abs(one).max()


def test_attention_as_published_ties_what_may_move_apart():
  """Queries and keys alone may move; and they are told from one another."""
  spec, rng = SPECS["vit"], np.random.default_rng(4)
  weights = networks_of(spec, 1)[0]
  element = symmetry.draw_element(spec, rng)
  still = {
    group: np.broadcast_to(np.arange(index.shape[-1]), index.shape)
    for group, index in element.items()
  }
  turn = {**still, "block0.qk": np.flip(still["block0.qk"], -1)}
  order = symmetry.permutation_from(spec, turn)
  tensors = dict(spec.unflatten(weights))
  swap = {"q": "k", "k": "q"}
  swapped = tensors | {
    f"block0.{a}.{part}": tensors[f"block0.{b}.{part}"]
    for a, b in swap.items()
    for part in ("weight", "bias")
  }
  moved = [weights, weights[order], spec.flatten(swapped, np)]
  found = {}
  for attention in ("exact", "published"):
    encode = Encoder([spec], attention=attention, weight_scale="none")
    code, turned, others = encode([spec] * 3, moved)
    size = np.abs(code).max()
    changes = [np.abs(c - code).max() / size for c in (turned, others)]
    found[attention] = [change > 1e-6 for change in changes]
  assert found == {"exact": [False, True], "published": [True, False]}


@pytest.mark.parametrize(
  ("name", "changes"),
  [
    ("gmn", {"readout": "tensors"}),
    pytest.param("scale_gmn", {}, marks=pytest.mark.slow),
  ],
)
def test_wider_networks_than_any_in_training_look_alike(name, changes):
  """With means and weights by their fan-in; sums grow with the width."""
  narrow, wide = families.mlp((2, 8, 8, 1)), families.mlp((2, 128, 128, 1))
  distance = {}
  for aggregation in ("mean", "sum"):
    changes = changes | {"aggregation": aggregation, "layers": 2}
    encode = Encoder([narrow], name, **changes)
    packer = encode.built.make_packer((narrow, wide))
    codes = [
      encode([spec] * 8, networks_of(spec, 8), packer)
      for spec in (narrow, wide)
    ]
    means = [code.mean(0) for code in codes]
    distance[aggregation] = np.abs(means[1] - means[0]).mean()
    distance[aggregation] /= codes[0].std(0).mean()
  assert distance["mean"] < 0.5
  assert distance["sum"] > 1.5 * distance["mean"]


@pytest.mark.slow
def test_running_statistics_are_neither_read_nor_edited():
  spec = SPECS["resnet"]
  weights = networks_of(spec, 1)[0]
  statistics = np.concatenate(
    [np.full(t.size, t.kind in ("norm_mean", "norm_var")) for t in spec.tensors]
  )
  encode = Encoder([spec])
  codes = encode([spec] * 2, [weights, weights + statistics])
  np.testing.assert_array_equal(codes[0], codes[1])
  options = encode.built.module.options
  module = table.row("gmn").per_weight(options, encode.measured)
  batch = encode.pack([spec], [weights])
  shapes = jax.eval_shape(module.init, jax.random.key(0), batch)
  values = module.apply(drawn(shapes), batch)[:, 0]
  np.testing.assert_array_equal(np.asarray(values) == 0, statistics)


def test_what_cannot_be_read_is_refused_in_training_and_prediction():
  spec, other = SPECS["mlp"], counted.other()
  with pytest.raises(ValueError, match="^gmn cannot read .*is of no layer"):
    Encoder([spec, other])
  encode = Encoder([spec])
  with pytest.raises(ValueError, match="^gmn cannot read .*is of no layer"):
    encode.built.make_packer((spec, other))


def test_a_weight_of_zero_stays_an_edge():
  spec = SPECS["mlp"]
  weights = networks_of(spec, 1)[0]
  without = np.where(np.arange(len(weights)) == 3, 0, weights)
  tiny = np.where(np.arange(len(weights)) == 3, 1e-9, weights)
  codes = Encoder([spec])([spec] * 3, [weights, without, tiny])
  assert np.abs(codes[0] - codes[1]).max() > 1e-6
  np.testing.assert_allclose(codes[1], codes[2], atol=1e-7)
  zeros = Encoder([spec])([spec], [np.zeros_like(weights)])
  assert np.isfinite(jnp.asarray(zeros)).all()
