"""Set functions: parity, symmetry, masks, counts, precision."""

import dataclasses
import functools
import json
import pathlib

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from sne_jax.encoders import tiling
from sne_jax.encoders.sets import attention, stacks
from tests.encoders import parity

FIXTURE = pathlib.Path(__file__).parents[2] / "fixtures" / "set_transformer.npz"
ATOL = 2e-5  # float32, other order of summation
SMALL = functools.partial(stacks.SetOptions, width=16, heads=4)
KEY = jax.random.key(0)
ORDER = np.random.default_rng(0).permutation(7)

# Small programs spend their time in the compiler: ask for little of it.
compiled = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)

STYLES = {
  "coded": SMALL(),
  "coded_bare": SMALL(norm="none"),
  "coded_pre": SMALL(norm="pre"),
  "published": SMALL(form="published", activation="gelu"),
  "published_pre": SMALL(form="published", norm="pre"),
}
EQUIVARIANT = {
  "sab": stacks.SAB,
  "isab": lambda o: stacks.ISAB(o, 3),
  "block": stacks.DeepSetsBlock,
  "none": lambda o: stacks.SetBlocks(o, "none"),
}
INVARIANT = {
  "pma": stacks.PMA,
  "pma_3": lambda o: stacks.SetPool(o, num_seeds=3),
  "deepsets": stacks.DeepSets,
  "mean": lambda o: stacks.SetPool(o, "mean"),
}
# After its mean, what an empty set gives is a bias, not zero.
EMPTY_IS_NOT_ZERO = (stacks.DeepSets,)

SYMMETRIES = [  # module, style, width of the input
  ("sab", "coded", 1),
  pytest.param("sab", "coded_pre", 16, marks=pytest.mark.slow),
  pytest.param("sab", "published", 1, marks=pytest.mark.slow),
  pytest.param("isab", "coded_bare", 1, marks=pytest.mark.slow),
  pytest.param("isab", "published_pre", 5, marks=pytest.mark.slow),
  ("block", "published", 1),
  pytest.param("block", "coded_bare", 3, marks=pytest.mark.slow),
  ("none", "coded", 1),
  pytest.param("pma", "coded", 16, marks=pytest.mark.slow),
  ("pma", "published", 1),
  pytest.param("pma_3", "coded_pre", 16, marks=pytest.mark.slow),
  ("deepsets", "published", 1),
  ("mean", "coded", 3),
]


ALL = EQUIVARIANT | INVARIANT


def init(module, x, seed=1):
  """Random params, biases and norms too, so that none can be forgotten."""
  rng = np.random.default_rng(seed)

  def one(leaf):
    spread = leaf.shape[0] ** -0.5 if len(leaf.shape) == 2 else 0.5
    return jnp.asarray(rng.normal(0, spread, leaf.shape), leaf.dtype)

  return jax.tree.map(one, jax.eval_shape(module.init, KEY, x))


def draw(*shape, seed=2):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), jnp.float32)


def close(got, want):
  np.testing.assert_allclose(got, want, atol=ATOL, rtol=1e-4)


def torch_module(module, args):
  options = stacks.SetOptions(
    width=args.get("dim_V", args.get("dim_out", args.get("dim"))),
    heads=args["num_heads"],
    norm="post" if args["ln"] else "none",
  )
  return {
    "MAB": lambda: stacks.MAB(options),
    "SAB": lambda: stacks.SAB(options),
    "ISAB": lambda: stacks.ISAB(options, args.get("num_inds")),
    "PMA": lambda: stacks.PMA(options, args.get("num_seeds")),
  }[module]()


def cases():
  with np.load(FIXTURE, allow_pickle=False) as file:
    arrays = dict(file)
  return arrays, json.loads(str(arrays["meta"]))["cases"]


def state_of(arrays, case):
  start = f"{case}/param/"
  return {k[len(start) :]: v for k, v in arrays.items() if k.startswith(start)}


