"""Set functions: parity, symmetry, masks, counts, precision."""

import functools
import json
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.encoders import parity, set_attention, sets

FIXTURE = pathlib.Path(__file__).parents[1] / "fixtures" / "set_transformer.npz"
ATOL = 2e-5  # float32, other order of summation
SMALL = functools.partial(sets.SetOptions, width=16, heads=4)
KEY = jax.random.key(0)

STYLES = {  # every form, norm, activation and width of input once
  "coded": (1, SMALL()),
  "coded_pre": (16, SMALL(norm="pre")),
  "published": (1, SMALL(form="published", activation="gelu")),
  "published_pre": (16, SMALL(form="published", norm="pre")),
}
EQUIVARIANT = {
  "sab": lambda o: sets.SAB(o),
  "isab": lambda o: sets.ISAB(o, 3),
  "deepsets": lambda o: sets.DeepSetsBlock(o),
  "deepsets_max": lambda o: sets.DeepSetsBlock(o, "max"),
  "none": lambda o: sets.set_blocks("none", o),
  "two_sab": lambda o: sets.set_blocks("sab", o),
}
INVARIANT = {
  "pma": lambda o: sets.PMA(o),
  "pma_3": lambda o: sets.set_pool("pma", o, num_seeds=3),
  "deepsets_mean": lambda o: sets.DeepSets(o),
  "deepsets_sum": lambda o: sets.DeepSets(o, pooling="sum"),
  "deepsets_max": lambda o: sets.DeepSets(o, pooling="max"),
  "mean": lambda o: sets.set_pool("mean", o),
  "sum": lambda o: sets.set_pool("sum", o),
  "max": lambda o: sets.set_pool("max", o),
}
HAS_BIAS_BEHIND_THE_POOL = (
  *(name for name in INVARIANT if name.startswith("deepsets")),
  "linear",
)
ALL = EQUIVARIANT | INVARIANT | {"linear": lambda o: sets.LinearChunk(o)}


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


def styled(name, style):
  """A module, its params and a jitted apply."""
  width, options = STYLES[style]
  module, x = ALL[name](options), draw(3, 7, width)
  return x, init(module, x), jax.jit(module.apply)


def torch_module(module, args):
  options = sets.SetOptions(
    width=args.get("dim_V", args.get("dim_out", args.get("dim"))),
    heads=args["num_heads"],
    norm="post" if args["ln"] else "none",
  )
  return {
    "MAB": lambda: sets.MAB(options),
    "SAB": lambda: sets.SAB(options),
    "ISAB": lambda: sets.ISAB(options, args.get("num_inds")),
    "PMA": lambda: sets.PMA(options, args.get("num_seeds")),
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
  meta = meta[case]
  params = parity.params_from_torch(state_of(arrays, case))
  for call, names in meta["calls"].items():
    inputs = [arrays[name] for name in names]
    if case.startswith("stack"):
      args = {"num_heads": 4, "ln": meta["args"]["ln"], "num_seeds": 1}
      x = inputs[0]
      for place, kind in enumerate(("SAB", "SAB", "PMA")):
        module = torch_module(kind, args | {"dim": 16})
        x = module.apply({"params": params[str(place)]}, x)
      out = x
    else:
      module = torch_module(meta["module"], meta["args"])
      shapes = jax.eval_shape(module.init, KEY, *inputs)["params"]
      want = jax.tree.map(jnp.shape, shapes)
      assert (
        jax.tree.map(np.shape, params) == want
      )  # nothing unused, or lacking
      out = module.apply({"params": params}, *inputs)
    np.testing.assert_allclose(
      out, arrays[f"{case}/out/{call}"], rtol=1e-5, atol=1e-5, err_msg=call
    )


def test_parity_would_see_the_head_scale():
  arrays, meta = cases()
  params = parity.params_from_torch(state_of(arrays, "sab_noln"))
  module = sets.SAB(SMALL(norm="none", scale="head"))
  out = module.apply({"params": params}, arrays["in/X7"])
  assert np.abs(out - arrays["sab_noln/out/X7"]).max() > 1e-3
  del meta


def test_parity_names_what_it_does_not_know():
  with pytest.raises(ValueError, match="fc_z.weight"):
    parity.params_from_torch({"mab.fc_z.weight": np.zeros((2, 2))})
  with pytest.raises(ValueError, match="running_mean"):
    parity.params_from_torch({"mab.running_mean": np.zeros(2)})


@pytest.mark.parametrize("norm, extra", [("none", 0), ("post", 4 * 64)])
def test_parameter_counts(norm, extra):
  h = 64
  o = sets.SetOptions(width=h, norm=norm)

  def count(module, width):
    shapes = jax.eval_shape(module.init, KEY, jnp.zeros((5, width)))
    return sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))

  for i in (1, 3, h):
    want = 3 * (i * h + h) + h * h + h + extra
    assert count(sets.SAB(o), i) == want
  assert count(sets.PMA(o), h) == 4 * h * h + 5 * h + extra


