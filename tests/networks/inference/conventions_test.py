"""Published architectures, by hand-written names, run in plain JAX."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.networks import families, inference, symmetry
from sne_jax.networks.tracing import traced_jax

NORM = ("weight", "bias", "running_mean", "running_var")


def resnet_shapes(
  width=64, classes=1000, blocks=(2, 2, 2, 2), bottleneck=False
):
  shapes = {}

  def norm(name, channels):
    shapes.update({f"{name}.{part}": (channels,) for part in NORM})
    shapes[f"{name}.num_batches_tracked"] = ()

  def conv(name, out, into, kernel):
    shapes[f"{name}.weight"] = (out, into, kernel, kernel)

  conv("conv1", width, 3, 7)
  norm("bn1", width)
  into = width
  for stage, count in enumerate(blocks):
    inner = width * 2**stage
    out = inner * (4 if bottleneck else 1)
    for block in range(count):
      name = f"layer{stage + 1}.{block}"
      kernels = (1, 3, 1) if bottleneck else (3, 3)
      widths = [into] + [inner] * (len(kernels) - 1) + [out]
      for place, kernel in enumerate(kernels):
        conv(
          f"{name}.conv{place + 1}", *widths[place : place + 2][::-1], kernel
        )
        norm(f"{name}.bn{place + 1}", widths[place + 1])
      if block == 0 and (stage or bottleneck):
        conv(f"{name}.downsample.0", out, into, 1)
        norm(f"{name}.downsample.1", out)
      into = out
  return shapes | {"fc.weight": (classes, into), "fc.bias": (classes,)}


def layer(name, out, into, stored="first"):
  shape = (out, into) if stored == "first" else (into, out)
  return {f"{name}.weight": shape, f"{name}.bias": (out,)}


def norms(*names, dim):
  return {f"{n}.{p}": (dim,) for n in names for p in ("weight", "bias")}


def vit_shapes(dim=768, depth=12, hidden=3072, tokens=197, patch=16, out=1000):
  shapes = {"class_token": (1, 1, dim)}
  shapes["conv_proj.weight"] = (dim, 3, patch, patch)
  shapes["conv_proj.bias"] = (dim,)
  shapes["encoder.pos_embedding"] = (1, tokens, dim)
  for block in range(depth):
    name = f"encoder.layers.encoder_layer_{block}"
    own = f"{name}.self_attention"
    shapes |= norms(f"{name}.ln_1", dim=dim)
    shapes[f"{own}.in_proj_weight"] = (3 * dim, dim)
    shapes[f"{own}.in_proj_bias"] = (3 * dim,)
    shapes |= layer(f"{own}.out_proj", dim, dim)
    shapes |= norms(f"{name}.ln_2", dim=dim)
    shapes |= layer(f"{name}.mlp.0", hidden, dim)
    shapes |= layer(f"{name}.mlp.3", dim, hidden)
  return shapes | norms("encoder.ln", dim=dim) | layer("heads.head", out, dim)


def timm_shapes(dim=8, depth=2, hidden=12, tokens=5, patch=4, out=3):
  shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, tokens, dim)}
  shapes["patch_embed.proj.weight"] = (dim, 3, patch, patch)
  shapes["patch_embed.proj.bias"] = (dim,)
  for block in range(depth):
    name = f"blocks.{block}"
    shapes |= norms(f"{name}.norm1", dim=dim)
    shapes |= layer(f"{name}.attn.qkv", 3 * dim, dim)
    shapes |= layer(f"{name}.attn.proj", dim, dim)
    shapes[f"{name}.ls1.gamma"] = (dim,)
    shapes |= norms(f"{name}.norm2", dim=dim)
    shapes |= layer(f"{name}.mlp.fc1", hidden, dim)
    shapes |= layer(f"{name}.mlp.fc2", dim, hidden)
    shapes[f"{name}.ls2.gamma"] = (dim,)
  return shapes | norms("norm", dim=dim) | layer("head", out, dim)


def hf_block(name, dim, hidden, attention, norm1, norm2):
  shapes = {}
  for part in ("query", "key", "value"):
    shapes |= layer(f"{name}.attention.{attention}.{part}", dim, dim)
  shapes |= layer(f"{name}.attention.output.dense", dim, dim)
  shapes |= norms(f"{name}.{norm1}", dim=dim)
  shapes |= layer(f"{name}.intermediate.dense", hidden, dim)
  shapes |= layer(f"{name}.output.dense", dim, hidden)
  return shapes | norms(f"{name}.{norm2}", dim=dim)


def hf_vit_shapes(dim=8, depth=2, hidden=12, tokens=5, patch=4, out=3):
  root = "vit.embeddings"
  shapes = {f"{root}.cls_token": (1, 1, dim)}
  shapes[f"{root}.position_embeddings"] = (1, tokens, dim)
  projection = f"{root}.patch_embeddings.projection"
  shapes[f"{projection}.weight"] = (dim, 3, patch, patch)
  shapes[f"{projection}.bias"] = (dim,)
  for block in range(depth):
    name = f"vit.encoder.layer.{block}"
    shapes |= hf_block(
      name, dim, hidden, "attention", "layernorm_before", "layernorm_after"
    )
  return (
    shapes | norms("vit.layernorm", dim=dim) | layer("classifier", out, dim)
  )


def bert_shapes(dim=8, depth=2, hidden=12, words=11, tokens=6, out=3):
  root = "bert.embeddings"
  shapes = {
    f"{root}.position_ids": (1, tokens),
    f"{root}.word_embeddings.weight": (words, dim),
    f"{root}.position_embeddings.weight": (tokens, dim),
    f"{root}.token_type_embeddings.weight": (2, dim),
  } | norms(f"{root}.LayerNorm", dim=dim)
  for block in range(depth):
    name = f"bert.encoder.layer.{block}"
    shapes |= hf_block(
      name,
      dim,
      hidden,
      "self",
      "attention.output.LayerNorm",
      "output.LayerNorm",
    )
  shapes |= layer("bert.pooler.dense", dim, dim)
  return shapes | layer("classifier", out, dim)


def gpt2_shapes(dim=768, depth=12, words=50257, tokens=1024):
  shapes = {"wte.weight": (words, dim), "wpe.weight": (tokens, dim)}
  for block in range(depth):
    name = f"h.{block}"
    shapes |= norms(f"{name}.ln_1", dim=dim)
    shapes[f"{name}.attn.bias"] = (1, 1, tokens, tokens)
    shapes |= layer(f"{name}.attn.c_attn", 3 * dim, dim, "last")
    shapes |= layer(f"{name}.attn.c_proj", dim, dim, "last")
    shapes |= norms(f"{name}.ln_2", dim=dim)
    shapes |= layer(f"{name}.mlp.c_fc", 4 * dim, dim, "last")
    shapes |= layer(f"{name}.mlp.c_proj", dim, 4 * dim, "last")
  return shapes | norms("ln_f", dim=dim)


def linear(t, name, x, stored="first"):
  kernel = t[f"{name}.weight"]
  kernel = kernel.T if stored == "first" else kernel
  return x @ kernel + t[f"{name}.bias"].reshape((1,) * (x.ndim - 1) + (-1,))


def layer_norm(t, name, x):
  lead = (1,) * (x.ndim - 1) + (-1,)
  x = x - x.mean(-1, keepdims=True)
  x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6)
  return x * t[f"{name}.weight"].reshape(lead) + t[f"{name}.bias"].reshape(lead)


def attend(q, k, v, heads, causal=False):
  batch, tokens, dim = q.shape
  cut = lambda x: x.reshape(batch, tokens, heads, -1).transpose(0, 2, 1, 3)
  q, k, v = cut(q), cut(k), cut(v)
  scores = jnp.einsum("bhqd,bhkd->bhqk", q, k) / (dim / heads) ** 0.5
  if causal:
    mask = np.tril(np.ones((1, 1, tokens, tokens), bool))
    scores = jnp.where(jnp.asarray(mask), scores, -1e9)
  y = jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(scores), v)
  return y.transpose(0, 2, 1, 3).reshape(batch, tokens, dim)


def resnet(t, x):
  def conv(name, x, stride):
    kernel = t[f"{name}.weight"]
    pad = kernel.shape[-1] // 2
    groups = x.shape[1] // kernel.shape[1]
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      [(pad, pad)] * 2,
      feature_group_count=groups,
      dimension_numbers=("NCHW", "OIHW", "NCHW"),
    )

  def norm(name, x):
    scale, shift, mean, var = (
      t[f"{name}.{part}"].reshape(1, -1, 1, 1) for part in NORM
    )
    return (x - mean) * jax.lax.rsqrt(var + 1e-5) * scale + shift

  x = jax.nn.relu(norm("bn1", conv("conv1", x, 2)))
  stage = 1
  while f"layer{stage}.0.conv1.weight" in t:
    block = 0
    while f"layer{stage}.{block}.conv1.weight" in t:
      name, stride = f"layer{stage}.{block}", 1 + (stage > 1 and not block)
      y, place = x, 1
      while f"{name}.conv{place}.weight" in t:
        y = jax.nn.relu(y) if place > 1 else y
        y = conv(f"{name}.conv{place}", y, stride if place == 1 else 1)
        y = norm(f"{name}.bn{place}", y)
        place += 1
      if f"{name}.downsample.0.weight" in t:
        x = conv(f"{name}.downsample.0", x, stride)
        x = norm(f"{name}.downsample.1", x)
      x = jax.nn.relu(x + y)
      block += 1
    stage += 1
  return linear(t, "fc", x.mean((2, 3)))


def patches(t, name, x):
  kernel = t[f"{name}.weight"]
  y = jax.lax.conv_general_dilated(x, kernel, kernel.shape[2:], "VALID")
  y = y.reshape(*y.shape[:2], -1).transpose(0, 2, 1)
  return y + t[f"{name}.bias"].reshape(1, 1, -1)


def with_tokens(t, x, token, position):
  token = jnp.broadcast_to(t[token], (x.shape[0], 1, x.shape[2]))
  return jnp.concatenate([token, x], 1) + t[position]


def vit(t, x, heads=2):
  x = patches(t, "conv_proj", x)
  x = with_tokens(t, x, "class_token", "encoder.pos_embedding")
  block = 0
  while f"encoder.layers.encoder_layer_{block}.ln_1.weight" in t:
    name = f"encoder.layers.encoder_layer_{block}"
    own = f"{name}.self_attention"
    fused = {
      "in.weight": t[f"{own}.in_proj_weight"],
      "in.bias": t[f"{own}.in_proj_bias"],
    }
    y = linear(fused, "in", layer_norm(t, f"{name}.ln_1", x))
    x = x + linear(t, f"{own}.out_proj", attend(*jnp.split(y, 3, -1), heads))
    y = layer_norm(t, f"{name}.ln_2", x)
    y = jax.nn.gelu(linear(t, f"{name}.mlp.0", y), approximate=False)
    x = x + linear(t, f"{name}.mlp.3", y)
    block += 1
  return linear(t, "heads.head", layer_norm(t, "encoder.ln", x)[:, 0])


def timm(t, x, heads=2):
  x = patches(t, "patch_embed.proj", x)
  x = with_tokens(t, x, "cls_token", "pos_embed")
  for block in range(2):
    name = f"blocks.{block}"
    y = linear(t, f"{name}.attn.qkv", layer_norm(t, f"{name}.norm1", x))
    y = attend(*jnp.split(y, 3, -1), heads)
    y = linear(t, f"{name}.attn.proj", y)
    x = x + y * t[f"{name}.ls1.gamma"].reshape(1, 1, -1)
    y = layer_norm(t, f"{name}.norm2", x)
    y = linear(t, f"{name}.mlp.fc2", jnp.tanh(linear(t, f"{name}.mlp.fc1", y)))
    x = x + y * t[f"{name}.ls2.gamma"].reshape(1, 1, -1)
  return linear(t, "head", layer_norm(t, "norm", x)[:, 0])


def hf_attention(t, name, own, x, heads):
  q, k, v = (linear(t, f"{own}.{p}", x) for p in ("query", "key", "value"))
  return linear(t, f"{name}.attention.output.dense", attend(q, k, v, heads))


def hf_vit(t, x, heads=2):
  x = patches(t, "vit.embeddings.patch_embeddings.projection", x)
  root = "vit.embeddings"
  x = with_tokens(t, x, f"{root}.cls_token", f"{root}.position_embeddings")
  for block in range(2):
    name = f"vit.encoder.layer.{block}"
    y = layer_norm(t, f"{name}.layernorm_before", x)
    x = x + hf_attention(t, name, f"{name}.attention.attention", y, heads)
    y = layer_norm(t, f"{name}.layernorm_after", x)
    y = jax.nn.gelu(linear(t, f"{name}.intermediate.dense", y))
    x = x + linear(t, f"{name}.output.dense", y)
  return linear(t, "classifier", layer_norm(t, "vit.layernorm", x)[:, 0])


def bert(t, words, heads=2):
  root = "bert.embeddings"
  x = t[f"{root}.word_embeddings.weight"][words]
  x = x + t[f"{root}.position_embeddings.weight"][: words.shape[1]][None]
  x = x + t[f"{root}.token_type_embeddings.weight"][words % 2]
  x = layer_norm(t, f"{root}.LayerNorm", x)
  for block in range(2):
    name = f"bert.encoder.layer.{block}"
    y = hf_attention(t, name, f"{name}.attention.self", x, heads)
    x = layer_norm(t, f"{name}.attention.output.LayerNorm", x + y)
    y = jax.nn.gelu(linear(t, f"{name}.intermediate.dense", x))
    y = linear(t, f"{name}.output.dense", y)
    x = layer_norm(t, f"{name}.output.LayerNorm", x + y)
  pooled = jnp.tanh(linear(t, "bert.pooler.dense", x[:, 0]))
  return linear(t, "classifier", pooled)


def gpt2(t, words, heads=2):
  x = t["wte.weight"][words] + t["wpe.weight"][: words.shape[1]][None]
  block = 0
  while f"h.{block}.ln_1.weight" in t:
    name = f"h.{block}"
    y = layer_norm(t, f"{name}.ln_1", x)
    y = linear(t, f"{name}.attn.c_attn", y, "last")
    y = attend(*jnp.split(y, 3, -1), heads, causal=True)
    x = x + linear(t, f"{name}.attn.c_proj", y, "last")
    y = layer_norm(t, f"{name}.ln_2", x)
    y = jax.nn.gelu(linear(t, f"{name}.mlp.c_fc", y, "last"))
    x = x + linear(t, f"{name}.mlp.c_proj", y, "last")
    block += 1
  return layer_norm(t, "ln_f", x) @ t["wte.weight"].T


SMALL_VIT = {"dim": 8, "depth": 2, "hidden": 12, "tokens": 5, "patch": 4}
IMAGE = (2, 3, 8, 8)
CASES = {
  "resnet": (resnet_shapes(4, 3, (2, 1)), resnet, IMAGE),
  "bottleneck": (resnet_shapes(2, 3, (1, 1), bottleneck=True), resnet, IMAGE),
  "vit": (vit_shapes(**SMALL_VIT, out=3), vit, IMAGE),
  "timm": (timm_shapes(), timm, IMAGE),
  "hf_vit": (hf_vit_shapes(), hf_vit, IMAGE),
  "bert": (bert_shapes(), bert, None),
  "gpt2": (gpt2_shapes(8, 2, 11, 6), gpt2, None),
}
HEADS = {"heads": 2}

every_case = pytest.mark.parametrize("name", CASES)


def draw(shapes, rng):
  """Tensors of a file: positive variances, integers where there are any."""
  tensors = {}
  for name, shape in shapes.items():
    value = rng.standard_normal(shape, np.float32)
    if len(shape) > 1:
      value *= (4.0 / shape[-1]) ** 0.5
    if name.endswith(("running_var", "weight")) and len(shape) == 1:
      value = np.abs(value) + 0.5
    if name.endswith(("position_ids", "num_batches_tracked")):
      value = np.asarray(value * 9).astype(np.int64)
    tensors[name] = np.asarray(value, value.dtype)
  return tensors


def inputs_of(shape, rng):
  if shape is None:
    return rng.integers(0, 11, (3, 6))
  return rng.standard_normal(shape, np.float32)


def infer(name):
  return inference.infer(
    CASES[name][0], framework="safetensors", override=HEADS
  )


@every_case
def test_claimed_permutations_change_nothing(name):
  shapes, run, size = CASES[name]
  rng = np.random.default_rng(1)
  tensors, found = draw(shapes, rng), infer(name)
  check = inference.permutation_check(
    found,
    found.gather(tensors),
    jax.jit(run),
    inputs_of(size, rng),
    rng,
    draws=4,
  )
  assert check.change < 1e-4
  assert check.control is not None and check.control > 1e-2
  assert check.passes()
  assert check.log_order > 10


def by_source(found):
  """The spec's tensors by the part of the file that they are."""
  return {
    (source.name, tuple(i for _, i in source.picks), t.kind, t.shape): t
    for source, t in zip(found.sources, found.spec.tensors, strict=True)
  }