@pytest.mark.parametrize("case", sorted(cases()[1]))
def test_parity_with_the_authors_code(case):
  arrays, meta = cases()
  meta, calls = meta[case], meta[case]["calls"]
  params = parity.params_from_torch(state_of(arrays, case))
  inputs = {k: [arrays[name] for name in v] for k, v in calls.items()}

  def run(params, inputs):
    if not case.startswith("stack"):
      module = torch_module(meta["module"], meta["args"])
      return module.apply({"params": params}, *inputs)
    args = {"dim": 16, "num_heads": 4, "ln": meta["args"]["ln"], "num_seeds": 1}
    (x,) = inputs
    for place, kind in enumerate(("SAB", "SAB", "PMA")):
      module = torch_module(kind, args)
      x = module.apply({"params": params[str(place)]}, x)
    return x

  @compiled
  def run_all(params, inputs):
    return {call: run(params, arrays) for call, arrays in inputs.items()}

  for call, out in run_all(params, inputs).items():
    want = arrays[f"{case}/out/{call}"]
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5, err_msg=call)


@pytest.mark.parametrize("case", ["mab_ln", "sab_noln", "isab_ln", "pma2_noln"])
def test_parity_leaves_no_parameter_over(case):
  arrays, meta = cases()
  params = parity.params_from_torch(state_of(arrays, case))
  module = torch_module(meta[case]["module"], meta[case]["args"])
  inputs = [arrays[name] for name in next(iter(meta[case]["calls"].values()))]
  shapes = jax.eval_shape(module.init, KEY, *inputs)["params"]
  assert jax.tree.map(np.shape, params) == jax.tree.map(jnp.shape, shapes)


def test_parity_names_what_it_does_not_know():
  with pytest.raises(ValueError, match="fc_z.weight"):
    parity.params_from_torch({"mab.fc_z.weight": np.zeros((2, 2))})
  with pytest.raises(ValueError, match="running_mean"):
    parity.params_from_torch({"mab.running_mean": np.zeros(2)})


@pytest.mark.parametrize("norm, extra", [("none", 0), ("post", 4 * 64)])
def test_parameter_counts(norm, extra):
  h = 64
  o = stacks.SetOptions(width=h, norm=norm)

  def count(module, width):
    shapes = jax.eval_shape(module.init, KEY, jnp.zeros((5, width)))
    return sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))

  for i in (1, 3, h):
    want = 3 * (i * h + h) + h * h + h + extra
    assert count(stacks.SAB(o), i) == want
  assert count(stacks.PMA(o), h) == 4 * h * h + 5 * h + extra


@pytest.mark.slow
def test_the_published_form_by_hand():
  o = SMALL(form="published", norm="post", feed_forward=3)
  x, y = draw(4, 16), draw(5, 16, seed=3)
  params = init(stacks.MAB(o), x)
  p = params["params"]
  heads = []
  for a in range(4):
    part = slice(4 * a, 4 * a + 4)
    q = (x @ p["query_kernel"] + p["query_bias"][None])[:, part]
    k = (y @ p["key_kernel"] + p["key_bias"][None])[:, part]
    v = (y @ p["value_kernel"] + p["value_bias"][None])[:, part]
    heads.append(jax.nn.softmax(q @ k.T / 2.0, axis=-1) @ v)

  def dense(name, x):
    return x @ p[name]["kernel"] + p[name]["bias"][None]

  def norm(name, x):
    x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(
      x.var(-1, keepdims=True) + 1e-5
    )
    return x * p[name]["scale"][None] + p[name]["bias"][None]

  hid = norm("norm_0", x + dense("output", jnp.concatenate(heads, -1)))
  inner = jax.nn.relu(dense("feed_forward_0", hid))
  assert inner.shape == (4, 48)
  want = norm("norm_1", hid + dense("feed_forward_1", inner))
  got = stacks.MAB(o).apply(params, x, y)
  np.testing.assert_allclose(got, want, atol=ATOL, rtol=1e-4)


@pytest.mark.parametrize("has_mask", [False, True])
@pytest.mark.parametrize(
  "queries, keys, width", [(7, 7, 1), (7, 5, 3), (1, 6, 16), (9, 4, 16)]
)
def test_the_absorbed_form_is_the_same_function(queries, keys, width, has_mask):
  h = 16
  q, y = draw(2, queries, h), draw(2, keys, width, seed=3)
  wk, wv = draw(width, h, seed=4), draw(width, h, seed=5)
  bk, bv = draw(1, 1, h, seed=6), draw(h, seed=7)
  mask = np.arange(keys)[None] < np.array([keys - 1, 0])[:, None]
  mask = jnp.asarray(mask) if has_mask else None

  @compiled
  def both():
    k, v = y @ wk + bk, y @ wv + bv[None, None]
    plain = attention.attention(q, k, v, mask, heads=4, scale=0.25)
    return plain, attention.absorbed_attention(
      q, y, wk, wv, bv, mask, heads=4, scale=0.25
    )

  plain, absorbed = both()
  np.testing.assert_allclose(absorbed, plain, atol=ATOL, rtol=1e-4)
  if has_mask:
    assert not np.any(absorbed[1]) and not np.any(plain[1])