def test_the_published_form_by_hand():
  o = SMALL(form="published", norm="post", feed_forward=3)
  x, y = draw(4, 16), draw(5, 16, seed=3)
  params = init(sets.MAB(o), x)
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
  got = sets.MAB(o).apply(params, x, y)
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
  plain = set_attention.attention(
    q, y @ wk + bk, y @ wv + bv[None, None], mask, heads=4, scale=0.25
  )
  absorbed = set_attention.absorbed_attention(
    q, y, wk, wv, bv, mask, heads=4, scale=0.25
  )
  np.testing.assert_allclose(absorbed, plain, atol=ATOL, rtol=1e-4)
  if has_mask:
    assert not np.any(absorbed[1]) and not np.any(plain[1])


def test_absorbs_where_it_saves():
  assert set_attention.is_absorbed_cheaper(32, 32, 1, 4, 16)
  assert set_attention.is_absorbed_cheaper(1, 32, 64, 4, 16)
  assert not set_attention.is_absorbed_cheaper(32, 32, 64, 4, 16)


def test_softmax_gives_masked_places_exactly_nothing():
  logits = jnp.array([[1e4, 3e38, -2.0], [5.0, 6.0, 7.0]])
  mask = jnp.array([[True, False, True], [False, False, False]])
  weights = set_attention.masked_softmax(logits, mask, -1)
  np.testing.assert_array_equal(weights, [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])


ORDER = np.random.default_rng(0).permutation(7)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", EQUIVARIANT)
def test_equivariant(name, style):
  x, params, apply = styled(name, style)
  out = apply(params, x)
  assert out.shape == (3, 7, 16)
  moved = apply(params, x[:, ORDER])
  np.testing.assert_allclose(moved, out[:, ORDER], atol=ATOL, rtol=1e-4)
  assert np.abs(moved - out).max() > 1e-2  # the order is seen


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", INVARIANT)
def test_invariant(name, style):
  x, params, apply = styled(name, style)
  out = apply(params, x)
  moved = apply(params, x[:, ORDER])
  np.testing.assert_allclose(moved, out, atol=ATOL, rtol=1e-4)
  assert np.abs(apply(params, x**2) - out).max() > 1e-2


def test_linear_chunk_sees_the_order():
  module = sets.LinearChunk(SMALL())
  x = draw(7, 1)
  params = init(module, x)
  change = module.apply(params, x) - module.apply(params, x[::-1])
  assert np.abs(change).max() > 1e-2


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", ALL)
def test_what_is_masked_never_matters(name, style):
  x, params, apply = styled(name, style)
  mask = jnp.arange(7)[None] < jnp.array([[7], [4], [1]])
  out = apply(params, x, mask)
  for garbage in (1e9, np.nan, np.inf):
    filled = jnp.where(mask[..., None], x, garbage)
    np.testing.assert_array_equal(apply(params, filled, mask), out)
  whole = apply(params, x)
  assert np.abs(whole[1] - out[1]).max() > 1e-3  # the mask does something
  np.testing.assert_allclose(whole[0], out[0], atol=ATOL, rtol=1e-4)
  if name == "linear":
    return
  for place, size in ((1, 4), (2, 1)):  # the same set without padding
    alone = apply(params, x[place, :size])
    padded = out[place, :size] if name in EQUIVARIANT else out[place]
    np.testing.assert_allclose(padded, alone, atol=ATOL, rtol=1e-4)
  if name in EQUIVARIANT:
    assert not np.any(np.where(mask[..., None], 0, out))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", ALL)
