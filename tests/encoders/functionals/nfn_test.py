"""NP and HNP layers: symmetry, and the authors' parameter counts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders.functionals import (
  feature_layers,
  features,
  nfn,
  nfn_linear,
)
from sne_jax.networks import families, symmetry

FAST = {"xla_backend_optimization_level": "0"}
NETS = {
  "mlp": families.mlp((3, 5, 4, 2)),
  "cnn": families.cnn((1, 8, 8), (3, 4), 3, dense=(5,), num_classes=2),
  "l2/mlp": families.mlp((3, 4, 2)),
}
SIREN = families.inr((2, 32, 32, 1))
SIREN3 = families.inr((2, 32, 32, 3))
ZOO_CNN = families.cnn((1, 28, 28), (16, 16, 16), 3, 2, num_classes=10)


def layout(spec):
  return features.layout_of(spec, "nfn", least=1)


def count(module, spec, channels=1):
  plan = layout(spec)
  x = plan.features(jnp.zeros((1, spec.num_weights)))
  x = jax.tree.map(lambda a: jnp.tile(a, (1,) * (a.ndim - 1) + (channels,)), x)
  found = jax.eval_shape(module(plan).init, jax.random.key(0), x)
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize(
  ("kind", "spec", "channels", "number"),
  [
    ("np", SIREN, (1, 16), 1280),
    ("np", SIREN, (16, 16), 16160),
    ("np", SIREN3, (16, 5), 5050),
    ("np", ZOO_CNN, (1, 16), 37056),
    ("np", ZOO_CNN, (16, 5), 176280),
    ("npio", SIREN, (16, 16), 16224),
    ("npio", SIREN3, (1, 16), 1288),
    ("npio", ZOO_CNN, (16, 16), 564560),
    ("hnp", SIREN, (1, 16), 1808),
    ("hnp", SIREN3, (16, 16), 50512),
    ("hnp", ZOO_CNN, (1, 16), 72656),
    ("hnp", ZOO_CNN, (16, 16), 1132256),
    ("hnp", SIREN, (512, 512), 25697792),
    ("pt", SIREN, (16, 16), 1632),
    ("pt", ZOO_CNN, (16, 16), 64000),
  ],
)
def test_parameters_are_as_many_as_the_authors(kind, spec, channels, number):
  module = {
    "np": lambda plan: nfn_linear.NPLinear(plan, channels[1]),
    "npio": lambda plan: nfn_linear.NPLinear(plan, channels[1], io_embed=True),
    "hnp": lambda p: nfn_linear.HNPLinear(p, channels[1], complete=False),
    "pt": lambda plan: feature_layers.Pointwise(plan, channels[1]),
  }[kind]
  assert count(module, spec, channels[0]) == number


@pytest.mark.parametrize(
  ("kind", "number"), [("nfn_hnp", 2811743), ("nfn_np", 2031390)]
)
def test_whole_models_have_the_authors_parameters(kind, number):
  """CNN zoo: channels 16, 16, 5 and a head of 1000, 1000 and 1."""
  options = nfn.NFNOptions(
    width=1000, channels=16, last_channels=5, complete=False
  )
  networks = [(ZOO_CNN, np.zeros(ZOO_CNN.num_weights, np.float32))]
  row = nfn.row(kind, symmetry="")
  encoder = row.build(options, row.measure(options, networks))
  batch = encoder.make_packer((ZOO_CNN,)).pack([0], [networks[0][1]])
  found = jax.eval_shape(encoder.module.init, jax.random.key(0), batch)
  total = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(found))
  assert total + 1000 * 1000 + 1000 + 1001 == number


def test_pools_are_as_long_as_the_authors():
  sizes = {SIREN: (6, 7), SIREN3: (6, 11), ZOO_CNN: (32, 50)}
  for spec, wanted in sizes.items():
    plan = layout(spec)
    x = plan.features(jnp.zeros((1, spec.num_weights)))
    pools = (feature_layers.np_pool, feature_layers.hnp_pool)
    assert tuple(p(plan, x).shape[-1] for p in pools) == wanted


FLAT = families.cnn(
  (1, 5, 5), (3,), 2, dense=(4,), num_classes=2, head="flatten"
)
TF = families.cnn(
  (2, 5, 5),
  *((3,), 2),
  num_classes=2,
  head="flatten",
  flatten_order="channels_last",
)


@pytest.mark.slow
def test_features_and_flat_vectors_are_inverse():
  for spec in (*NETS.values(), FLAT, TF):
    plan = layout(spec)
    rows = np.arange(2 * spec.num_weights, dtype=np.float32).reshape(2, -1)
    x = plan.features(jnp.asarray(rows))
    np.testing.assert_array_equal(plan.flat(x)[..., 0], rows)
    more = jax.tree.map(jnp.asarray, given_like(plan, 3))
    again = plan.flat(more)
    assert again.shape == (2, spec.num_weights, 3)
  # The weight of channel 1 at image place 2 is folded place 2 of neuron 1.
  where = FLAT.tensor("dense0.weight").shape
  assert where == (4, 48)
  x = layout(FLAT).features(jnp.arange(FLAT.num_weights, dtype=float)[None])
  start = FLAT.offsets[FLAT.index("dense0.weight")]
  assert x.weights[1][0, 0, 1, 2] == start + 16 + 2


def given_like(plan, channels, seed=0):
  rng = np.random.default_rng(seed)
  x = plan.features(jnp.zeros((2, plan.spec.num_weights)))
  return jax.tree.map(
    lambda a: rng.standard_normal((*a.shape[:-1], a.shape[-1] * channels)), x
  )


LAYERS = {
  "np": lambda plan: nfn_linear.NPLinear(plan, 2),
  "npio": lambda plan: nfn_linear.NPLinear(plan, 2, io_embed=True),
  "hnp": lambda plan: nfn_linear.HNPLinear(plan, 2),
  "pt": lambda plan: feature_layers.Pointwise(plan, 2),
  "norm": lambda plan: feature_layers.SimpleNorm(),
  "positions": lambda plan: feature_layers.LearnedPositions(plan),
}


@pytest.mark.parametrize(
  "spec",
  [NETS["l2/mlp"], pytest.param(FLAT, marks=pytest.mark.slow)],
  ids=["l2", "flat"],
)
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_are_equivariant(kind, spec):
  """Editing: permuted networks give permuted outputs, in float64."""
  with jax.enable_x64(True):
    plan = layout(spec)
    module = LAYERS[kind](plan)
    x = given_like(plan, 2)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    rng = np.random.default_rng(1)
    values = jax.tree.map(
      lambda s: jnp.asarray(rng.standard_normal(s.shape)), shapes
    )

    @jax.jit
    def apply(flat):
      x = [plan.features(flat[..., c]) for c in range(2)]
      x = jax.tree.map(interleaved, *x)
      return plan.flat(module.apply(values, x))

    flat = plan.flat(jax.tree.map(jnp.asarray, x))
    out = apply(flat)
    index = drawn(symmetry.draw_permutation, spec, rng)
    np.testing.assert_allclose(apply(flat[:, index]), out[:, index], atol=1e-10)
    index = drawn(symmetry.draw_uncoupled, spec, rng)
    change = np.abs(apply(flat[:, index]) - out[:, index]).max()
    if kind in ("pt", "norm", "positions"):  # They see entries one by one.
      assert change < 1e-10
    else:
      assert change > 1e-3


def interleaved(first, second):
  """Joins two channels, the channel outside the places."""
  return jnp.concatenate([first, second], axis=-1)


@pytest.mark.parametrize(
  ("kind", "complete", "widths", "rank"),
  [
    ("np", True, (3, 4, 3), 32),
    pytest.param("np", True, (2, 3, 3, 2), 62, marks=pytest.mark.slow),
    ("hnp", True, (3, 4, 3), 149),
    ("hnp", False, (3, 4, 3), 146),
    pytest.param("hnp", True, (2, 3, 3, 2), 114, marks=pytest.mark.slow),
    pytest.param("hnp", False, (2, 3, 3, 2), 112, marks=pytest.mark.slow),
  ],
)
def test_layers_span_all_equivariant_maps(kind, complete, widths, rank):
  """The rank of the layer as a map from parameters to linear maps."""
  spec = families.mlp(widths)
  with jax.enable_x64(True):
    plan = layout(spec)
    if kind == "np":
      module = nfn_linear.NPLinear(plan, 1)
    else:
      module = nfn_linear.HNPLinear(plan, 1, complete)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((spec.num_weights,) * 2)
    shapes = jax.eval_shape(
      module.init, jax.random.key(0), plan.features(jnp.asarray(rows))
    )
    values = jax.tree.map(lambda s: np.zeros(s.shape), shapes)

    def apply(values):
      return plan.flat(module.apply(values, plan.features(jnp.asarray(rows))))

    slopes = jax.jit(jax.jacrev(apply), compiler_options=FAST)(values)
    kernels = [
      slope.reshape(spec.num_weights**2, -1)
      for path, slope in jax.tree_util.tree_leaves_with_path(slopes)
      if path[-1].key == "kernel"
    ]
    assert np.linalg.matrix_rank(np.concatenate(kernels, axis=1)) == rank


@pytest.mark.slow
def test_initial_values_are_scaled_jointly():
  plan = layout(SIREN)
  x = plan.features(jnp.zeros((1, SIREN.num_weights)))
  found = nfn_linear.HNPLinear(plan, 64).init(jax.random.key(0), x)["params"]
  joint = sum(
    found[n]["kernel"].shape[0]
    for n in ("layer_1", "layer_1_rc", "layer_1_r", "layer_1_c")
  )
  for name, fan_in in {
    "layer_1_r": joint,
    "layer_1_c": joint,
    "w0_rpt": found["w0_rpt"]["kernel"].shape[0],
    "bias_fin_rc": found["bias_fin_rc"]["kernel"].shape[0],
    "wfin_cpt": sum(
      found[n]["kernel"].shape[0] for n in ("wfin_cpt", "wfin_cbdcst")
    ),
  }.items():
    top = np.abs(found[name]["kernel"]).max() * fan_in**0.5
    assert 0.9 < top <= 1, name


@pytest.mark.slow
def test_encodings_of_inputs():
  """Shapes, one output neuron, a conv last layer, and the symmetry."""
  for spec in (SIREN, FLAT):
    plan = layout(spec)
    rows = np.random.default_rng(0).standard_normal((2, spec.num_weights))
    x = plan.features(jnp.asarray(rows, jnp.float32))
    places = [layer.places for layer in plan.layers]
    table = feature_layers.frequencies(4, 3.0)
    found = feature_layers.fourier(plan, x, table)
    assert [w.shape[-1] for w in found.weights] == [8 * k for k in places]
    found = feature_layers.io_sinusoidal(plan, x, bands=3)
    assert [w.shape[-1] for w in found.weights] == [8 * k for k in places]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    hidden = features.unfold(found.weights[1], places[1])[..., 1:, :]
    is_last = len(plan) == 2
    assert bool(hidden.any()) == is_last


def test_what_cannot_be_read_is_said():
  plain = families.mlp((3, 2))
  resnet = families.resnet((1, 4, 4), (2,), num_classes=2)
  no_bias = families.mlp((3, 4, 2), bias=False)
  for kind, spec, words in (
    ("nfn_hnp", plain, "no hidden layer"),
    ("nfn_np", resnet, "residual"),
    ("nfn_np", no_bias, "no bias"),
  ):
    with pytest.raises(ValueError, match=words) as error:
      nfn.layout_of(kind, nfn.NFNOptions(), spec)
    for part in (kind, spec.describe(), "stat_pool"):
      assert part in str(error.value)
  options = nfn.NFNOptions(pool="np")
  nfn.layout_of("nfn_np", options, plain)


def drawn(draw, spec, rng):
  """Draws an index that moves something."""
  index = draw(spec, rng)
  while (index == np.arange(len(index))).all():
    index = draw(spec, rng)
  return index
