"""Networks that read images, by the names of their tensors.

References:
  He et al., arXiv:1512.03385; Sandler et al., arXiv:1801.04381; Dosovitskiy et
  al., arXiv:2010.11929.

Dimensions: none; shapes are tuples of sizes.
"""

import math
from collections.abc import Mapping
from typing import Any

from sne_jax.networks.inference.conventions import common
from sne_jax.networks.tracing.player import Mismatch, Player
from sne_jax.networks.tracing.tape import Value


def torchvision_resnet(p: Player) -> None:
  """Residual networks of basic and bottleneck blocks, ResNeXt and Wide."""
  root = common.prefix(p, "layer1.0.conv1.weight")
  stem = f"{root}conv1.weight"
  x = p.tape.input((1, p.shape(stem)[1], 1, 1))
  x = p.activate(common.bn(p, p.conv(x, stem), f"{root}bn1"), "relu")
  stage = 1
  while p.has(f"{root}layer{stage}.0.conv1.weight"):
    for block in range(common.count(p, f"{root}layer{stage}.")):
      x = _residual_block(p, x, f"{root}layer{stage}.{block}")
    stage += 1
  if p.has(f"{root}fc.weight"):
    x = p.tape.reduce(x, (2, 3))
    p.tape.output(p.linear(x, f"{root}fc.weight", f"{root}fc.bias"))
  else:
    common.backbone(p, x)


def _residual_block(p: Player, x: Value, name: str) -> Value:
  y, count = x, 0
  # Two convolutions in a basic block, three in a bottleneck.
  while p.has(f"{name}.conv{count + 1}.weight"):
    count += 1
    if count > 1:
      y = p.activate(y, "relu")
    y = common.bn(
      p, p.conv(y, f"{name}.conv{count}.weight"), f"{name}.bn{count}"
    )
  for short in ("downsample", "shortcut"):
    if p.has(f"{name}.{short}.0.weight"):
      x = common.bn(
        p, p.conv(x, f"{name}.{short}.0.weight"), f"{name}.{short}.1"
      )
  return p.activate(p.add(y, x), "relu")


def torchvision_mobilenet(p: Player) -> None:
  """MobileNetV2: inverted residuals, a skip wherever widths allow one.

  A block of stride 2 between equal widths would have none; the groups of its
  ends are tied all the same, so that less is claimed, not more.
  """
  root = common.prefix(p, "features.1.conv.0.0.weight")
  first = f"{root}features.0.0.weight"
  x = p.tape.input((1, p.shape(first)[1], 1, 1))
  for number in range(common.count(p, f"{root}features.")):
    name = f"{root}features.{number}"
    if p.has(f"{name}.0.weight"):
      x = _conv_bn(p, x, name)
      continue
    y, place = x, 0
    while p.has(f"{name}.conv.{place}.0.weight"):
      y = _conv_bn(p, y, f"{name}.conv.{place}")
      place += 1
    y = p.conv(y, f"{name}.conv.{place}.weight")
    y = common.bn(p, y, f"{name}.conv.{place + 1}")
    x = p.add(x, y) if x.shape[1] == y.shape[1] else y
  x = p.tape.reduce(x, (2, 3))
  common.head(p, x, f"{root}classifier.1", f"{root}classifier")


def _conv_bn(p: Player, x: Value, name: str) -> Value:
  """A convolution, its norm and an activation, numbered 0 and 1."""
  y = p.conv(x, f"{name}.0.weight", f"{name}.0.bias")
  return p.activate(common.bn(p, y, f"{name}.1"), "relu6")


def _tokens(p: Player, x: Value, token: str, position: str) -> Value:
  """Puts a class token before `[B, T, D]` and adds positions."""
  if p.has(token):
    first = p.weight(token)
    first = p.tape.reshape(first, (1, 1, first.shape[-1]))
    if first.shape[-1] != x.shape[-1]:
      raise Mismatch(f"{token!r} has {first.shape[-1]} channels")
    x = p.tape.concatenate([first, x], 1)
  table = p.weight(position)
  if len(table.shape) < 2 or table.shape[-1] != x.shape[-1]:
    raise Mismatch(f"{position!r} has shape {table.shape}")
  # Tokens hold fixed places, in the table as in the sequence.
  for axis in table.axes[:-1]:
    p.tape.axes.pin(axis)
  x = p.tape.expand(x, (1, table.shape[-2], x.shape[-1]))
  for axis in x.axes[:-1]:
    p.tape.axes.pin(axis)
  if len(table.shape) == 2:
    table = p.tape.reshape(table, (1, *table.shape))
  embedded = p.tape.elementwise(x, table, op="add")
  # The number of tokens says nothing more; one stands for all.
  return p.tape.reshape(
    p.tape.slice(embedded, 1, 0, 1), (1, 1, embedded.shape[-1])
  )


def _patches(p: Player, weight: str, bias: str) -> Value:
  """Embeds patches of an image as `[1, 1, D]`."""
  x = p.tape.input((1, p.shape(weight)[1], 1, 1))
  x = p.conv(x, weight, bias)
  return p.tape.reshape(x, (1, 1, x.shape[1]))


