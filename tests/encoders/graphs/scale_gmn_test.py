"""ScaleGMN: golden vectors, exact symmetries, and controls that fail."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders import table
from sne_jax.encoders.graphs import graph, scale_gmn
from sne_jax.networks import augment, families, symmetry

FAST = {"xla_backend_optimization_level": "0"}  # Compiles faster.
SPECS = {
  "sine": families.inr((2, 4, 3, 1)),
  "relu": families.mlp((2, 5, 4, 3), "relu"),
  "tanh": families.mlp((2, 5, 4, 2), "tanh"),
  "gelu": families.mlp((2, 5, 4, 2), "gelu"),
  "cnn": families.cnn((1, 6, 6), (3, 2), 2, pools=(2, 1), num_classes=3),
  "resnet": families.resnet((1, 4, 4), (2, 3), num_classes=2),
}


def filled(shape, number):
  """A parameter tensor of the goldens, [out, in], transposed to ours."""
  flat = np.arange(int(np.prod(shape)))
  return 0.5 * np.sin(1.7 * number + 0.3 * flat).reshape(shape).T


def perceptron(numbers, out, hidden=3, into=2):
  fc0, bias0, fc1, bias1, scale, shift = numbers
  return {
    "fc0": {
      "kernel": filled((hidden, into), fc0),
      "bias": filled(hidden, bias0),
    },
    "fc1": {"kernel": filled((out, hidden), fc1), "bias": filled(out, bias1)},
    "norm": {"scale": filled(hidden, scale), "bias": filled(hidden, shift)},
  }


@pytest.mark.parametrize(
  ("kind", "want"),
  [
    (scale_gmn.SIGN, [[0.066056, 0.247902], [0.052884, 0.207123]]),
    (scale_gmn.SCALE, [[0.048812, 0.208855], [0.039085, 0.174515]]),
  ],
)
def test_the_equivariant_layer_has_the_authors_numbers(kind, want):
  with jax.enable_x64(True):
    x = jnp.cos(0.2 * jnp.arange(4.0) + 0.1).reshape(2, 2)
    rho = perceptron(range(7, 13), 2)
    params = {
      "linear": {"kernel": filled((2, 2), 0)},
      "phi": perceptron(range(1, 7), 2),
      "inv": {"rho": rho},
    }
    layer = scale_gmn.Equivariant(2, 3, "symmetrised")
    got = layer.apply({"params": params}, x, jnp.full(2, kind))
    np.testing.assert_allclose(got, want, atol=1e-6)


class Encoder:
  """An encoder in float64, every parameter drawn at random."""

  def __init__(self, specs, **changes):
    options = scale_gmn.ScaleGMNOptions(width=6, layers=2, **changes)
    rng = np.random.default_rng(0)
    networks = [(s, rng.normal(size=s.num_weights)) for s in specs]
    measured = table.measure("scale_gmn", options, networks)
    self.built = table.build(
      "scale_gmn", dataclasses.asdict(options), {}, measured
    )
    self.packer = self.built.make_packer(specs)
    self.params = None

  def __call__(self, numbers, weights):
    batch = self.packer.pack(
      numbers, [np.asarray(w, np.float32) for w in weights]
    )
    flat = np.zeros(batch.room)
    flat[: sum(map(len, weights))] = np.concatenate(weights)
    batch = batch._replace(weights=jnp.asarray(flat))
    if self.params is None:
      shapes = jax.eval_shape(self.built.module.init, jax.random.key(0), batch)
      rng = np.random.default_rng(1)
      self.params = jax.tree.map(
        lambda s: jnp.asarray(0.9 * rng.normal(size=s.shape)), shapes
      )
    run = jax.jit(self.built.module.apply, compiler_options=FAST)
    return np.asarray(run(self.params, batch))


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


def moved(spec, weights, rng, what, reach=30.0):
  if what == "permutation":
    return weights[symmetry.draw_permutation(spec, rng)]
  if what == "sign":
    return weights * augment.draw_signs(spec, rng)
  bound = np.log(reach)
  scales = {
    group: np.exp(rng.uniform(-bound, bound, spec.groups[group][0]))
    for group in augment.scale_groups(spec)
  }
  inverse = {group: 1 / value for group, value in scales.items()}
  parts = []  # As `augment.scales_from`, in float64.
  for t in spec.tensors:
    factor = np.ones((1,) * len(t.shape))
    for place, axis in enumerate(t.axes):
      vector = np.ones(1)
      for f in axis:
        of = (inverse if place else scales).get(f.group, np.ones(f.size))
        vector = (vector[:, None] * of[None]).ravel()
      along = [1] * len(t.shape)
      along[place] = t.shape[place]
      factor = factor * vector.reshape(along)
    parts.append(np.broadcast_to(factor, t.shape).ravel())
  return weights * np.concatenate(parts)


CASES = [
  *((n, "permutation", {}) for n in ("gelu", "cnn", "resnet")),
  *((n, "sign", {}) for n in ("sine", "tanh")),
  *((n, "scale", {}) for n in ("relu", "cnn")),
  ("sine", "sign", {"reverse": True}),
  ("sine", "sign", {"reverse": True, "backward": "published"}),
  ("relu", "scale", {"reverse": True}),
  ("relu", "scale", {"reverse": True, "backward": "reciprocal"}),
  ("sine", "sign", {"reverse": True, "backward": "reciprocal"}),
  ("relu", "scale", {"aggregation": "mean", "sign_map": "abs"}),
  ("tanh", "sign", {"reverse": True, "sign_map": "abs", "readout": "full"}),
]


@pytest.mark.parametrize(
  ("name", "what", "changes"), CASES, ids=lambda v: str(v).replace("'", "")
)
def test_codes_are_exactly_invariant(name, what, changes):
  spec, rng = SPECS[name], np.random.default_rng(2)
  weights = rng.normal(size=spec.num_weights)
  if what == "scale":  # A dead unit, and no biases.
    tensors = spec.unflatten(weights)
    for t in spec.tensors:
      if t.of:
        tensors[t.name] = np.zeros(t.shape)
    tensors[spec.tensors[0].name][0] = 0
    weights = spec.flatten(tensors, np)
  encode = Encoder([spec], **changes)
  after = moved(spec, weights, rng, what)
  assert np.abs(after - weights).max() > 0.1
  one, two = encode((0, 0), (weights, after))
  assert np.isfinite(one).all()
  assert np.abs(two - one).max() <= 1e-10 * np.abs(one).max()


@pytest.mark.parametrize(
  ("name", "what", "changes"),
  [
    ("relu", "sign", {}),
    ("tanh", "scale", {}),
    ("gelu", "sign", {}),
    ("relu", "scale", {"reverse": True, "backward": "published"}),
  ],
)
def test_what_changes_the_function_or_is_known_not_to_be_exact_moves_codes(
  name, what, changes
):
  """The control: factors of another activation; the published backward form."""
  spec, rng = SPECS[name], np.random.default_rng(2)
  as_if = {"sign": "tanh", "scale": "relu"}[what]
  other = dataclasses.replace(
    spec, activations=(*[as_if] * (spec.num_levels - 1), "none")
  )
  weights = rng.normal(size=spec.num_weights)
  after = moved(other, weights, rng, what, reach=3.0)
  one, two = Encoder([spec], **changes)((0, 0), (weights, after))
  assert np.abs(two - one).max() > 1e-4 * np.abs(one).max()


@pytest.mark.parametrize(
  "changes",
  [{}, pytest.param({"reverse": True}, marks=pytest.mark.slow)],
)
def test_inputs_and_outputs_have_places_and_batch_mates_do_not_matter(changes):
  specs = list(SPECS.values())
  encode, rng = Encoder(specs, **changes), np.random.default_rng(3)
  weights = [rng.normal(size=s.num_weights) for s in specs]
  together = encode(range(len(specs)), weights)
  for number in (1, 4):
    alone = encode((number,), (weights[number],))[0]
    np.testing.assert_allclose(alone, together[number], rtol=0, atol=1e-12)
  spec, vector = specs[1], weights[1]
  for name, axis in (("layer0.weight", 1), ("layer2.weight", 0)):
    tensors = dict(spec.unflatten(vector))
    tensors[name] = np.flip(tensors[name], axis)
    if axis == 0:
      tensors["layer2.bias"] = np.flip(tensors["layer2.bias"])
    turned = encode((1,), (spec.flatten(tensors, np),))[0]
    assert np.abs(turned - together[1]).max() > 1e-4


def test_nodes_know_what_they_may_change():
  """Also where nothing may: norms, residual streams, pooled tanh."""
  kinds = {}
  for name, spec in SPECS.items():
    g = graph.graph_of(spec, graph.places_of(spec))
    found = scale_gmn.symmetries(spec, g)
    assert (found[g.role != graph.HIDDEN] == scale_gmn.PERMUTED).all()
    kinds[name] = set(found[g.role == graph.HIDDEN].tolist())
  assert kinds["sine"] == kinds["tanh"] == {scale_gmn.SIGN}
  assert kinds["relu"] == kinds["cnn"] == {scale_gmn.SCALE}
  assert kinds["gelu"] == kinds["resnet"] == {scale_gmn.PERMUTED}


def test_published_readout_refuses_networks_of_other_ends():
  with pytest.raises(ValueError, match="choose readout pool"):
    Encoder([SPECS["relu"], SPECS["tanh"]], readout="full")
  encode = Encoder([SPECS["relu"]], readout="full")
  with pytest.raises(
    ValueError, match="for networks of 2 inputs and 3 outputs"
  ):
    encode.built.make_packer([SPECS["tanh"]])


@pytest.mark.slow
@pytest.mark.parametrize(
  ("backward", "is_finite"), [("bounded", True), ("reciprocal", False)]
)
def test_reciprocals_overflow_where_weights_of_cnns_nearly_vanish(
  backward, is_finite
):
  """In float32, as training has it; the weights are those that others saw."""
  spec = SPECS["cnn"]
  encode = Encoder([spec], reverse=True, backward=backward)
  weights = np.random.default_rng(2).normal(size=spec.num_weights)
  encode((0,), (weights,))
  weights[:: len(weights) // 5] = 1e-15
  params, weights = jax.tree.map(
    lambda x: np.asarray(x, np.float32), (encode.params, weights)
  )
  with jax.enable_x64(False):
    batch = encode.packer.pack((0,), [weights])
    loss = lambda params: encode.built.module.apply(params, batch).sum()
    slope = jax.jit(jax.value_and_grad(loss), compiler_options=FAST)(params)
  found = all(np.isfinite(value).all() for value in jax.tree.leaves(slope))
  assert found == is_finite


@pytest.mark.slow
def test_gradients_are_finite_where_nodes_begin_at_zero():
  spec = families.mlp((2, 3, 2), "relu", bias=False)
  encode = Encoder([spec])
  encode((0,), (np.zeros(spec.num_weights),))
  batch = encode.packer.pack((0,), [np.zeros(spec.num_weights, np.float32)])
  loss = lambda params: encode.built.module.apply(params, batch).sum()
  gradient_fn = jax.jit(jax.grad(loss), compiler_options=FAST)
  for value in jax.tree.leaves(gradient_fn(encode.params)):
    assert np.isfinite(value).all()