@every_case
def test_names_and_a_trace_agree(name):
  shapes, run, size = CASES[name]
  rng = np.random.default_rng(2)
  tensors, by_name = draw(shapes, rng), infer(name)
  weights = {k: v for k, v in tensors.items() if k not in by_name.left_out}
  traced = traced_jax.trace(run, weights, inputs_of(size, rng))
  assert not traced.guesses
  assert not traced.left_out
  one, other = by_source(by_name), by_source(traced)
  assert one.keys() == other.keys()
  for key, tensor in one.items():
    assert tensor.level == other[key].level, key
    assert (tensor.of is None) == (other[key].of is None), key
  assert by_name.spec.skips == traced.spec.skips
  orders = [symmetry.log_order(f.spec) for f in (by_name, traced)]
  assert orders[0] == pytest.approx(orders[1])


@every_case
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_round_trip_is_exact(name, dtype):
  tensors = draw(CASES[name][0], np.random.default_rng(3))
  for key, value in tensors.items():
    if value.dtype == np.float32:
      wide = np.asarray(value, np.float64) * (1 + 2**-40)
      tensors[key] = np.asarray(wide, dtype)
  found = infer(name)
  weights = found.gather(tensors)
  assert weights.shape == (found.spec.num_weights,)
  back = found.scatter(weights, tensors)
  assert list(back) == list(tensors)
  for key, value in tensors.items():
    assert back[key].dtype == value.dtype
    assert back[key].tobytes() == value.tobytes(), key
  again = found.gather(found.scatter(weights))
  assert again.tobytes() == weights.tobytes()


