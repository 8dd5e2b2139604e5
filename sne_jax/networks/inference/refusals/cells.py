"""Recognises single parts that plain networks do not have.

Dimensions: none; shapes are tuples of sizes.
"""

import dataclasses
import re

from sne_jax.networks.inference import naming
from sne_jax.networks.inference.forms import Form
from sne_jax.networks.inference.refusals.seen import (
  OPAQUE,
  Layer,
  Refusal,
  Seen,
  leave_out,
  listed,
  tokens,
)

_RECURRENT = Form(
  "_ih _hh _hr _xh _hx wih whh wxh why bih bhh bxh bhy uih uhh uxh uhy w_hy"
  " b_hy u_hy recurrent_ 2h 2o in2 _to_ lstm gru rnn sru lmu cell",
  # PyTorch; Keras; by hand; cells of Flax.
  r"(^|[._/])(weight|bias|w|b)_(ih|hh|hr|xh|hx)(_?l?\d+)?(_reverse)?$"
  r"|(^|[./_])recurrent_(kernel|weight|bias)s?"
  r"|(^|[._/])(w|b|u)_?(xh|hh|hy|ih)($|[./])"
  r"|(^|[._/])(i2h|h2h|x2h|h2o|i2o|in2hidden|hidden2hidden|in2out"
  r"|\w+_to_hidden|hidden_to_\w+|\w+_to_hid|hid_to_\w+)($|[./])"
  r"|(^|[._/])(simple)?_?(lstm|gru|rnn|sru|qrnn|lmu)(s|\d*)"
  r"(_?(cell|layer|net))?(_?\d+)?($|[./])"
  r"|(lstm|gru|rnn|simple)_?cell",
  re.IGNORECASE,
)
_CELL_WORDS = frozenset(
  ("rec", "recur", "recurrent", "recurrence", "reservoir")
)
_BY_HAND = (("wx", "wh"), ("w", "u"), ("win", "wres"), ("ih", "hh"))
_FLAX_CELLS = (
  frozenset(("hi", "hf", "hg", "ho")),
  frozenset(("hr", "hz", "hn")),
)
_EMBEDDINGS = frozenset(
  ("emb", "embed", "embeds", "embedding", "embeddings", "wte", "wpe", "embd")
  + ("codebook", "lookup")
)
_GATES = frozenset(("gate", "gates", "gating", "gated", "glu", "swiglu"))


def recurrent(seen: Seen) -> Refusal | None:
  """Cells that are run once for each step, their output read by themselves."""
  found = []
  if _RECURRENT.may_match(seen.text):
    form = _RECURRENT.compiled
    found = [name for name in seen.shapes if form.search(name)]
  found += [layer.name for layer in seen.layers if layer.tokens & _CELL_WORDS]
  by_parent: dict[tuple[str, ...], set[str]] = {}
  for layer in seen.layers:
    if layer.path:
      by_parent.setdefault(layer.path[:-1], set()).add(layer.path[-1])
  for words in by_parent.values():
    plain = {re.sub(r"[_\d]", "", word).lower(): word for word in words}
    for pair in _BY_HAND:
      if all(word in plain for word in pair):
        hand = [plain[word] for word in pair]
        found += [x.name for x in seen.layers if x.path[-1:] == (hand[1],)]
    if any(cell <= words for cell in _FLAX_CELLS):
      found += [n for n in seen.matrices if naming.components(n)[-2] in words]
  if not found:
    return None
  return Refusal(
    f"{listed(found)} are of a recurrent cell, which reads its own output: no"
    " chain of layers"
  )


def complex_tensors(seen: Seen) -> Refusal | None:
  """Complex numbers, which join the neurons of what lies around them."""
  names = [
    name
    for name, why in seen.left_out.items()
    if "type complex" in why and name not in seen.override.leave_out
  ]
  if not names:
    return None
  layers = {naming.role(name)[0] for name in names} - {""}
  whole = [
    name
    for name in (*names, *seen.shapes)
    if name in names or naming.role(name)[0] in layers
  ]
  out = (*seen.override.leave_out, *whole)
  rest = [n for n in (*seen.shapes, *seen.left_out) if n not in whole]
  settled = dataclasses.replace(seen.override, leave_out=out)
  remedy = OPAQUE
  if seen.is_read(rest, settled):
    remedy += f"; or, if they have no part in the output, {leave_out(out)}"
  return Refusal(
    f"{listed(names)} {'is' if len(names) == 1 else 'are'} complex, and joined"
    " to other layers in ways that names do not show",
    remedy,
  )


