"""What every encoder of the table must hold, in float64 and to 1e-10."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from sne_jax.encoders import interface, table
from sne_jax.networks import families, symmetry

FAST = {"xla_backend_optimization_level": "0"}
INR = families.inr((2, 4, 3, 1))
DEEP = families.mlp((3, 5, 2, 4, 2), "tanh")
CNN = families.cnn((1, 6, 6), (3, 2), 2, num_classes=3)
FLAT = families.cnn(
  (1, 5, 5), (3,), 2, dense=(4,), num_classes=2, head="flatten"
)
RESNET = families.resnet((1, 4, 4), (2, 3), num_classes=2)
VIT = families.transformer(
  (1, 4, 4), 2, dim=4, depth=1, heads=2, hidden=3, num_classes=2
)
MIXED = (INR, FLAT, RESNET, VIT)
ANY = tuple(
  name
  for name, row in table.ENCODERS.items()
  if row.accepts == "any" and not row.needs
)
RUNS = tuple(  # Whatever can be run.
  name
  for name, row in table.ENCODERS.items()
  if row.accepts == "any" and row.needs
)
OURS = tuple(name for name in (*ANY, *RUNS) if name != "sne")  # Has its own.
TIED = tuple(n for n, row in table.ENCODERS.items() if row.accepts == "one")
SMALL = {"heads": 2, "layers": 2, "blocks": 1, "inducing": 3, "halo": 4}
"""The largest value of an option of that last word; of all others, 8."""


def tiny(name, **changes):
  """Options of an encoder: no number above what is small."""
  cls = table.row(name).options
  small = {
    field.name: min(field.default, SMALL.get(field.name.split("_")[-1], 8))
    for field in dataclasses.fields(cls)
    if field.type is int
  }
  return cls(**(small | changes))


def is_blind(name):
  """Whether it cannot see what is shuffled within a tensor."""
  return "blind" in table.row(name).symmetry


def closeness(codes):
  """How near equal codes are; some encoders compute in float32 alone."""
  return 3e-6 if codes.dtype == np.float32 else 1e-10


def networks_of(specs, seed=0):
  rng = np.random.default_rng(seed)
  return [(s, families.random_weights(s, rng)) for s in specs]


class Built:
  """An encoder of random parameters, in float64."""

  def __init__(self, name, specs, rule="neuron", **changes):
    options = tiny(name, **changes)
    measured = table.measure(name, options, networks_of(specs * 3, 7))
    measured = json.loads(json.dumps(measured))
    chunks = {"chunk_size": 32, "linear_rule": rule, "conv_rule": rule}
    encoder = table.build(name, vars(options), chunks, measured)
    self.module, self.packer = encoder.module, encoder.make_packer(specs)
    self.num_traces = 0
    self._jitted = jax.jit(self._apply, compiler_options=FAST)
    self.params = None

  def _apply(self, params, batch):
    self.num_traces += 1
    return self.module.apply(params, batch, True)

  def pack(self, networks, sizes=None):
    numbers = [self.packer.specs.index(s) for s, _ in networks]
    batch = self.packer.pack(numbers, [w for _, w in networks], sizes)
    return batch._replace(weights=batch.weights.astype(np.float64))

  def __call__(self, networks, sizes=None):
    batch = self.pack(networks, sizes)
    if self.params is None:
      shapes = jax.eval_shape(self.module.init, jax.random.key(0), batch)
      self.params = drawn(shapes)
    return np.asarray(self._jitted(self.params, batch))


def drawn(shapes):
  """Draws parameters of given shapes in float64; none are zero."""
  rng = np.random.default_rng(0)

  def draw(path, x):
    noise = rng.standard_normal(x.shape)
    if x.ndim > 1:
      return noise * x.shape[0] ** -0.5
    return 1.0 * (path[-1].key == "scale") + 0.3 * noise

  return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


def moved(networks, draw, seed=0):
  rng = np.random.default_rng(seed)
  return [(s, w[draw(s, rng)]) for s, w in networks]


def architecture_for(name):
  """Returns an architecture that an encoder reads."""
  for spec in (CNN, FLAT, INR):
    try:
      table.measure(name, tiny(name), networks_of((spec,) * 2))
    except ValueError:
      continue
    return spec
  raise AssertionError(f"{name} reads none of the architectures of this test")


def accepted():
  """Every encoder with the architectures that it is tried on."""
  for name in TIED:
    yield pytest.param(name, (architecture_for(name),), id=name)
  for name in OURS:
    yield pytest.param(name, MIXED, id=name)


def test_every_row_says_what_it_reads():
  assert set(ANY) < set(table.ENCODERS)
  for name, row in table.ENCODERS.items():
    assert row.symmetry, name
  assert set(interface.any_architecture()) == set(ANY) - {"architecture"}


@pytest.mark.parametrize(("name", "specs"), list(accepted()))
def test_codes_keep_their_symmetry_and_company_does_not_matter(name, specs):
  encode = Built(name, specs)
  networks = networks_of(specs * 2)
  codes = encode(networks)
  assert np.ptp(codes, axis=0).max() > 1e-3
  size = np.abs(codes).max()
  permuted = encode(moved(networks, symmetry.draw_permutation))
  change = np.abs(permuted - codes).max() / size
  close = closeness(codes)
  if table.row(name).symmetry == "none":
    assert change > 1e-3
  else:
    assert change < close
  uncoupled = encode(moved(networks, symmetry.draw_input_shuffle))
  change = np.abs(uncoupled - codes).max() / size
  claim = (
    f"{name}: symmetry says {table.row(name).symmetry!r}; see Row.symmetry"
  )
  assert (change < close) if is_blind(name) else (change > 1e-4), claim
  turned = encode(networks[::-1])[::-1]
  np.testing.assert_allclose(turned, codes, atol=close * size)
  for network, code in zip(networks[:2], codes, strict=False):
    np.testing.assert_allclose(encode([network])[0], code, atol=close * size)


ONE_OUTPUT = (INR, families.mlp((3, 4, 1), "tanh"))
VARIANTS = (
  ("nfn_np", (FLAT,), {"fourier": 3}),
  ("nfn_np", (FLAT,), {"positions": "sinusoidal", "pool": "np"}),
  ("nfn_hnp", (FLAT,), {"positions": "learned", "fourier": 3}),
  ("nfn_hnp", (INR,), {"normalise": "none", "complete": False}),
  ("nft", (INR,), {"normalise": "none"}),
  ("dws", (INR,), {"set_layer": "sab", "heads": 2}),
  ("dws", (INR,), {"reduction": "sum", "diagonal": True}),
  ("neural_graph", MIXED, {"reverse": False, "fourier": 3}),
  ("neural_graph", ONE_OUTPUT, {"readout": "last", "norm": "none"}),
  ("neural_graph_transformer", ONE_OUTPUT, {"readout": "last"}),
  ("gmn", MIXED, {"undirected": True, "readout": "both", "fourier": True}),
  ("gmn", MIXED, {"readout": "tensors", "norms": True, "aggregation": "sum"}),
)


@pytest.mark.parametrize(
  ("name", "specs", "changes"),
  [
    pytest.param(
      *v,
      id=f"{v[0]}-{'-'.join(map(str, v[2].values()))}",
      marks=() if n % 3 == 0 else pytest.mark.slow,
    )
    for n, v in enumerate(VARIANTS)
  ],
)
def test_every_option_keeps_the_symmetry(name, specs, changes):
  encode = Built(name, specs, **changes)
  networks = networks_of(specs * 2)
  codes = encode(networks)
  size = np.abs(codes).max()
  assert np.ptp(codes, axis=0).max() > 1e-3 * size
  permuted = encode(moved(networks, symmetry.draw_permutation))
  np.testing.assert_allclose(permuted, codes, atol=1e-10 * size)
  shuffled = encode(moved(networks, symmetry.draw_input_shuffle))
  if not is_blind(name):
    assert np.abs(shuffled - codes).max() > 1e-6 * size


@pytest.mark.parametrize(
  "name",
  [
    "nfn_np",
    *(pytest.param(n, marks=pytest.mark.slow) for n in ("nft", "dws")),
  ],
)
def test_normalised_by_element_networks_are_not_invariant(name):
  """As in the authors' code: a mean for every weight sees its place."""
  specs = (INR,)
  encode = Built(name, specs, normalise="element")
  networks = networks_of(specs * 2)
  codes = encode(networks)
  permuted = encode(moved(networks, symmetry.draw_permutation))
  assert np.abs(permuted - codes).max() > 1e-6 * np.abs(codes).max()


