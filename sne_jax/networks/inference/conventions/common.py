"""What several conventions play: prefixes, blocks, heads.

Dimensions: none; shapes are tuples of sizes.
"""

import re
from collections.abc import Mapping

from sne_jax.networks.tracing.player import Mismatch, Player
from sne_jax.networks.tracing.tape import Value

_NORM = {
  "norm_scale": "weight",
  "norm_shift": "bias",
  "norm_mean": "running_mean",
  "norm_var": "running_var",
}


def prefix(p: Player, end: str) -> str:
  """What stands before `end` in the first name of the file that ends so."""
  for name in p.shapes:
    if name.endswith(end):
      start = name.removesuffix(end)
      if not start or start.endswith("."):
        return start
  raise Mismatch(f"no tensor is called {end}")


def count(p: Player, prefix: str) -> int:
  """How many numbered blocks `prefix` has; they begin at 0."""
  after = (n[len(prefix) :] for n in p.shapes if n.startswith(prefix))
  words = {word for word, dot, _ in (n.partition(".") for n in after) if dot}
  numbers = {int(word) for word in words if word.isdecimal()}
  if numbers != set(range(len(numbers))) or not numbers:
    raise Mismatch(f"blocks of {prefix!r} are numbered {sorted(numbers)}")
  return len(numbers)


def beside(p: Player, root: str, name: str, end: str = ".weight") -> str:
  """A head's name in full: it lies at `root`, or at a start of it.

  What wrappers put before every name is before the head's as well.
  """
  starts = [root[: m.end()] for m in re.finditer(r"[^.]*\.", root)]
  for start in (*reversed(starts), ""):
    if p.has(f"{start}{name}{end}"):
      return f"{start}{name}"
  return f"{root}{name}"


def bn(p: Player, x: Value, name: str) -> Value:
  """Batch norm of PyTorch's names."""
  return p.batch_norm(x, {k: f"{name}.{part}" for k, part in _NORM.items()})


def mlp(p: Player, x: Value, first: str, second: str, stored="") -> Value:
  """Two dense layers with an activation between them."""
  x = p.linear(x, f"{first}.weight", f"{first}.bias", stored)
  return p.linear(p.activate(x), f"{second}.weight", f"{second}.bias", stored)


VISION = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
BERT = {768: 12, 1024: 16}
GPT2 = {768: 12, 1024: 16, 1280: 20, 1600: 25}
"""Heads of attention in published networks, by their width."""

Heads = Mapping[int, int]


def separate(
  p: Player, x: Value, names: tuple[str, ...], heads: Heads
) -> Value:
  """Attention by kernels of queries, keys and values."""
  q, k, v = (p.linear(x, f"{n}.weight", f"{n}.bias") for n in names)
  return _attention(p, q, k, v, heads)


def together(
  p: Player, x: Value, weight: str, bias: str, heads: Heads, stored: str = ""
) -> Value:
  """Attention by one kernel of queries, keys and values."""
  y = p.linear(x, weight, bias, stored)
  if not number_of_heads(p, y.shape[-1] // 3, heads):
    _pin(p, y, y.shape[-1] // 3)
  q, k, v = p.fused(y, 3)
  return _attention(p, q, k, v, heads)


def _pin(p: Player, units: Value, width: int) -> None:
  """Keeps units of attention where they are, and says what would free them."""
  some = next(n for n in range(2, width + 2) if width % n == 0 or n > width)
  p.tape.axes.pin(
    units.axes[-1],
    "it is not known how many heads attention has; write their number, such as"
    f' {{"heads": {some}}}, to have its units permuted within them',
  )


def number_of_heads(p: Player, width: int, published: Heads) -> int:
  """How many heads `width` units have; 0 if neither said nor published."""
  if p.override.heads:
    return p.override.heads
  if width in published:
    p.guess(
      f"{published[width]} heads, as published networks with attention of"
      f' {width} units have; {{"heads": {published[width]}}} settles it'
    )
  return published.get(width, 0)


def _attention(p: Player, q: Value, k: Value, v: Value, heads: Heads) -> Value:
  """Attention; where heads are not known, its units stay where they are."""
  number = number_of_heads(p, q.shape[-1], heads)
  for value in () if number else (q, k, v):
    _pin(p, value, q.shape[-1])
  return p.attention(q, k, v, number or 1)


def head(p: Player, x: Value, *names: str) -> None:
  """The first of these heads that the file has, or none."""
  for name in names:
    if p.has(f"{name}.weight"):
      p.tape.output(p.linear(x, f"{name}.weight", f"{name}.bias"))
      return
  backbone(p, x)


def heads(p: Player, x: Value, pooler: str, *readers: str) -> bool:
  """Plays a pooler and what reads it, or reads the last layer; whether any."""
  if p.has(f"{pooler}.weight"):
    x = p.activate(p.linear(x, f"{pooler}.weight", f"{pooler}.bias"))
  read = [name for name in readers if p.has(f"{name}.weight")]
  for name in read:
    p.tape.output(p.linear(x, f"{name}.weight", f"{name}.bias"))
  if not read and p.has(f"{pooler}.weight"):
    p.tape.output(x)
  return bool(read)


def backbone(p: Player, x: Value) -> None:
  """Says that a network without a head gives its last layer."""
  p.tape.output(x)
  p.guess("no head: the last layer is the output, so its channels stay")


def huggingface_attention(
  p: Player, x: Value, name: str, heads: Heads
) -> Value:
  """Attention and its output layer, as the transformers library names them."""
  attention = f"{name}.attention.attention"
  if not p.has(f"{attention}.query.weight"):
    attention = f"{name}.attention.self"
  y = separate(
    p,
    x,
    (f"{attention}.query", f"{attention}.key", f"{attention}.value"),
    heads,
  )
  out = f"{name}.attention.output.dense"
  return p.linear(y, f"{out}.weight", f"{out}.bias")
