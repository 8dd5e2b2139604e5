"""Transformers that read words, by the names of their tensors.

References:
  Devlin et al., arXiv:1810.04805; Radford et al., Language Models are
  Unsupervised Multitask Learners, 2019; Vaswani et al., arXiv:1706.03762.

Dimensions: none; shapes are tuples of sizes.
"""

from sne_jax.networks.inference import naming
from sne_jax.networks.inference.conventions import common
from sne_jax.networks.tracing.player import Mismatch, Player
from sne_jax.networks.tracing.tape import Value


def huggingface_bert(p: Player) -> None:
  """BERT of the transformers library, and its likes of the same names."""
  root = common.prefix(p, "embeddings.word_embeddings.weight")
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
  for block in range(common.count(p, f"{root}encoder.layer.")):
    name = f"{root}encoder.layer.{block}"
    y = common.huggingface_attention(p, x, name, common.BERT)
    x = p.layer_norm(p.add(x, y), f"{name}.attention.output.LayerNorm")
    first, second = f"{name}.intermediate.dense", f"{name}.output.dense"
    x = p.add(x, common.mlp(p, x, first, second))
    x = p.layer_norm(x, f"{name}.output.LayerNorm")
  # Heads read the last layer: of masked words, of a pooler, or none at all.
  known = _masked_words(p, x, words, root)
  readers = [
    common.beside(p, root, name)
    for name in ("classifier", "qa_outputs", "cls.seq_relationship")
  ]
  if not common.heads(p, x, f"{root}pooler.dense", *readers) and not known:
    common.backbone(p, x)


def _masked_words(p: Player, x: Value, words: Value, root: str) -> bool:
  """The head that predicts words, often by the table of the input."""
  inner = ".transform.dense.weight"
  head = common.beside(p, root, "cls.predictions", inner)
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


def gpt2(p: Player) -> None:
  """GPT-2 of the transformers library, and nanoGPT.

  The first stores dense kernels as [in, out], the second as [out, in].
  """
  root = common.prefix(p, "h.0.attn.c_attn.weight")
  words = p.weight(f"{root}wte.weight")
  x = p.tape.look_up(words, p.tape.input((1, 1)))
  table = p.weight(f"{root}wpe.weight")
  x = p.add(x, p.tape.look_up(table, p.tape.constant((1, 1))))
  dim = x.shape[-1]
  linear = p.shape(f"{root}h.0.attn.c_attn.weight") == (3 * dim, dim)
  stored = "first" if linear else "last"
  for block in range(common.count(p, f"{root}h.")):
    name = f"{root}h.{block}"
    y = p.layer_norm(x, f"{name}.ln_1")
    projection = f"{name}.attn.c_attn"
    fused = f"{projection}.weight", f"{projection}.bias"
    y = common.together(p, y, *fused, common.GPT2, stored)
    out = f"{name}.attn.c_proj"
    x = p.add(x, p.linear(y, f"{out}.weight", f"{out}.bias", stored))
    y = p.layer_norm(x, f"{name}.ln_2")
    first, second = f"{name}.mlp.c_fc", f"{name}.mlp.c_proj"
    x = p.add(x, common.mlp(p, y, first, second, stored))
  x = p.layer_norm(x, f"{root}ln_f")
  for name in ("lm_head", "score"):
    head = common.beside(p, root, name)
    if p.has(f"{head}.weight"):
      p.tape.output(p.linear(x, f"{head}.weight", stored="first"))
      return
  p.guess("no lm_head: the output is read off wte, as in published GPT-2 files")
  p.tape.output(p.tape.contract(x, words, (), [(2, 1)]))


_PARTS = (
  *("self_attn.in_proj_weight", "self_attn.in_proj_bias"),
  *("self_attn.out_proj.weight", "self_attn.out_proj.bias"),
  *(f"{n}.{t}" for n in ("linear1", "linear2") for t in ("weight", "bias")),
  *(f"{n}.{t}" for n in ("norm1", "norm2") for t in ("weight", "bias")),
)
"""The tensors of a `torch.nn.TransformerEncoderLayer`."""


def torch_layers(p: Player) -> None:
  """`torch.nn.TransformerEncoder`, alone or within another network.

  What lies around its layers, such as embeddings, heads and the other half of
  a decoder's layers, claims nothing: the tokens that are handed on keep their
  channels. Whether norms come first makes no difference then.
  """
  ends = [name for name in p.shapes if name.endswith(_PARTS[0])]
  starts = [name.removesuffix(_PARTS[0]) for name in ends]
  if not starts or not all(p.has(f"{s}linear1.weight") for s in starts):
    raise Mismatch("no layers of a TransformerEncoder")
  starts.sort(key=naming.natural)
  root = starts[0].removesuffix("layers.0.")
  inner = {f"{start}{part}" for start in starts for part in _PARTS}
  norm = f"{root}norm"
  if root != starts[0]:
    inner |= {f"{norm}.weight", f"{norm}.bias"}
  dim = p.shape(f"{starts[0]}{_PARTS[0]}")[-1]
  x = p.tape.input((1, 1, dim))
  around = [p.weight(name) for name in p.shapes if name not in inner]
  if around:
    what = "of what lies around the layers of a TransformerEncoder"
    (x,) = p.tape.unknown([x, *around], [(1, 1, dim)], what)
  for start in starts:
    fused = f"{start}{_PARTS[0]}", f"{start}{_PARTS[1]}"
    y = common.together(p, x, *fused, {})
    y = p.linear(y, f"{start}{_PARTS[2]}", f"{start}{_PARTS[3]}")
    x = p.layer_norm(p.add(x, y), f"{start}norm1")
    y = common.mlp(p, x, f"{start}linear1", f"{start}linear2")
    x = p.layer_norm(p.add(x, y), f"{start}norm2")
  if f"{norm}.weight" in inner and p.has(f"{norm}.weight"):
    x = p.layer_norm(x, norm)
  p.tape.output(x)