@pytest.mark.parametrize("name", OURS)
def test_padding_does_not_matter(name):
  specs = (INR, CNN)
  encode = Built(name, specs)
  networks = networks_of(specs)
  codes = encode(networks)
  room = encode.packer.reserve(np.array([0, 1] * 4), 16, copies=2)
  padded = encode.pack(networks, room)
  assert padded.room > 4 * encode.pack(networks).room
  padded = encode(networks, room)
  np.testing.assert_allclose(padded, codes, atol=closeness(codes))


@pytest.mark.parametrize("name", OURS)
def test_random_batches_of_a_mixed_zoo_have_few_shapes(name):
  encode = Built(name, MIXED)
  numbers = np.arange(60) % len(MIXED)
  room = encode.packer.reserve(numbers, 24)
  rng = np.random.default_rng(0)
  shapes = set()
  for _ in range(20):
    batch = encode.packer.template(np.sort(rng.choice(numbers, 24)), room)
    shapes.add(str(jax.tree.map(np.shape, batch)))
  assert len(shapes) <= 4


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in table.ENCODERS if n != "sne"])
def test_gradients_are_finite(name):
  specs = (architecture_for(name),)
  encode = Built(name, specs)
  batch = encode.pack(networks_of(specs * 2))
  zeros = batch._replace(weights=np.zeros_like(batch.weights))
  codes = encode(networks_of(specs))

  def loss(params, weights):
    codes = encode.module.apply(params, batch._replace(weights=weights), True)
    return (codes**2).sum()

  slope = jax.jit(jax.grad(loss, argnums=(0, 1)), compiler_options=FAST)
  for weights in (batch.weights, zeros.weights):
    for leaf in jax.tree.leaves(slope(encode.params, weights)):
      assert np.isfinite(leaf).all()
  # Forward mode gives the same derivative as reverse mode.
  direction = np.random.default_rng(0).standard_normal(batch.weights.shape)
  forward = jax.jit(
    lambda params, w, t: jax.jvp(lambda w: loss(params, w), (w,), (t,))[1],
    compiler_options=FAST,
  )
  backward = slope(encode.params, batch.weights)[1] @ direction
  close = 1e-3 if codes.dtype == np.float32 else 1e-8
  np.testing.assert_allclose(
    forward(encode.params, batch.weights, direction),
    backward,
    rtol=close,
    atol=close,
  )


