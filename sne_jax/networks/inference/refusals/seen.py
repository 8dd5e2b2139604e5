"""What recognisers look at: names in words, and what they give back.

Dimensions: none; shapes are tuples of sizes.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping

from sne_jax.networks.inference import forms, naming
from sne_jax.networks.inference.override import Override

OPAQUE = (
  'write the override {"opaque": true} to have no permutation claimed, or give'
  " its code to be traced"
)


IsRead = Callable[[Collection[str], Override], bool]


@dataclasses.dataclass(frozen=True)
class Refusal:
  """Why a file is no chain of layers, and what helps."""

  problem: str
  remedy: str = OPAQUE


def listed(names: Iterable[str], most: int = 4) -> str:
  """Returns names in quotes, some of them if there are many."""
  names = list(names)
  text = ", ".join(repr(name) for name in names[:most])
  return f"{text}, ..." if len(names) > most else text


def leave_out(names: Iterable[str]) -> str:
  """Returns the override that leaves tensors out."""
  return json.dumps({"leave_out": list(names)})


@dataclasses.dataclass(frozen=True)
class Layer:
  """A tensor of more than one axis, by the words of its name.

  Attributes:
    name: of the tensor.
    path: components of the layer's name, without shared first ones.
    shape: as stored.
  """

  name: str
  path: tuple[str, ...]
  shape: tuple[int, ...]

  @property
  def lead(self) -> tuple[str, ...]:
    """The path without the numbers of lists at its end."""
    path = list(self.path)
    while len(path) > 1 and path[-1].isdecimal():
      path.pop()
    return tuple(path)

  @property
  def tokens(self) -> frozenset[str]:
    """Words of the last component of `lead`: fc_logVar -> fc, log, var."""
    return frozenset(tokens(self.lead[-1]) if self.lead else ())


def tokens(word: str) -> list[str]:
  """Returns the words within one component of a name, without numbers."""
  apart = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", word)
  return [t for t in re.split(r"[\d_\W]+", apart.lower()) if t]


@dataclasses.dataclass(frozen=True)
class Seen:
  """A file as recognisers see it.

  Attributes:
    shapes: of the tensors that are weights.
    left_out: tensors that are none, and why.
    tied: names that are another tensor's, and that name.
    override: what a person has settled.
    is_read: whether the tensors of these names, alone, are read with an
      override; to try a remedy before it is named.
  """

  shapes: Mapping[str, tuple[int, ...]]
  left_out: Mapping[str, str]
  tied: Mapping[str, str]
  override: Override
  is_read: IsRead

  @functools.cached_property
  def text(self) -> str:
    """All names, for words of forms."""
    return forms.text_of(self.shapes)

  @functools.cached_property
  def top(self) -> tuple[str, ...]:
    """First components that all layers share; a list's number is none."""
    paths = [naming.components(name)[:-1] for name in self.matrices]
    shared: list[str] = []
    for words in zip(*paths, strict=False):
      if len(set(words)) > 1 or words[0].isdecimal():
        break
      shared.append(words[0])
    return tuple(shared)

  @functools.cached_property
  def matrices(self) -> dict[str, tuple[int, ...]]:
    """The tensors of more than one axis."""
    return {n: tuple(s) for n, s in self.shapes.items() if len(s) > 1}

  @functools.cached_property
  def layers(self) -> list[Layer]:
    """The layers, in the order of the file."""
    layers = []
    for name, shape in self.matrices.items():
      prefix, part = naming.role(name)
      words = naming.components(prefix if part else name)
      shared = len(self.top) if len(words) > len(self.top) else 0
      layers.append(Layer(name, words[shared:], shape))
    return layers

  def head_of(self, path: Iterable[str]) -> str:
    """Returns the start of names that lie under `path`, behind `top`."""
    wanted = (*self.top, *path)
    for name in self.shapes:
      words = naming.components(name)
      if words[: len(wanted)] == wanted:
        ends = [m.end() for m in re.finditer(r"[^./]+", name)]
        return name[: ends[len(wanted) - 1]]
    return ".".join(wanted)