def test_absorbs_where_it_saves():
  assert attention.is_absorbed_cheaper(32, 32, 1, 4, 16)
  assert attention.is_absorbed_cheaper(1, 32, 64, 4, 16)
  assert not attention.is_absorbed_cheaper(32, 32, 64, 4, 16)


def test_softmax_gives_masked_places_exactly_nothing():
  logits = jnp.array([[1e4, 3e38, -2.0], [5.0, 6.0, 7.0]])
  mask = jnp.array([[True, False, True], [False, False, False]])
  weights = attention.masked_softmax(logits, mask, -1)
  np.testing.assert_array_equal(weights, [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])


@pytest.mark.parametrize("name, style, width", SYMMETRIES)
def test_symmetry_masks_and_gradients(name, style, width):
  """One compilation for all that a module promises about its sets."""
  module, base = ALL[name](STYLES[style]), draw(7, width)
  params = init(module, base)
  is_set = name in EQUIVARIANT
  counts = np.array([7, 7, 4, 4, 1, 0])
  x, mask = np.tile(base, (6, 1, 1)), np.arange(7)[None] < counts[:, None]
  for place in (1, 3):  # the sets 1 and 3 are 0 and 2 in another order
    x[place], mask[place] = x[place][ORDER], mask[place][ORDER]

  @compiled
  @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
  def run(params, x, mask):
    out = module.apply(params, x, mask)
    return (out**2).sum(), out

  (_, out), grads = run(params, x, mask)
  assert out.shape == ((6, 7, 16) if is_set else (6, *out.shape[1:]))
  # Symmetry, and that the test can see an order at all.
  for place, other in ((0, 1), (2, 3)):
    if is_set:
      close(out[other], out[place][ORDER])
      assert np.abs(out[other] - out[place]).max() > 1e-2
    else:
      close(out[other], out[place])
  # What is masked never matters, comes out as zero, and has no gradient.
  for garbage in (1e9, np.nan, np.inf):
    (_, again), grads_again = run(
      params, np.where(mask[..., None], x, np.float32(garbage)), mask
    )
    np.testing.assert_array_equal(again, out)
    chex.assert_trees_all_equal(grads_again, grads)
  assert not np.any(np.where(mask[..., None], 0, grads[1]))
  if is_set:
    assert not np.any(np.where(mask[..., None], 0, out))
  # Sets of one and of no element.
  chex.assert_tree_all_finite((out, grads))
  if not isinstance(module, EMPTY_IS_NOT_ZERO):
    assert not np.any(out[5])
  assert np.abs(grads[1][:5]).max() > 1e-3
  # The same set without padding, and without a mask.
  alone = compiled(module.apply)(params, base[:4])
  close(out[2, :4] if is_set else out[2], alone)
  assert np.abs(out[0] - out[4]).max() > 1e-3


@pytest.mark.parametrize("name", ["sab", "isab", "pma", "mean"])
def test_leading_axes_equal_vmap(name):
  module = ALL[name](SMALL())
  x = draw(2, 3, 5, 1)
  mask = jnp.broadcast_to(jnp.arange(5) < 4, (2, 3, 5))
  params = init(module, x)
  each = jax.vmap(jax.vmap(functools.partial(module.apply, params)))
  one, other = compiled(
    lambda: (module.apply(params, x, mask), each(x, mask))
  )()
  close(one, other)


@pytest.mark.parametrize(
  "name, style",
  [
    ("sab", "coded"),
    pytest.param("isab", "published", marks=pytest.mark.slow),
    ("pma", "coded"),
    pytest.param("block", "coded", marks=pytest.mark.slow),
  ],
)
def test_bfloat16_is_close(name, style):
  full = STYLES[style]
  half = dataclasses.replace(full, dtype="bfloat16")
  full, half, x = ALL[name](full), ALL[name](half), draw(3, 8, 1)
  params = init(full, x)
  shapes = [jax.eval_shape(module.init, KEY, x) for module in (half, full)]
  chex.assert_trees_all_equal_shapes_and_dtypes(*shapes)
  want, got = compiled(lambda p, x: (full.apply(p, x), half.apply(p, x)))(
    params, x
  )
  assert got.dtype == jnp.bfloat16
  error = np.linalg.norm(got.astype(np.float32) - want)
  assert 0 < error < 0.03 * np.linalg.norm(want)