@pytest.mark.parametrize("name", TIED)
def test_a_tied_encoder_refuses_other_architectures(name):
  options = tiny(name)
  spec, other = architecture_for(name), families.inr((2, 5, 3, 1))
  assert other != spec
  with pytest.raises(ValueError, match="one architecture") as error:
    table.measure(name, options, networks_of((spec, other)))
  says_all(str(error.value), name, spec, other)
  measured = table.measure(name, options, networks_of((spec,) * 2))
  encoder = table.build(name, vars(options), {}, measured)
  with pytest.raises(ValueError, match="one architecture") as error:
    encoder.make_packer((spec, other))
  says_all(str(error.value), name, spec, other)
  foreign = [
    dataclasses.replace(t, name=f"a.{t.name}", of=t.of and f"a.{t.of}")
    for t in spec.tensors
  ]
  foreign = dataclasses.replace(spec, family="unknown", tensors=tuple(foreign))
  encoder.make_packer((spec, foreign))  # Only names are others.
  with pytest.raises(ValueError, match="got weights of shape"):
    encoder.make_packer((spec,)).pack([0], [np.zeros(3, np.float32)])
  with pytest.raises(ValueError, match="equally many"):
    encoder.make_packer((spec,)).templates([[0], [0, 0]])


NO_HIDDEN = families.mlp((3, 2))
REFUSED = ("nfn_np", "nfn_hnp", "dws")  # The first by its default pooling.