@pytest.mark.parametrize(
  ("shapes", "count", "statistics"),
  [
    (resnet_shapes(), 11_689_512, 9_600),
    (resnet_shapes(blocks=(3, 4, 6, 3)), 21_797_672, None),
    (
      resnet_shapes(blocks=(3, 4, 6, 3), bottleneck=True),
      25_557_032,
      None,
    ),
    (vit_shapes(), 86_567_656, 0),
    (gpt2_shapes(), 124_439_808, 0),
  ],
  ids=["resnet18", "resnet34", "resnet50", "vit_b_16", "gpt2"],
)
def test_published_sizes(shapes, count, statistics):
  start = time.process_time()
  found = inference.infer(shapes, framework="safetensors")
  assert time.process_time() - start < 5
  sizes = [t.size for t in found.spec.tensors]
  running = sum(
    t.size for t in found.spec.tensors if t.kind in ("norm_mean", "norm_var")
  )
  assert sum(sizes) - running == count
  assert statistics is None or running == statistics
  assert not [t.name for t in found.spec.tensors if t.kind == "other"]


def test_resnet18_spec():
  spec = inference.infer(resnet_shapes(), framework="torch").spec
  assert spec.num_levels == 18
  assert spec.skips == tuple((2 * i, 2 * i + 2) for i in range(8))
  assert len(spec.groups) == 12  # Four streams, and the inside of eight blocks.
  short = spec.tensor("layer2.0.downsample.0.weight")
  assert (short.level, short.branch) == (5, 1)
  same = spec.tensor("layer2.1.conv2.weight").axes[0]
  assert short.axes[0] == same == spec.tensor("layer2.1.bn2.weight").axes[0]
  assert spec.tensor("layer2.1.bn2.weight").of == "layer2.1.conv2.weight"
  assert spec.tensor("fc.weight").axes[0][0].group is None