@pytest.mark.parametrize("name", ["sab", "pma", "deepsets"])
def test_dropout_only_in_training(name):
  module, still = ALL[name](SMALL(dropout=0.5)), ALL[name](SMALL())
  x = draw(4, 6, 1)
  params = init(module, x)

  @compiled
  def run(params, x, key):
    rngs = {"dropout": key}
    noisy = module.apply(params, x, deterministic=False, rngs=rngs)
    return noisy, module.apply(params, x), still.apply(params, x)

  noisy, out, want = run(params, x, jax.random.key(0))
  np.testing.assert_array_equal(out, want)
  np.testing.assert_array_equal(run(params, x, jax.random.key(0))[0], noisy)
  assert np.abs(run(params, x, jax.random.key(1))[0] - noisy).max() > 1e-3
  assert np.abs(noisy - out).max() > 1e-3


class Tiled(nn.Module):
  """A chunk encoder in small, its sets mapped in tiles."""

  tile: int
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, mask=None, deterministic=True):
    options = SMALL(dropout=self.dropout)
    for module in (
      stacks.SAB(options, name="sab"),
      stacks.PMA(options, name="pma"),
    ):
      x = tiling.in_tiles(module, (x, mask), deterministic, self.tile)
    return x


@pytest.mark.slow
def test_tiles_change_nothing():
  x = draw(10, 6, 1)  # ten sets in tiles of four: two are padding
  mask = np.arange(6) < np.arange(10)[:, None]
  params = init(Tiled(0), x)
  shapes = jax.eval_shape(Tiled(4).init, KEY, x)
  chex.assert_trees_all_equal_shapes(shapes, params)

  @functools.partial(compiled, static_argnums=0)
  @functools.partial(jax.value_and_grad, argnums=1, has_aux=True)
  def run(tile, params, mask):
    out = Tiled(tile).apply(params, x, mask)
    return (out**2).sum(), out

  (_, want), want_grads = run(0, params, mask)
  (_, out), grads = run(4, params, mask)
  assert out.shape == (10, 1, 16)
  close(out, want)
  chex.assert_trees_all_close(grads, want_grads, atol=1e-3, rtol=1e-3)
  unmasked = compiled(Tiled(4).apply)(params, x)
  close(unmasked, compiled(Tiled(0).apply)(params, x))


def test_tiles_drop_out_different_entries():
  x = jnp.broadcast_to(draw(1, 6, 1), (4, 6, 1))
  params = init(Tiled(0), x)
  rngs = {"dropout": jax.random.key(0)}
  out = compiled(
    lambda p: Tiled(2, 0.5).apply(p, x, None, deterministic=False, rngs=rngs)
  )(params)
  assert np.abs(out[:2] - out[2:]).max() > 1e-3


@pytest.mark.slow
def test_one_trace_per_shape():
  blocks, pool = (
    stacks.SetBlocks(SMALL(), "sab"),
    stacks.SetPool(SMALL(), "pma"),
  )
  params = init(blocks, draw(4, 1)), init(pool, draw(4, 16))

  @compiled
  @chex.assert_max_traces(n=2)
  def apply(params, x, mask):
    return pool.apply(params[1], blocks.apply(params[0], x, mask), mask)

  for size, seed in ((4, 1), (4, 2), (6, 3), (4, 4), (6, 5)):
    out = apply(params, draw(size, 1, seed=seed), jnp.arange(size) < seed)
    assert out.shape == (16,)


@pytest.mark.parametrize(
  "field, value",
  [
    ("form", "paper"),
    ("norm", "batch"),
    ("heads", 3),
    ("heads", 0),
    ("dropout", 1.0),
    ("activation", "tanh"),
    ("dtype", "float16"),
    ("feed_forward", 0),
  ],
)
def test_options_name_the_fault(field, value):
  with pytest.raises(ValueError, match=field):
    stacks.SetOptions(**{field: value})


def test_a_mask_of_another_shape_is_refused():
  with pytest.raises((ValueError, jaxtyping.TypeCheckError)):
    stacks.SAB(SMALL()).init(KEY, draw(3, 2), jnp.ones((4,), bool))
