"""Conventions beyond the published ones: wrappers, nanoGPT, PyTorch's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sne_jax.networks import inference
from tests.networks.inference import conventions_test as published

HEADS = {"heads": 2}


def checked(shapes, run, inputs, override=None, tensors=None):
  """Infers a network and runs it under what its spec claims."""
  rng = np.random.default_rng(0)
  tensors = published.draw(shapes, rng) if tensors is None else tensors
  found = inference.infer(shapes, framework="safetensors", override=override)
  assert found.how == "named"
  assert {s.name for s in found.sources} | set(found.left_out) == set(shapes)
  check = inference.permutation_check(
    found, found.gather(tensors), jax.jit(run), inputs, rng
  )
  assert check.change < 1e-4
  return found, check


def renamed(shapes, prefix):
  return {f"{prefix}{name}": shape for name, shape in shapes.items()}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.module."])
@pytest.mark.parametrize("name", ["bert", "hf_vit", "gpt2", "resnet"])
def test_wrappers_make_no_difference(name, prefix):
  shapes, _, _ = published.CASES[name]
  if name == "gpt2":
    shapes = {f"transformer.{k}": v for k, v in shapes.items()}
    shapes["lm_head.weight"] = (11, 8)
  plain = inference.infer(shapes, framework="safetensors", override=HEADS)
  found = inference.infer(
    renamed(shapes, prefix), framework="safetensors", override=HEADS
  )
  assert found.how == "named"
  assert [s.name for s in found.sources] == [
    f"{prefix}{s.name}" for s in plain.sources
  ]
  assert [t.kind for t in found.spec.tensors] == [
    t.kind for t in plain.spec.tensors
  ]
  assert len(found.spec.groups) == len(plain.spec.groups)


def nano_shapes(dim=8, biases=True):
  """GPT-2's names with kernels [out, in], as nanoGPT saves them."""
  shapes = {
    f"transformer.{name}": shape[::-1] if ".h." in f".{name}" else shape
    for name, shape in published.gpt2_shapes(dim, 2, 11, 6).items()
    if not name.endswith("attn.bias")
  }
  if not biases:
    shapes = {n: s for n, s in shapes.items() if not n.endswith("bias")}
  return shapes | {"lm_head.weight": (11, dim)}


def nano_gpt(tensors, words):
  """Runs it by the published forward pass, kernels turned round."""
  t = {k.removeprefix("transformer."): v for k, v in tensors.items()}
  turned = {
    k: v.T if v.ndim == 2 and k.startswith("h.") else v for k, v in t.items()
  }
  for name, value in t.items():
    bias = f"{name.removesuffix('.weight')}.bias"
    if name.endswith(".weight"):
      turned.setdefault(bias, jnp.zeros(value.shape[0], np.float32))
  return published.gpt2(turned, words)


@pytest.mark.parametrize("biases", [True, False])
def test_nano_gpt_has_the_names_with_kernels_turned(biases):
  shapes = nano_shapes(biases=biases)
  rng = np.random.default_rng(1)
  tensors = published.draw(shapes, rng)
  tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
  words = rng.integers(0, 11, (2, 6))
  found, check = checked(shapes, nano_gpt, words, HEADS, tensors)
  assert check.control is not None and check.control > 1e-2
  name = "transformer.h.0.mlp.c_fc.weight"
  assert found.spec.tensor(name).shape == shapes[name] == (32, 8)
  unknown, check = checked(shapes, nano_gpt, words, None, tensors)
  assert len(unknown.spec.groups) < len(found.spec.groups)
  assert any('{"heads": 2}' in guess for guess in unknown.guesses)


def encoder_shapes(depth=2, dim=8, hidden=12, root="encoder."):
  shapes = {}
  for layer in range(depth):
    name = f"{root}layers.{layer}"
    shapes[f"{name}.self_attn.in_proj_weight"] = (3 * dim, dim)
    shapes[f"{name}.self_attn.in_proj_bias"] = (3 * dim,)
    shapes |= published.layer(f"{name}.self_attn.out_proj", dim, dim)
    shapes |= published.layer(f"{name}.linear1", hidden, dim)
    shapes |= published.layer(f"{name}.linear2", dim, hidden)
    shapes |= published.norms(f"{name}.norm1", f"{name}.norm2", dim=dim)
  return shapes