def test_empty_and_single_sets_are_finite_with_gradients(name, style):
  x, params, apply = styled(name, style)
  mask = jnp.arange(7)[None] < jnp.array([[0], [1], [3]])

  def loss(params, x):
    out = apply(params, x, mask)
    return (out**2).sum(), out

  (_, out), grads = jax.jit(
    jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
  )(params, x)
  assert np.isfinite(out).all()
  if name not in HAS_BIAS_BEHIND_THE_POOL:
    assert not np.any(out[0])
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
  assert not np.any(np.where(mask[..., None], 0, grads[1]))
  assert np.abs(grads[1]).max() > 0


@pytest.mark.parametrize("name", ALL)
def test_leading_axes_equal_vmap(name):
  module = ALL[name](SMALL())
  x, mask = draw(2, 3, 5, 16), jnp.arange(5) < 4
  mask = jnp.broadcast_to(mask, (2, 3, 5))
  params = init(module, x)
  each = jax.jit(jax.vmap(jax.vmap(functools.partial(module.apply, params))))
  out = jax.jit(module.apply)(params, x, mask)
  np.testing.assert_allclose(out, each(x, mask), atol=ATOL, rtol=1e-4)


@pytest.mark.parametrize("form", ["coded", "published"])
@pytest.mark.parametrize("name", ALL)
def test_bfloat16_is_close(name, form):
  x = draw(3, 8, 1)
  full, half = (
    ALL[name](SMALL(form=form, dtype=d)) for d in ("float32", "bfloat16")
  )
  params = init(full, x)
  chex.assert_trees_all_equal_shapes_and_dtypes(
    *(jax.eval_shape(module.init, KEY, x) for module in (half, full))
  )
  want = jax.jit(full.apply)(params, x)
  got = jax.jit(half.apply)(params, x)
  if name not in ("mean", "sum", "max"):
    assert got.dtype == jnp.bfloat16
  error = np.linalg.norm(got.astype(np.float32) - want)
  assert error < 0.03 * np.linalg.norm(want)


@pytest.mark.parametrize("name", ["sab", "isab", "pma", "deepsets_mean"])
def test_dropout_only_in_training(name):
  module = ALL[name](SMALL(dropout=0.5))
  x = draw(4, 6, 16)
  params = init(module, x)
  out = module.apply(params, x)
  np.testing.assert_array_equal(out, ALL[name](SMALL()).apply(params, x))
  noisy = [
    module.apply(
      params, x, deterministic=False, rngs={"dropout": jax.random.key(seed)}
    )
    for seed in (0, 0, 1)
  ]
  np.testing.assert_array_equal(noisy[0], noisy[1])
  assert np.abs(noisy[0] - noisy[2]).max() > 1e-3
  assert np.abs(noisy[0] - out).max() > 1e-3


def test_one_trace_per_shape():
  module = sets.set_blocks("sab", SMALL())
  params = module.init(KEY, draw(4, 1))

  @jax.jit
  @chex.assert_max_traces(n=2)
  def apply(params, x, mask):
    return module.apply(params, x, mask)

  for size, seed in ((4, 1), (4, 2), (6, 3), (4, 4), (6, 5)):
    apply(params, draw(size, 1, seed=seed), jnp.arange(size) < seed)


@pytest.mark.parametrize(
  "field, value",
  [
    ("form", "paper"),
    ("norm", "batch"),
    ("heads", 3),
    ("heads", 0),
    ("dropout", 1.0),
    ("scale", "full"),
    ("activation", "tanh"),
    ("dtype", "float16"),
    ("feed_forward", 0),
  ],
)
def test_options_name_the_fault(field, value):
  with pytest.raises(ValueError, match=field):
    sets.SetOptions(**{field: value})


def test_calls_name_the_fault():
  with pytest.raises(ValueError, match="'attention'"):
    sets.set_pool("attention", SMALL())
  with pytest.raises(ValueError, match="'pma'"):
    sets.set_blocks("pma", SMALL())
  with pytest.raises(ValueError, match="median"):
    sets.pool(draw(3, 2), None, "median")
  with pytest.raises(ValueError, match="num_seeds"):
    sets.set_pool("pma", SMALL(), num_seeds=0)
  with pytest.raises(ValueError, match="num_inducing"):
    sets.set_blocks("isab", SMALL(), num_inducing=0)
  with pytest.raises(ValueError, match="mask of queries"):
    sets.SAB(SMALL()).init(KEY, draw(3, 2), jnp.ones((4,), bool))