def test_heads_are_factors_with_units_of_their_own():
  found = inference.infer(vit_shapes(depth=4), framework="torch")
  assert '{"heads": 12}' in found.guesses[0]
  q, k, v = (
    found.spec.tensor(f"block3.{part}.weight").axes[0] for part in "qkv"
  )
  out = found.spec.tensor("block3.o.weight").axes[1]
  assert [f.size for f in q] == [12, 64]
  assert q == k and v == out and q[0] == v[0]
  assert q[1].group != v[1].group
  assert q[1].per == v[1].per == q[0].group is not None
  kinds = [found.spec.tensor(f"block3.{p}.bias").kind for p in "qkv"]
  assert kinds == ["attention_bias"] * 3


def test_what_is_no_weight_is_listed():
  found = inference.infer(gpt2_shapes(64, 2), framework="torch")
  assert found.left_out == {
    f"h.{i}.attn.bias": "the mask of causal attention" for i in range(2)
  }
  found = inference.infer(
    resnet_shapes(blocks=(1, 1)) | {"steps": (3,)},
    framework="torch",
    dtypes={"steps": "int32"},
  )
  assert "int32" in found.left_out["steps"]
  assert len(found.left_out) == 1 + 6


def test_a_vision_transformer_is_run_by_our_own_family():
  shapes, run, size = CASES["vit"]
  rng = np.random.default_rng(4)
  tensors, found = draw(shapes, rng), infer("vit")
  assert found.spec.family == "transformer"
  x = inputs_of(size, rng)
  mine = jax.jit(families.forward, static_argnums=0)(
    found.spec, found.gather(tensors), x
  )
  np.testing.assert_allclose(mine, jax.jit(run)(tensors, x), atol=2e-5)