@pytest.mark.parametrize("name", [n for n in table.ENCODERS if n != "sne"])
def test_a_network_without_hidden_layer_is_encoded_or_refused(name):
  options = tiny(name)
  networks = networks_of((NO_HIDDEN,) * 2)
  try:
    measured = table.measure(name, options, networks)
  except ValueError as error:
    says_all(str(error), name, NO_HIDDEN, "no hidden layer")
    assert table.row(name).needs
    return
  assert name not in REFUSED
  encoder = table.build(name, vars(options), {}, measured)
  batch = encoder.make_packer((NO_HIDDEN,)).pack([0, 0], [networks[0][1]] * 2)
  codes, _ = jax.eval_shape(
    encoder.module.init_with_output, jax.random.key(0), batch
  )
  assert codes.shape == (2, 8)


@pytest.mark.parametrize("name", TIED)
def test_what_a_tied_encoder_cannot_read_is_said(name):
  """A residual network, for those that need a chain of layers."""
  options = tiny(name)
  networks = networks_of((RESNET,) * 2)
  if not table.row(name).needs:
    assert table.measure(name, options, networks)
    return
  with pytest.raises(ValueError, match="residual connections") as error:
    table.measure(name, options, networks)
  says_all(str(error.value), name, RESNET)


def says_all(text, name, *specs):
  """An error names the encoder, the specs, and what would work."""
  assert "\n" not in text
  said = (s if isinstance(s, str) else s.describe() for s in specs)
  for words in (name, *said, *interface.any_architecture()):
    assert words in text


WRONG = {"least": -1, "most": 1, "above": 0, "below": 0}
"""What is added to a bound of a field, for a value that is not allowed."""


@pytest.mark.parametrize("name", table.ENCODERS)
def test_wrong_options_are_named(name):
  cls = table.row(name).options
  for field in dataclasses.fields(cls):
    wrong = ["other"] if field.metadata.get("choices") else []
    for bound, value in field.metadata.get("bounds", {}).items():
      wrong.append(field.type(value + WRONG[bound]))
    for value in wrong:
      with pytest.raises(ValueError, match=f"^{field.name} is {value!r}"):
        cls(**{field.name: value})


@pytest.mark.parametrize("name", ["sne", "nfn_np", "neural_graph"])
def test_training_networks_must_be_there_and_finite(name):
  options = tiny(name)
  with pytest.raises(ValueError, match=f"{name} has no training networks"):
    table.measure(name, options, [])
  networks = networks_of((FLAT,) * 3)
  networks[1][1][4] = np.inf
  with pytest.raises(ValueError, match="training network 1 .* not finite"):
    table.measure(name, options, networks)


@pytest.mark.slow
def test_tiles_of_networks_change_nothing():
  networks = networks_of(MIXED) * 2
  whole = Built("set_transformer", MIXED)
  tiled = Built("set_transformer", MIXED, tile=2)
  code = whole(networks)
  tiled.params = whole.params
  np.testing.assert_allclose(tiled(networks), code, rtol=1e-10)


@pytest.mark.parametrize(
  ("name", "rule"),
  [
    *((name, "neuron") for name in OURS),
    pytest.param("sne", "neuron", marks=pytest.mark.slow),
    ("sne", "flat"),
  ],
)
def test_a_network_that_is_not_finite_spoils_no_other(name, rule):
  networks = networks_of(MIXED)
  built = Built(name, MIXED, rule)
  code = built(networks)
  spoilt = [(s, w.copy()) for s, w in networks]
  spoilt[0][1][0] = np.nan
  found = built(spoilt)
  np.testing.assert_allclose(found[1:], code[1:], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["neural_graph", "neural_graph_transformer"])
def test_a_code_of_output_nodes_needs_equally_many(name):
  own, other = families.mlp((2, 3, 2)), families.mlp((2, 3, 5))
  options = tiny(name, readout="last")
  measured = table.measure(name, options, networks_of((own,) * 3))
  encoder = table.build(name, vars(options), {}, measured)
  encoder.make_packer((own,))
  with pytest.raises(ValueError, match="2 outputs, but .* has 5"):
    encoder.make_packer((own, other))
