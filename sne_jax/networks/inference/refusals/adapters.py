"""Adapters: small tensors that are added to the weights of a base model.

By the names that PEFT, kohya, diffusers, LyCORIS, loralib, MLX and Flax give.

References:
  Hu et al., LoRA, arXiv:2106.09685; Yeh et al., LyCORIS, arXiv:2309.14859.

Dimensions: none; shapes are tuples of sizes.
"""

import dataclasses
import re
from collections.abc import Mapping

from sne_jax.networks.inference import forms
from sne_jax.networks.inference.forms import Form
from sne_jax.networks.inference.refusals.seen import Refusal, Seen

# What stands behind the name of the layer; the kind; where the rank is.
_FORMS: tuple[tuple[str, str, int | None], ...] = (
  (r"[._/](?:processor[._/])?lora_A(?:[._/]\w+)?(?:[._/]weight)?", "LoRA", 0),
  (r"[._/]lora_embedding_A(?:[._/]\w+)?", "LoRA", 0),
  (r"[._/]lora_down[._/]weight|_lora[._/]down[._/]weight", "LoRA", 0),
  (r"[._/]lora[._/]down[._/]weight", "LoRA", 0),
  (r"[._/]lora_a(?:[._/](?:kernel|value|weight))?", "LoRA", -1),
  (r"[._/]hada_w[12]_a(?:[._/]\w+)?", "LoHa", 1),
  (r"[._/]lokr_w[12]_a(?:[._/]\w+)?", "LoKr", 1),
  (r"[._/]lokr_w[12](?:[._/]\w+)?", "LoKr", None),
  (r"[._/](?:oft_(?:blocks|diag|r|R)|boft_[rRsS])(?:[._/]\w+)*", "OFT", None),
  (r"[._/]ia3_l(?:[._/]\w+)?", "IA3", None),
  (r"[._/]vera_lambda_[bd](?:[._/]\w+)?", "VeRA", None),
)
_WORDS = Form(
  "lora_ _lora .lora /lora hada_w lokr_w oft_ ia3_l vera_lambda_",
  "|".join(f"(?:{form})$" for form, _, _ in _FORMS),
)
_OTHERS = re.compile(
  r"[._/](lora_(B|b|up|mid|E|embedding_B|magnitude_vector|alpha)"
  r"|hada_(w[12]_b|t[12])|lokr_(w[12]_b|t[12])|vera_[AB]|dora_scale)"
  r"([._/]\w+)*$|_lora[._/]up[._/]weight$|[._/]lora[._/]up[._/]weight$"
)

MERGE = (
  "merge it into its base model (PEFT: merge_and_unload) and give that, or"
  ' write the override {"opaque": true} to read its numbers alone'
)


@dataclasses.dataclass(frozen=True)
class Adapter:
  """What the names and shapes of an adapter say.

  Attributes:
    kind: "LoRA", "LoHa", "LoKr", "OFT", "IA3" or "VeRA".
    ranks: of every layer that it changes, by the layer's name; 0 where shapes
      do not say it.
    others: tensors that are none of the adapter's.
    has_base: whether the weights that it changes are in the file as well.
  """

  kind: str
  ranks: Mapping[str, int]
  others: tuple[str, ...]
  has_base: bool

  @property
  def targets(self) -> tuple[str, ...]:
    """The last words of the names of layers, each once."""
    return tuple(dict.fromkeys(map(_last, self.ranks)))

  @property
  def rank(self) -> str:
    """The ranks in words: "8", or "4 to 16"; "" if unknown."""
    ranks = sorted({rank for rank in self.ranks.values() if rank})
    if not ranks:
      return ""
    return str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"

  def describe(self, said: str = "") -> str:
    """Returns one line: what it is, its rank and its targets, what is said."""
    rank = f" of rank {self.rank}" if self.rank else ""
    targets = ", ".join(self.targets[:8])
    if self.has_base:
      return (
        f"a network with a {self.kind} adapter{rank} that is not merged into"
        f" {len(self.ranks)} of its layers ({targets}){said}"
      )
    more = ", ..." if len(self.targets) > 8 else ""
    beside = f", and {len(self.others)} other tensor(s)" if self.others else ""
    return (
      f"a {self.kind} adapter{rank} for {len(self.ranks)} layer(s)"
      f" ({targets}{more}){beside}{said}: no network by itself"
    )


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> Adapter | None:
  """Returns the adapter that a file is, or None."""
  ranks: dict[str, int] = {}
  kinds: dict[str, None] = {}
  others = []
  if not _WORDS.may_match(forms.text_of(shapes)):
    return None
  for name, shape in shapes.items():
    for form, kind, place in _FORMS:
      match = re.search(f"(?:{form})$", name)
      if match and match.start():
        rank = 0
        if place is not None and len(shape) > 1:
          rank = shape[place]
        layer = name[: match.start()]
        ranks[layer] = max(rank, ranks.get(layer, 0))
        kinds[kind] = None
        break
    else:
      if not _OTHERS.search(name):
        others.append(name)
  if not ranks:
    return None
  others = [n for n in others if n.removesuffix(".alpha") not in ranks]
  bases = ("weight", "kernel", "base_layer.weight", "linear.weight")
  has_base = any(
    f"{layer}{mark}{base}" in others
    for layer in ranks
    for base in bases
    for mark in "./"
  )
  return Adapter(next(iter(kinds)), ranks, tuple(others), has_base)


def refused(seen: Seen) -> Refusal | None:
  """Adapters, which compute nothing by themselves."""
  adapter = recognise({**seen.shapes, **dict.fromkeys(seen.left_out, ())})
  if adapter is None:
    return None
  return Refusal(
    f"it is {adapter.describe()}",
    MERGE,
  )


def _last(layer: str) -> str:
  """The word that adapters choose layers by: q_proj, attn1_to_q."""
  word = re.split(r"[./]", layer)[-1]
  if layer.startswith(("lora_", "lycoris_")) and "." not in layer:
    word = re.split(r"_\d+_", layer)[-1]
  return word
