"""Tokens of whole tensors: their numbers, what moves them and what does not."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders import table
from sne_jax.encoders.baselines import statistics
from sne_jax.encoders.sne import slots, streaming, tensor_tokens
from sne_jax.encoders.sne.options import SNEOptions
from sne_jax.networks import chunking, families, symmetry
from sne_jax.networks.spec import NetworkSpec, TensorSpec, plain_axis

FAST = {"xla_backend_optimization_level": "0"}
SPECS = (
  families.inr((2, 4, 3, 1)),
  families.cnn((1, 5, 5), (3,), 2, dense=(4,), num_classes=2, head="flatten"),
  families.resnet((1, 4, 4), (2, 3), num_classes=2),
  families.transformer(
    (1, 4, 4), 2, dim=4, depth=1, heads=2, hidden=3, num_classes=2
  ),
  # Without any matrix.
  NetworkSpec(
    "unknown",
    (TensorSpec("b", "linear_bias", (3,), 0, (plain_axis(3),)),),
  ),
)
BOTH = {"statistics_tokens": True, "gram_tokens": True}
CHUNKS = chunking.ChunkOptions(
  chunk_size=96, linear_rule="neuron", conv_rule="neuron"
)


def options(**changes):
  return SNEOptions(width=8, heads=2, identifier_dim=4, **changes)


def networks_of(specs=SPECS):
  rng = np.random.default_rng(0)
  return [
    (s, 0.3 + 0.5 * rng.standard_normal(s.num_weights).astype(np.float32))
    for s in specs
  ]


def matrices(spec):
  """The tensors that map an axis to another."""
  return [t for t in spec.tensors if t.kind in tensor_tokens.WEIGHT_KINDS]


def moved(networks, draw):
  rng = np.random.default_rng(1)
  return [(s, w[draw(s, rng)] if s.groups else w) for s, w in networks]


class Tokens:
  """The tokens of networks, in float64, by the options and parameters."""

  def __init__(self, **changes):
    self.options = options(**changes)
    self.packer = slots.packer(SPECS, self.options, CHUNKS)
    self.module = tensor_tokens.TensorTokens(self.options)
    self.params = None
    self._jitted = jax.jit(self._apply, compiler_options=FAST)

  def _apply(self, params, batch):
    scaling = slots.Scaling(self.options, 0.7, ())
    return self.module.apply(params, batch, *slots.scaled(batch, scaling))

  def pack(self, networks, sizes=None):
    numbers = [SPECS.index(s) for s, _ in networks]
    batch = self.packer.pack(numbers, [w for _, w in networks], sizes)
    return batch._replace(weights=batch.weights.astype(np.float64))

  def __call__(self, networks, sizes=None):
    """Returns `[tokens, seeds, h]` of every network."""
    batch = self.pack(networks, sizes)
    if self.params is None:
      shapes = jax.eval_shape(
        self.module.init, jax.random.key(0), batch, batch.weights, None
      )
      rng = np.random.default_rng(0)
      self.params = jax.tree.map(
        lambda x: 0.5 * rng.standard_normal(x.shape), shapes
      )
    codes = np.asarray(self._jitted(self.params, batch))
    parts = [
      np.repeat(np.arange(len(networks)), [len(f(s)) for s, _ in networks])
      for f in (lambda spec: spec.tensors, matrices)
    ]
    rooms = [len(batch.tables[n]["real"]) for n in ("tensors", "matrices")]
    owner = np.concatenate(
      [
        np.pad(part, (0, room - len(part)), constant_values=-1)
        for part, room in zip(parts, rooms, strict=True)
      ]
    )
    return [codes[owner == n] for n in range(len(networks))]


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


@pytest.fixture(scope="module")
def tokens():
  """Both kinds of tokens, scaled in one way; compiled once for a batch."""
  return Tokens(**BOTH, layer_seeds=2)


def room(tokens):
  """Sizes of a batch that all batches of five networks fit in."""
  return tokens.packer.sizes([(n,) * len(SPECS) for n in range(len(SPECS))])


def far(one, other):
  """Largest difference between the tokens of two networks."""
  return np.abs(one - other).max()


def test_there_is_a_token_for_every_tensor_and_for_every_matrix(tokens):
  for (spec, _), codes in zip(
    networks_of(), tokens(networks_of(), room(tokens)), strict=True
  ):
    assert codes.shape == (len(spec.tensors) + len(matrices(spec)), 2, 8)
    np.testing.assert_array_equal(codes[:, 0], codes[:, 1])  # Seeds.


def test_statistics_are_those_of_each_tensor(tokens):
  """And so are their derivatives, by the weights of the first network."""
  networks = networks_of()
  batch = tokens.pack(networks, room(tokens))
  spec, first = networks[0][0], networks[0][1].astype(np.float64)
  slopes = np.random.default_rng(2).standard_normal((len(spec.tensors), 7))

  def found(weights):
    table = statistics.of_batch(jax.tree.map(jnp.asarray, batch), weights)
    return (slopes * table[: len(slopes)]).sum(), table

  def expected(weights):
    table = statistics.tensor_statistics(spec, weights, xp=jnp)
    return (slopes * table.reshape(-1, 7)).sum()

  jitted = jax.jit(jax.grad(found, has_aux=True), compiler_options=FAST)
  slope, table = jitted(batch.weights)
  close = {"rtol": 1e-12, "atol": 1e-12}
  np.testing.assert_allclose(
    table[batch.tables["tensors"]["real"]],
    np.concatenate(
      [
        statistics.tensor_statistics(s, w.astype(np.float64)).reshape(-1, 7)
        for s, w in networks
      ]
    ),
    **close,
  )
  wanted = jax.jit(jax.grad(expected), compiler_options=FAST)(first)
  np.testing.assert_allclose(slope[: len(first)], wanted, **close)
  assert not slope[len(first) :].any()


def by_hand(params, matrix):
  """Features of one matrix `[O, ...]`, with its Gram matrices written out."""
  x = matrix.reshape(len(matrix), -1).astype(np.float64)
  size = np.sqrt((x**2).mean() + 1e-12)
  x = x / size
  dense = lambda name, y: y @ params[name]["kernel"] + params[name]["bias"]
  gelu = lambda y: np.asarray(jax.nn.gelu(y))
  moments = {}
  for side, lines in enumerate((x, x.T)):
    second = (lines**2).mean(1)
    root = np.sqrt(second + 1e-6)
    fourth = (lines**4).mean(1)
    moments[side] = np.stack(
      [
        *(lines.mean(1) / root, abs(lines).mean(1) / root, np.log(root)),
        np.log(fourth + 1e-12) - 2 * np.log(second + 1e-6),
        *np.full((2, len(lines)), [[1.0 - side], [side]]),
      ],
      axis=1,
    )
  u, v = (
    np.concatenate(
      [np.ones((len(m), 1)), dense("u", gelu(dense("u_0", m)))], axis=1
    )
    for m in moments.values()
  )
  (rows, columns), root = x.shape, np.sqrt(x.size)
  of_sides = (
    (moments[0], u, x @ v / np.sqrt(columns), x @ x.T @ u / root),
    (moments[1], v, x.T @ u / np.sqrt(rows), x.T @ x @ v / root),
  )
  features = []
  for first, *products in of_sides:
    squares = [(p**2).mean(0) + 1e-6 for p in products]
    parts = [p / np.sqrt(s) for p, s in zip(products, squares, strict=True)]
    y = dense("line", np.concatenate([first, *parts], axis=1))
    y = dense("line_out", gelu(y))
    share = np.exp(4 * np.tanh(dense("score", y) / 4))
    share = share / share.sum(0)
    pooled = (np.repeat(share, y.shape[1] // share.shape[1], axis=1) * y).sum(0)
    features += [y.mean(0), pooled, *(np.log(s) / 2 for s in squares)]
  return np.concatenate([*features, [np.log(size)]])


def test_gram_features_are_those_of_gram_matrices(tokens):
  networks = networks_of()
  tokens(networks, room(tokens))
  batch = tokens.pack(networks, room(tokens))
  params = tokens.params["params"]["grams"]
  module = tensor_tokens.GramFeatures()
  apply = jax.jit(module.apply, compiler_options=FAST)
  found = np.asarray(apply({"params": params}, batch))
  expected = [
    by_hand(params, spec.unflatten(weights)[tensor.name])
    for spec, weights in networks
    for tensor in matrices(spec)
  ]
  found = found[batch.tables["matrices"]["real"]]
  np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


def swap_in_the_first_row(spec, rng):
  """Exchanges two entries of a row of every matrix: not a symmetry."""
  index = np.arange(spec.num_weights)
  for tensor, start in zip(spec.tensors, spec.offsets, strict=True):
    if len(tensor.shape) > 1 and tensor.size > tensor.shape[0]:
      index[start : start + 2] = start + 1, start
  return index


def test_tokens_are_exactly_invariant_and_see_their_tensors(tokens):
  networks, sizes = networks_of(), room(tokens)
  plain = tokens(networks, sizes)
  for draw in (symmetry.draw_permutation, symmetry.draw_uncoupled):
    # Another pairing of layers is for the tokens of chunks to see.
    for one, other in zip(
      tokens(moved(networks, draw), sizes), plain, strict=True
    ):
      assert far(one, other) < 1e-10
  swapped = tokens(moved(networks, swap_in_the_first_row), sizes)
  for (spec, _), one, other in zip(networks, swapped, plain, strict=True):
    count = len(spec.tensors)  # First come the statistics, which see none.
    assert far(one[:count], other[:count]) < 1e-10
    if len(one) > count:
      assert far(one[count:], other[count:]) > 1e-4
  larger = tokens([(s, 1.01 * w) for s, w in networks], sizes)
  for (spec, _), one, other in zip(networks, larger, plain, strict=True):
    count = len(spec.tensors)
    assert far(one[:count], other[:count]) > 1e-4
    if len(one) > count:
      assert far(one[count:], other[count:]) > 1e-4


def test_neither_padding_nor_batch_mates_nor_their_numbers_matter(tokens):
  networks, sizes = networks_of(), room(tokens)
  plain = tokens(networks, sizes)
  turned = tokens(networks[::-1], sizes)[::-1]
  spoilt = [(s, w.copy()) for s, w in networks]
  spoilt[0][1][-1] = np.nan
  spoilt[3][1][0] = np.inf
  spoilt = tokens(spoilt, sizes)
  for n, (network, codes) in enumerate(zip(networks, plain, strict=True)):
    alone = tokens([network] * len(SPECS), sizes)
    for other in (turned[n], alone[0], alone[-1]):
      np.testing.assert_allclose(other, codes, rtol=1e-10, atol=1e-10)
    if n not in (0, 3):
      np.testing.assert_allclose(spoilt[n], codes, rtol=1e-10, atol=1e-10)
  bare = Tokens(**BOTH)
  assert bare(networks[4:])[0].shape == (1, 1, 8)  # No matrix in the batch.


def test_gradients_are_finite_where_weights_are_zero(tokens):
  networks = [(s, np.zeros_like(w)) for s, w in networks_of()]
  batch = tokens.pack(networks, room(tokens))
  tokens(networks_of(), room(tokens))

  def loss(params, weights):
    moved = jax.tree.map(jnp.asarray, batch._replace(weights=weights))
    return (tokens._apply(params, moved) ** 2).sum()

  slopes = jax.jit(jax.grad(loss, argnums=(0, 1)), compiler_options=FAST)
  for leaf in jax.tree.leaves(slopes(tokens.params, batch.weights)):
    assert np.isfinite(leaf).all()


def test_the_code_has_more_in_it_and_stays_invariant(make_encoder):
  with jax.enable_x64(False):
    tiny = {"width": 8, "heads": 2, "identifier_dim": 4, "layer_blocks": 0}
    tiny |= {"network_blocks": 0, "weight_scale": "tensor"}
    networks = networks_of(SPECS[:2])
    encoder = make_encoder(SPECS[:2], CHUNKS, **tiny, **BOTH)
    codes = encoder(*networks)
    permuted = encoder(*moved(networks, symmetry.draw_permutation))
    np.testing.assert_allclose(permuted, codes, atol=5e-5)
    own = encoder.params["params"]
    assert own["tensors"].keys() == {"statistics", "grams", "gram"}
    for name, less in (("statistics", "gram"), ("gram", "statistics")):
      mute = jax.tree.map(np.zeros_like, own["tensors"][less])
      encoder.params = {
        "params": own | {"tensors": own["tensors"] | {less: mute}}
      }
      assert far(encoder(*networks), codes) > 1e-3, name


@pytest.mark.parametrize("name", list(BOTH))
def test_large_networks_are_not_read_in_parts(name):
  chosen = options(**{name: True})
  with pytest.raises(ValueError, match=r"^statistics_tokens and gram_tokens "):
    streaming.make_encode_fn(chosen, CHUNKS)
  measured = table.measure("sne", chosen, networks_of())
  measured = json.loads(json.dumps(measured))
  built = table.build("sne", vars(chosen), vars(CHUNKS), measured)
  assert built.make_large_fn is None