def torchvision_vit(p: Player) -> Mapping[str, Any] | None:
  """Vision transformers of torchvision."""
  root = common.prefix(p, "conv_proj.weight")
  x = _patches(p, f"{root}conv_proj.weight", f"{root}conv_proj.bias")
  x = _tokens(p, x, f"{root}class_token", f"{root}encoder.pos_embedding")
  layers = f"{root}encoder.layers.encoder_layer_"
  for block in range(common.count(p, layers)):
    name = f"{layers}{block}"
    attention = f"{name}.self_attention"
    y = p.layer_norm(x, f"{name}.ln_1")
    y = common.together(
      p,
      y,
      f"{attention}.in_proj_weight",
      f"{attention}.in_proj_bias",
      common.VISION,
    )
    out = f"{attention}.out_proj"
    x = p.add(x, p.linear(y, f"{out}.weight", f"{out}.bias"))
    y = p.layer_norm(x, f"{name}.ln_2")
    first, second = f"{name}.mlp.0", f"{name}.mlp.3"
    if p.has(f"{name}.mlp.linear_1.weight"):  # Of older files.
      first, second = f"{name}.mlp.linear_1", f"{name}.mlp.linear_2"
    x = p.add(x, common.mlp(p, y, first, second))
  x = p.layer_norm(x, f"{root}encoder.ln")
  common.head(p, x, f"{root}heads.head", f"{root}head")
  return _as_transformer(p, root, layers)


def _as_transformer(p: Player, root: str, layers: str):
  """Options of our own family, for square images and one hidden layer."""
  head, first = f"{root}heads.head.weight", f"{layers}0.mlp.0.weight"
  if not (p.has(head) and p.has(first) and p.has(f"{root}class_token")):
    return None
  dim, channels, patch, _ = p.shape(f"{root}conv_proj.weight")
  tokens = p.shape(f"{root}encoder.pos_embedding")[1] - 1
  heads = common.number_of_heads(p, dim, common.VISION)
  if not heads:
    return None
  side = patch * math.isqrt(tokens)
  return {
    "image_shape": (channels, side, side),
    "patch": patch,
    "dim": dim,
    "depth": common.count(p, layers),
    "heads": heads,
    "hidden": p.shape(first)[0],
    "num_classes": p.shape(head)[0],
    "norm_eps": 1e-6,
  }


def timm_vit(p: Player) -> None:
  """Vision transformers of timm."""
  root = common.prefix(p, "patch_embed.proj.weight")
  patch = f"{root}patch_embed.proj"
  x = _patches(p, f"{patch}.weight", f"{patch}.bias")
  x = _tokens(p, x, f"{root}cls_token", f"{root}pos_embed")
  if p.has(f"{root}norm_pre.weight"):
    x = p.layer_norm(x, f"{root}norm_pre")
  for block in range(common.count(p, f"{root}blocks.")):
    name = f"{root}blocks.{block}"
    y = p.layer_norm(x, f"{name}.norm1")
    qkv = f"{name}.attn.qkv"
    y = common.together(p, y, f"{qkv}.weight", f"{qkv}.bias", common.VISION)
    proj = f"{name}.attn.proj"
    y = p.linear(y, f"{proj}.weight", f"{proj}.bias")
    x = p.add(x, _scaled(p, y, f"{name}.ls1.gamma"))
    y = p.layer_norm(x, f"{name}.norm2")
    y = common.mlp(p, y, f"{name}.mlp.fc1", f"{name}.mlp.fc2")
    x = p.add(x, _scaled(p, y, f"{name}.ls2.gamma"))
  if p.has(f"{root}norm.weight"):
    x = p.layer_norm(x, f"{root}norm")
  if p.has(f"{root}fc_norm.weight"):
    x = p.layer_norm(x, f"{root}fc_norm")
  common.head(p, x, f"{root}head")


def _scaled(p: Player, x: Value, name: str) -> Value:
  if not p.has(name):
    return x
  return p.tape.elementwise(x, p.weight(name), op="scale")


def huggingface_vit(p: Player) -> None:
  """ViT of the transformers library."""
  root = common.prefix(p, "embeddings.patch_embeddings.projection.weight")
  patch = f"{root}embeddings.patch_embeddings.projection"
  x = _patches(p, f"{patch}.weight", f"{patch}.bias")
  token = f"{root}embeddings.cls_token"
  x = _tokens(p, x, token, f"{root}embeddings.position_embeddings")
  for block in range(common.count(p, f"{root}encoder.layer.")):
    name = f"{root}encoder.layer.{block}"
    y = p.layer_norm(x, f"{name}.layernorm_before")
    x = p.add(x, common.huggingface_attention(p, y, name, common.VISION))
    y = p.layer_norm(x, f"{name}.layernorm_after")
    first, second = f"{name}.intermediate.dense", f"{name}.output.dense"
    x = p.add(x, common.mlp(p, y, first, second))
  x = p.layer_norm(x, f"{root}layernorm")
  classifier = common.beside(p, root, "classifier")
  if not common.heads(p, x, f"{root}pooler.dense", classifier):
    common.backbone(p, x)