@pytest.mark.parametrize("told", [True, False])
def test_tied_embeddings(told):
  shapes = {f"transformer.{k}": v for k, v in gpt2_shapes(64, 1, 11, 6).items()}
  shapes["lm_head.weight"] = (11, 64)
  tied = {"lm_head.weight": "transformer.wte.weight"} if told else {}
  found = inference.infer(shapes, framework="torch", tied=tied)
  names = [t.name for t in found.spec.tensors]
  assert ("lm_head.weight" in names) == (not told)
  tensors = draw(shapes, np.random.default_rng(0))
  if told:
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
  back = found.scatter(found.gather(tensors), tensors)
  for key, value in tensors.items():
    np.testing.assert_array_equal(back[key], value)


def test_grouped_blocks_of_a_known_network_are_groups():
  shapes = resnet_shapes(4, 3, (1, 1), bottleneck=True)
  for name, shape in shapes.items():
    if name.endswith("0.conv2.weight"):
      shapes[name] = (shape[0], shape[1] // 2, 3, 3)
  found = inference.infer(shapes, framework="torch")
  rows = found.spec.tensor("layer1.0.conv2.weight").axes
  assert [f.size for f in rows[0]] == [2, 2]
  assert (
    rows[0][0].group
    == found.spec.tensor("layer1.0.conv1.weight").axes[0][0].group
  )
  rng = np.random.default_rng(0)
  check = inference.permutation_check(
    found,
    found.gather(draw(shapes, rng)),
    jax.jit(resnet),
    inputs_of(IMAGE, rng),
    rng,
  )
  assert check.passes()


@pytest.mark.parametrize(
  ("change", "said"),
  [
    # A squeeze-and-excitation layer could tie anything.
    ({"layer1.0.se.fc1.weight": (2, 4)}, "layer1.0.se.fc1.weight"),
    ({"layer1.0.conv2.weight": (4, 3, 3, 3)}, "layer1.0.conv2.weight"),
    ({"layer2.0.bn1.weight": (5,)}, "layer2.0.bn1.weight"),
    ({"fc.weight": (3, 9)}, "fc.weight"),
  ],
)
def test_what_is_not_quite_known_is_refused(change, said):
  shapes = resnet_shapes(4, 3, (2, 1)) | change
  with pytest.raises(inference.AmbiguousError, match=said) as error:
    inference.infer(shapes, framework="torch")
  assert "\n" not in str(error.value)
  assert "opaque" in str(error.value)
  opaque = inference.infer(shapes, framework="torch", override={"opaque": True})
  assert not opaque.spec.groups
  tensors = draw(shapes, np.random.default_rng(0))
  back = opaque.scatter(opaque.gather(tensors), tensors)
  assert all((back[k] == v).all() for k, v in tensors.items())


def test_heads_that_no_one_has_published_are_asked_for():
  shapes = gpt2_shapes(96, 1, 11, 6)
  found = inference.infer(shapes, framework="torch")
  assert any('{"heads": 2}' in guess for guess in found.guesses)
  fused = found.spec.tensor("h.0.attn.c_attn.weight").axes
  assert all(
    f.group is None for axis in fused[-2:] for f in axis if f.size > 96
  )
  found = inference.infer(shapes, framework="torch", override={"heads": 4})
  q = found.spec.tensor("h.0.attn.c_attn.weight.q").axes[0]
  assert [f.size for f in q] == [4, 24]


def test_wrong_heads_are_caught_by_the_check():
  shapes, run, _ = CASES["gpt2"]
  rng = np.random.default_rng(1)
  found = inference.infer(shapes, framework="torch", override={"heads": 4})
  weights = found.gather(draw(shapes, rng))
  words = inputs_of(None, rng)
  check = inference.permutation_check(found, weights, jax.jit(run), words, rng)
  assert check.change > 1e-3
  assert not check.passes()


def test_without_a_head_the_stream_stays():
  shapes = {k: v for k, v in vit_shapes(64, 1, 12).items() if "heads" not in k}
  found = inference.infer(shapes, framework="torch")
  assert any("no head" in guess for guess in found.guesses)
  assert found.spec.tensor("conv_proj.weight").axes[0][0].group is None