def complex_halves(seen: Seen) -> Refusal | None:
  """Real and imaginary parts as tensors of their own."""
  for one, other in (("real", "imag"), ("re", "im"), ("r", "i")):
    form = re.compile(rf"(?<![A-Za-z]){one}(?=$|[._/\d])", re.IGNORECASE)
    for name, shape in seen.matrices.items():
      swapped = form.sub(other, name)
      if swapped != name and seen.matrices.get(swapped) == shape:
        return Refusal(
          f"{name!r} and {swapped!r} are the halves of complex numbers, which"
          " are multiplied with each other"
        )
  return None


def nameless(seen: Seen) -> Refusal | None:
  """Tensors that are called neither weight nor bias, where others are."""
  roles = {name: naming.role(name)[1] for name in seen.shapes}
  if any(re.search(r"[./]vars[./]\d+$", name) for name in roles):
    return None  # Keras numbers all of them.
  names = [n for n, part in roles.items() if not part and n not in seen.tied]
  if not names or len(names) == len(roles):
    return None
  shapes = ", ".join(f"{n!r} {list(seen.shapes[n])}" for n in names[:4])
  out = leave_out([*seen.override.leave_out, *names])
  return Refusal(
    f"what {shapes}{', ...' if len(names) > 4 else ''}"
    f" {'does' if len(names) == 1 else 'do'} is not known",
    f"if they have no part in the output, write {out}; else {OPAQUE}",
  )


def embedding(seen: Seen) -> Refusal | None:
  """Tables that are looked up, perhaps read a second time as the output."""
  names = [
    layer.name
    for layer in seen.layers
    if len(layer.shape) == 2 and _is_table(seen, layer)
  ]
  if not names:
    return None
  shared = [n for n, other in seen.tied.items() if other in names]
  also = f", and read by the output as {listed(shared)}" if shared else ""
  what = "is a table" if len(names) == 1 else "are tables"
  what = f"{what} of embeddings, which {what.split()[0]} looked up by"
  return Refusal(
    f"{listed(names)} {what} number{also}: no layers of a plain chain"
  )


def _is_table(seen: Seen, layer: Layer) -> bool:
  prefix, part = naming.role(layer.name)
  if part == "embedding":
    return True
  if not layer.path or not _EMBEDDINGS & set(tokens(layer.path[-1])):
    return False
  return not any(naming.role(n) == (prefix, "bias") for n in seen.shapes)


def gated(seen: Seen) -> Refusal | None:
  """Two layers that read the same, one of which scales the other."""
  names = [layer.name for layer in seen.layers if layer.tokens & _GATES]
  families: dict[tuple[str, ...], dict[str, Layer]] = {}
  for layer in seen.layers:
    if layer.path:
      word = layer.path[-1].lower()
      families.setdefault(layer.path[:-1], {})[word] = layer
  for words in families.values():
    for trio in (
      ("w1", "w2", "w3"),
      ("gate_proj", "down_proj", "up_proj"),
      ("wi_0", "wo", "wi_1"),
      ("fc1_g", "fc2", "fc1_x"),
      ("ffn_gate", "ffn_down", "ffn_up"),
    ):
      if not names and _are_gated(words, trio):
        names = [words[word].name for word in trio]
    if "w12" in words:
      names.append(words["w12"].name)
  if not names:
    return None
  return Refusal(
    f"{listed(names)} are of a gated layer, two kernels that read the same: no"
    " chain of layers"
  )


def _are_gated(words: dict[str, Layer], trio: tuple[str, str, str]) -> bool:
  """Whether the first and the last read what the second gives."""
  if not all(word in words for word in trio):
    return False
  alike = [word for word in words if re.fullmatch(r"w\d+", word)]
  if trio[0] == "w1" and len(alike) != 3:
    return False
  one, back, other = (words[word].shape for word in trio)
  return one == other == (back[1], back[0], *back[2:])


_EXCITATION = re.compile(
  r"(^|[./_])(se|sse|cse|scse|eca|cbam)(_?(layer|block|module|net|conv))?\d*"
  r"(_(reduce|expand|fc))?([./_]|$)"
  r"|squeeze|excit|conv_reduce|conv_expand",
  re.IGNORECASE,
)


def excitation(seen: Seen) -> Refusal | None:
  """Squeeze-and-excitation: a side way that scales channels."""
  names = [
    layer.name for layer in seen.layers if _EXCITATION.search(layer.name)
  ]
  pairs: dict[tuple[str, ...], set[str]] = {}
  for layer in seen.layers:
    if len(layer.shape) > 2 and set(layer.shape[2:]) == {1} and layer.path:
      pairs.setdefault(layer.path[:-1], set()).add(layer.path[-1])
  for layer in seen.layers:  # As torchvision calls them.
    if layer.path and {"fc1", "fc2"} <= pairs.get(layer.path[:-1], set()):
      names += [layer.name] * (layer.path[-1] in ("fc1", "fc2"))
  if not names:
    return None
  return Refusal(
    f"{listed(dict.fromkeys(names))} look at all channels to scale them"
    " (squeeze and excitation, or a like): a side way, no link of a chain"
  )