def encode(t, x, first, root="encoder."):
  """PyTorch's layers, norms first or last."""
  layer = 0
  norm = lambda name, x: published.layer_norm(t, name, x)
  while f"{root}layers.{layer}.linear1.weight" in t:
    name = f"{root}layers.{layer}"
    own = f"{name}.self_attn"
    fused = {f"in.{p}": t[f"{own}.in_proj_{p}"] for p in ("weight", "bias")}

    def attend(x, own=own, fused=fused):
      parts = jnp.split(published.linear(fused, "in", x), 3, -1)
      y = published.attend(*parts, heads=2)
      return published.linear(t, f"{own}.out_proj", y)

    def dense(x, name=name):
      y = jax.nn.relu(published.linear(t, f"{name}.linear1", x))
      return published.linear(t, f"{name}.linear2", y)

    for part, number in ((attend, 1), (dense, 2)):
      norm_name = f"{name}.norm{number}"
      y = part(norm(norm_name, x) if first else x)
      x = x + y if first else norm(norm_name, x + y)
    layer += 1
  return x


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("around", [True, False])
def test_a_transformer_encoder_wherever_its_norms_stand(first, around):
  shapes, rng = encoder_shapes(), np.random.default_rng(2)
  if around:
    shapes |= published.layer("embed", 8, 5) | published.layer("head", 3, 8)
    shapes |= {"positions": (1, 4, 8)}

  def run(t, x):
    if around:
      x = published.linear(t, "embed", x) + t["positions"]
    y = encode(t, x, first)
    return published.linear(t, "head", y) if around else y

  x = rng.standard_normal((2, 4, 5 if around else 8), np.float32)
  found, check = checked(shapes, run, x, HEADS)
  assert check.control is not None and check.control > 1e-2
  hidden = found.spec.tensor("encoder.layers.1.linear1.weight").axes[0]
  assert hidden[0].group and hidden[0].size == 12
  unknown, _ = checked(shapes, run, x)
  assert len(unknown.spec.groups) == 2  # Hidden units alone.


def mobile_shapes():
  shapes = {}

  def conv(name, norm, out, into, kernel=1):
    shapes[f"{name}.weight"] = (out, into, kernel, kernel)
    shapes.update({f"{norm}.{p}": (out,) for p in published.NORM})

  conv("features.0.0", "features.0.1", 4, 3, 3)
  for number, (into, out, wide) in enumerate(
    [(4, 4, 4), (4, 6, 8), (6, 6, 12)], 1
  ):
    name, place = f"features.{number}.conv", 0
    if wide != into:
      conv(f"{name}.0.0", f"{name}.0.1", wide, into)
      place = 1
    conv(f"{name}.{place}.0", f"{name}.{place}.1", wide, 1, 3)
    conv(f"{name}.{place + 1}", f"{name}.{place + 2}", out, wide)
  conv("features.4.0", "features.4.1", 9, 6)
  return shapes | published.layer("classifier.1", 3, 9)


def mobile(t, x):
  def conv(name, norm, x):
    kernel = t[f"{name}.weight"]
    pad = kernel.shape[-1] // 2
    y = jax.lax.conv_general_dilated(
      x,
      kernel,
      (1, 1),
      [(pad, pad)] * 2,
      feature_group_count=x.shape[1] // kernel.shape[1],
    )
    scale, shift, mean, var = (
      t[f"{norm}.{p}"].reshape(1, -1, 1, 1) for p in published.NORM
    )
    return (y - mean) * jax.lax.rsqrt(var + 1e-5) * scale + shift

  x = jnp.clip(conv("features.0.0", "features.0.1", x), 0, 6)
  for number in (1, 2, 3):
    name, y, place = f"features.{number}.conv", x, 0
    while f"{name}.{place}.0.weight" in t:
      y = jnp.clip(conv(f"{name}.{place}.0", f"{name}.{place}.1", y), 0, 6)
      place += 1
    y = conv(f"{name}.{place}", f"{name}.{place + 1}", y)
    x = x + y if x.shape == y.shape else y
  x = jnp.clip(conv("features.4.0", "features.4.1", x), 0, 6)
  return published.linear(t, "classifier.1", x.mean((2, 3)))


def test_inverted_residuals():
  x = np.random.default_rng(3).standard_normal((2, 3, 6, 6), np.float32)
  found, check = checked(mobile_shapes(), mobile, x)
  assert check.control is not None and check.control > 1e-3
  axis = lambda name: found.spec.tensor(f"features.{name}.weight").axes[0]
  assert axis("0.0") == axis("1.conv.1")  # By the skip.
  assert axis("2.conv.0.0") == axis("2.conv.1.0")  # Each channel alone.
  assert axis("2.conv.2") == axis("3.conv.2") != axis("1.conv.1")
  assert found.spec.skips
