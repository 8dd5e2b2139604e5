"""Networks known by the names of their tensors.

Each function plays a published architecture's forward pass. It raises
`Mismatch` where the file is another's; tensors that are left over refuse the
convention too, as they could do anything.

Residual networks: torchvision (`layer1.0.conv1`). Transformers: torchvision
(`encoder.layers.encoder_layer_0`), timm (`blocks.0`), and the transformers
library (ViT and BERT `encoder.layer.0`, GPT-2 `h.0`).

References:
  He et al., arXiv:1512.03385; Dosovitskiy et al., arXiv:2010.11929; Devlin et
  al., arXiv:1810.04805; Radford et al., Language Models are Unsupervised
  Multitask Learners, 2019.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from sne_jax.networks.tracing.player import Mismatch, Player
from sne_jax.networks.tracing.tape import Value

Play = Callable[[Player], Mapping[str, Any] | None]
"""May return options of `families.transformer`, which then runs the same."""

_NORM = {
  "norm_scale": "weight",
  "norm_shift": "bias",
  "norm_mean": "running_mean",
  "norm_var": "running_var",
}


def _prefix(p: Player, form: str) -> str:
  """What stands before the name that `form` describes, in the file."""
  for name in p.shapes:
    match = re.match(rf"^(.*?){form}$", name)
    if match and (not match[1] or match[1].endswith(".")):
      return match[1]
  raise Mismatch(f"no tensor is named like {form}")


def _count(p: Player, prefix: str) -> int:
  """How many numbered blocks `prefix` has; they begin at 0."""
  numbers = {
    int(match[1])
    for name in p.shapes
    if (match := re.match(rf"^{re.escape(prefix)}(\d+)\.", name))
  }
  if numbers != set(range(len(numbers))) or not numbers:
    raise Mismatch(f"blocks of {prefix!r} are numbered {sorted(numbers)}")
  return len(numbers)


def _bn(p: Player, x: Value, name: str) -> Value:
  return p.batch_norm(x, {k: f"{name}.{part}" for k, part in _NORM.items()})


def torchvision_resnet(p: Player) -> None:
  """Residual networks of basic and bottleneck blocks, ResNeXt and Wide."""
  root = _prefix(p, r"layer1\.0\.conv1\.weight")
  stem = f"{root}conv1.weight"
  x = p.tape.input((1, p.shape(stem)[1], 1, 1))
  x = p.activate(_bn(p, p.conv(x, stem), f"{root}bn1"), "relu")
  stage = 1
  while p.has(f"{root}layer{stage}.0.conv1.weight"):
    for block in range(_count(p, f"{root}layer{stage}.")):
      x = _residual_block(p, x, f"{root}layer{stage}.{block}")
    stage += 1
  if p.has(f"{root}fc.weight"):
    x = p.tape.reduce(x, (2, 3))
    p.tape.output(p.linear(x, f"{root}fc.weight", f"{root}fc.bias"))
  else:
    _backbone(p, x)


def _residual_block(p: Player, x: Value, name: str) -> Value:
  y, count = x, 0
  # Two convolutions in a basic block, three in a bottleneck.
  while p.has(f"{name}.conv{count + 1}.weight"):
    count += 1
    if count > 1:
      y = p.activate(y, "relu")
    y = _bn(p, p.conv(y, f"{name}.conv{count}.weight"), f"{name}.bn{count}")
  for short in ("downsample", "shortcut"):
    if p.has(f"{name}.{short}.0.weight"):
      x = _bn(p, p.conv(x, f"{name}.{short}.0.weight"), f"{name}.{short}.1")
  return p.activate(p.add(y, x), "relu")


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


def _mlp(p: Player, x: Value, first: str, second: str, stored="") -> Value:
  x = p.linear(x, f"{first}.weight", f"{first}.bias", stored)
  return p.linear(p.activate(x), f"{second}.weight", f"{second}.bias", stored)


def _separate(p: Player, x: Value, names: tuple[str, str, str]) -> Value:
  q, k, v = (p.linear(x, f"{n}.weight", f"{n}.bias") for n in names)
  return p.attention(q, k, v, p.heads(q.shape[-1]))


def _together(p: Player, x: Value, weight: str, bias: str, stored="") -> Value:
  q, k, v = p.fused(p.linear(x, weight, bias, stored), 3)
  return p.attention(q, k, v, p.heads(q.shape[-1]))


def _head(p: Player, x: Value, *names: str) -> None:
  for name in names:
    if p.has(f"{name}.weight"):
      p.tape.output(p.linear(x, f"{name}.weight", f"{name}.bias"))
      return
  _backbone(p, x)


def torchvision_vit(p: Player) -> Mapping[str, Any] | None:
  """Vision transformers of torchvision."""
  root = _prefix(p, r"conv_proj\.weight")
  x = _patches(p, f"{root}conv_proj.weight", f"{root}conv_proj.bias")
  x = _tokens(p, x, f"{root}class_token", f"{root}encoder.pos_embedding")
  layers = f"{root}encoder.layers.encoder_layer_"
  for block in range(_count(p, layers)):
    name = f"{layers}{block}"
    attention = f"{name}.self_attention"
    y = p.layer_norm(x, f"{name}.ln_1")
    y = _together(
      p, y, f"{attention}.in_proj_weight", f"{attention}.in_proj_bias"
    )
    out = f"{attention}.out_proj"
    x = p.add(x, p.linear(y, f"{out}.weight", f"{out}.bias"))
    y = p.layer_norm(x, f"{name}.ln_2")
    first, second = f"{name}.mlp.0", f"{name}.mlp.3"
    if p.has(f"{name}.mlp.linear_1.weight"):  # Of older files.
      first, second = f"{name}.mlp.linear_1", f"{name}.mlp.linear_2"
    x = p.add(x, _mlp(p, y, first, second))
  x = p.layer_norm(x, f"{root}encoder.ln")
  _head(p, x, f"{root}heads.head", f"{root}head")
  return _as_transformer(p, root, layers)


def _as_transformer(p: Player, root: str, layers: str):
  """Options of our own family, for square images and one hidden layer."""
  head, first = f"{root}heads.head.weight", f"{layers}0.mlp.0.weight"
  if not (p.has(head) and p.has(first) and p.has(f"{root}class_token")):
    return None
  dim, channels, patch, _ = p.shape(f"{root}conv_proj.weight")
  tokens = p.shape(f"{root}encoder.pos_embedding")[1] - 1
  side = patch * math.isqrt(tokens)
  return {
    "image_shape": (channels, side, side),
    "patch": patch,
    "dim": dim,
    "depth": _count(p, layers),
    "heads": p.heads(dim),
    "hidden": p.shape(first)[0],
    "num_classes": p.shape(head)[0],
    "norm_eps": 1e-6,
  }


def timm_vit(p: Player) -> None:
  """Vision transformers of timm."""
  root = _prefix(p, r"patch_embed\.proj\.weight")
  patch = f"{root}patch_embed.proj"
  x = _patches(p, f"{patch}.weight", f"{patch}.bias")
  x = _tokens(p, x, f"{root}cls_token", f"{root}pos_embed")
  if p.has(f"{root}norm_pre.weight"):
    x = p.layer_norm(x, f"{root}norm_pre")
  for block in range(_count(p, f"{root}blocks.")):
    name = f"{root}blocks.{block}"
    y = p.layer_norm(x, f"{name}.norm1")
    y = _together(p, y, f"{name}.attn.qkv.weight", f"{name}.attn.qkv.bias")
    proj = f"{name}.attn.proj"
    y = p.linear(y, f"{proj}.weight", f"{proj}.bias")
    x = p.add(x, _scaled(p, y, f"{name}.ls1.gamma"))
    y = p.layer_norm(x, f"{name}.norm2")
    y = _mlp(p, y, f"{name}.mlp.fc1", f"{name}.mlp.fc2")
    x = p.add(x, _scaled(p, y, f"{name}.ls2.gamma"))
  if p.has(f"{root}norm.weight"):
    x = p.layer_norm(x, f"{root}norm")
  if p.has(f"{root}fc_norm.weight"):
    x = p.layer_norm(x, f"{root}fc_norm")
  _head(p, x, f"{root}head")


def _scaled(p: Player, x: Value, name: str) -> Value:
  if not p.has(name):
    return x
  return p.tape.elementwise(x, p.weight(name), op="scale")


def huggingface_vit(p: Player) -> None:
  """ViT of the transformers library."""
  root = _prefix(p, r"embeddings\.patch_embeddings\.projection\.weight")
  patch = f"{root}embeddings.patch_embeddings.projection"
  x = _patches(p, f"{patch}.weight", f"{patch}.bias")
  token = f"{root}embeddings.cls_token"
  x = _tokens(p, x, token, f"{root}embeddings.position_embeddings")
  for block in range(_count(p, f"{root}encoder.layer.")):
    name = f"{root}encoder.layer.{block}"
    y = p.layer_norm(x, f"{name}.layernorm_before")
    x = p.add(x, _huggingface_attention(p, y, name))
    y = p.layer_norm(x, f"{name}.layernorm_after")
    first, second = f"{name}.intermediate.dense", f"{name}.output.dense"
    x = p.add(x, _mlp(p, y, first, second))
  x = p.layer_norm(x, f"{root}layernorm")
  if not _heads(p, x, f"{root}pooler.dense", "classifier"):
    _backbone(p, x)


def _huggingface_attention(p: Player, x: Value, name: str) -> Value:
  attention = f"{name}.attention.attention"
  if not p.has(f"{attention}.query.weight"):
    attention = f"{name}.attention.self"
  y = _separate(
    p, x, (f"{attention}.query", f"{attention}.key", f"{attention}.value")
  )
  out = f"{name}.attention.output.dense"
  return p.linear(y, f"{out}.weight", f"{out}.bias")


def _heads(p: Player, x: Value, pooler: str, *readers: str) -> bool:
  """Plays a pooler and what reads it, or reads the last layer; whether any."""
  if p.has(f"{pooler}.weight"):
    x = p.activate(p.linear(x, f"{pooler}.weight", f"{pooler}.bias"))
  read = [name for name in readers if p.has(f"{name}.weight")]
  for name in read:
    p.tape.output(p.linear(x, f"{name}.weight", f"{name}.bias"))
  if not read and p.has(f"{pooler}.weight"):
    p.tape.output(x)
  return bool(read)


def _backbone(p: Player, x: Value) -> None:
  """Says that a network without a head gives its last layer."""
  p.tape.output(x)
  p.guess("no head: the last layer is the output, so its channels stay")


def huggingface_bert(p: Player) -> None:
  """BERT of the transformers library, and its likes of the same names."""
  root = _prefix(p, r"embeddings\.word_embeddings\.weight")
  name = f"{root}embeddings."
  words = p.weight(f"{name}word_embeddings.weight")
  x = p.tape.look_up(words, p.tape.input((1, 1)))
  for part in ("position", "token_type"):
    table = f"{name}{part}_embeddings.weight"
    if p.has(table):
      of_types = part == "token_type"
      index = p.tape.input((1, 1)) if of_types else p.tape.constant((1, 1))
      x = p.add(x, p.tape.look_up(p.weight(table), index))
  x = p.layer_norm(x, f"{name}LayerNorm")
  for block in range(_count(p, f"{root}encoder.layer.")):
    name = f"{root}encoder.layer.{block}"
    y = _huggingface_attention(p, x, name)
    x = p.layer_norm(p.add(x, y), f"{name}.attention.output.LayerNorm")
    first, second = f"{name}.intermediate.dense", f"{name}.output.dense"
    x = p.add(x, _mlp(p, x, first, second))
    x = p.layer_norm(x, f"{name}.output.LayerNorm")
  # Heads read the last layer: of masked words, of a pooler, or none at all.
  known = _masked_words(p, x, words)
  readers = ("classifier", "qa_outputs", "cls.seq_relationship")
  if not _heads(p, x, f"{root}pooler.dense", *readers) and not known:
    _backbone(p, x)


def _masked_words(p: Player, x: Value, words: Value) -> bool:
  """The head that predicts words, often by the table of the input."""
  head = "cls.predictions"
  if not p.has(f"{head}.transform.dense.weight"):
    return False
  dense = f"{head}.transform.dense"
  x = p.activate(p.linear(x, f"{dense}.weight", f"{dense}.bias"))
  x = p.layer_norm(x, f"{head}.transform.LayerNorm")
  if p.has(f"{head}.decoder.weight"):
    x = p.linear(x, f"{head}.decoder.weight")
  else:
    x = p.tape.contract(x, words, (), [(len(x.shape) - 1, 1)])
  for bias in (f"{head}.bias", f"{head}.decoder.bias"):
    if p.has(bias):
      p.played[bias] = None
      value = p.tape.weight(bias, p.shape(bias))
      x = p.tape.elementwise(x, value, op="add")
  p.tape.output(x)
  return True


def huggingface_gpt2(p: Player) -> None:
  """GPT-2 of the transformers library; its dense kernels are [in, out]."""
  root = _prefix(p, r"h\.0\.attn\.c_attn\.weight")
  words = p.weight(f"{root}wte.weight")
  x = p.tape.look_up(words, p.tape.input((1, 1)))
  table = p.weight(f"{root}wpe.weight")
  x = p.add(x, p.tape.look_up(table, p.tape.constant((1, 1))))
  for block in range(_count(p, f"{root}h.")):
    name = f"{root}h.{block}"
    y = p.layer_norm(x, f"{name}.ln_1")
    projection = f"{name}.attn.c_attn"
    y = _together(p, y, f"{projection}.weight", f"{projection}.bias", "last")
    out = f"{name}.attn.c_proj"
    x = p.add(x, p.linear(y, f"{out}.weight", f"{out}.bias", "last"))
    y = p.layer_norm(x, f"{name}.ln_2")
    first, second = f"{name}.mlp.c_fc", f"{name}.mlp.c_proj"
    x = p.add(x, _mlp(p, y, first, second, "last"))
  x = p.layer_norm(x, f"{root}ln_f")
  if p.has("lm_head.weight"):
    p.tape.output(p.linear(x, "lm_head.weight"))
  elif p.has("score.weight"):
    p.tape.output(p.linear(x, "score.weight"))
  else:
    p.guess(
      "no lm_head: the output is read off wte, as in published GPT-2 files"
    )
    p.tape.output(p.tape.contract(x, words, (), [(2, 1)]))


CONVENTIONS: dict[str, Play] = {
  "a torchvision residual network": torchvision_resnet,
  "a torchvision vision transformer": torchvision_vit,
  "a timm vision transformer": timm_vit,
  "ViT of the transformers library": huggingface_vit,
  "BERT of the transformers library": huggingface_bert,
  "GPT-2 of the transformers library": huggingface_gpt2,
}
"""By what a message calls them."""
