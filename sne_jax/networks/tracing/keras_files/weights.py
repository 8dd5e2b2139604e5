"""Where the variables of a Keras layer lie in its file.

A `.keras` archive numbers them: `layers/dense_1/vars/0` is the first variable
of the second layer of class Dense, whatever the layer is called; its group
says the name besides. A legacy `.h5` file names them: `model_weights/dense_1/
dense_1/kernel:0`, where all variables of a nested model lie under the model.

Dimensions: none.
"""

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sne_jax.networks.tracing.player import Mismatch

LEGACY = "model_weights/"
"""What the names of a legacy file begin with."""


def root(names: Collection[str], labels: Mapping[str, str]) -> "Where":
  """Returns where the variables of a file's model are.

  Args:
    names: of all its tensors.
    labels: names of layers, by path of the group that holds their variables.
  """
  if any(name.startswith(LEGACY) for name in names):
    return _Named(tuple(names))
  below: dict[str, dict[str, str]] = {}
  for path, label in labels.items():
    group, _, last = path.rpartition("/")
    model, _, _ = group.rpartition("/")
    if last == "vars":
      below.setdefault(f"{model}/", {})[label] = f"{group}/"
  return _Numbered(frozenset(names), below)


class Where:
  """Where the variables of one layer, or model, are."""

  def variable(self, role: str, number: int) -> str:
    """Returns the name of a variable.

    Args:
      role: what Keras calls it; several names are divided by "|".
      number: its place among the layer's own.

    Raises:
      Mismatch: there is none, or more than one that it could be.
    """
    raise NotImplementedError

  def all_variables(self) -> list[str]:
    """Returns the names of all variables of the layer and what is in it."""
    raise NotImplementedError

  def inner(self, key: str, label: str = "") -> "Where":
    """Returns a layer inside this one.

    Args:
      key: the attribute that holds it.
      label: its name, if that is known.
    """
    raise NotImplementedError

  def layers(self, entries: Sequence[Mapping[str, Any]]) -> dict[str, "Where"]:
    """Returns the layers of a model, by name.

    Args:
      entries: class and name of each, in the order of the configuration.
    """
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class _Numbered(Where):
  """A group of a `.keras` archive.

  Attributes:
    names: of all tensors.
    labels: paths of the groups in a group, by the names of their layers.
    path: of the group.
  """

  names: frozenset[str]
  labels: Mapping[str, Mapping[str, str]]
  path: str = ""

  def variable(self, role, number):
    name = f"{self.path}vars/{number}"
    if name not in self.names:
      raise Mismatch(f"there is no {role.split('|')[0]} {name!r}")
    return name

  def all_variables(self):
    return sorted(n for n in self.names if n.startswith(self.path))

  def inner(self, key, label=""):
    del label
    return dataclasses.replace(self, path=f"{self.path}{key}/")

  def layers(self, entries):
    below = f"{self.path}layers/"
    used: dict[str, int] = {}
    found = {}
    # Groups tell names; of files without them, numbers tell.
    labelled = self.labels.get(below, {})
    for entry in entries:
      kind, name = _snake(entry["class_name"]), entry["name"]
      count = used[kind] = used.get(kind, -1) + 1
      path = f"{below}{kind}_{count}/" if count else f"{below}{kind}/"
      if labelled.get(name, path) != path:
        raise Mismatch(f"layer {name!r} is not where its class is counted to")
      found[name] = dataclasses.replace(self, path=path)
    return found


@dataclasses.dataclass(frozen=True)
class _Named(Where):
  """A layer of a legacy file.

  Attributes:
    names: of all tensors.
    group: that the layer lies in; empty for the model itself.
    words: that the rest of a name must have, in this order.
    model: of a nested model, of which names may or may not tell.
  """

  names: tuple[str, ...]
  group: str = ""
  words: tuple[str, ...] = ()
  model: str = ""

  def variable(self, role, number):
    del number
    roles = role.split("|")
    fits = [n for n in self.all_variables() if _last(n) in roles]
    if len(fits) > 1 and self.model:
      fits = [n for n in fits if self.model in self._rest(n)[:-2]]
    if len(fits) != 1:
      where = "/".join((self.group.removeprefix(LEGACY), *self.words))
      raise Mismatch(
        f"there are {len(fits)} variables {roles[0]!r} of layer {where!r}"
      )
    return fits[0]

  def all_variables(self):
    return [
      name
      for name in self.names
      if name.startswith(self.group)
      and _is_within(self.words, self._rest(name)[:-1])
    ]

  def inner(self, key, label=""):
    del key
    words = (*self.words, label) if label else self.words
    return dataclasses.replace(self, words=words)

  def layers(self, entries):
    found = {}
    first: dict[str, list[str]] = {}
    for name in () if self.group else self.names:
      first.setdefault((*name.split("/"), "")[1], []).append(name)
    for entry in entries:
      name = entry["name"]
      if not self.group:
        held = tuple(first.get(name.split("/")[0], ()))
        found[name] = _Named(held, f"{LEGACY}{name}/")
        continue
      # Of a nested model all variables are in one group.
      model = self.words[-1] if self.words else ""
      found[name] = dataclasses.replace(self, words=(name,), model=model)
    return found

  def _rest(self, name: str) -> list[str]:
    return name[len(self.group) :].split("/")


def _last(name: str) -> str:
  return name.rpartition("/")[2].removesuffix(":0")


def _is_within(words: Sequence[str], path: Sequence[str]) -> bool:
  """Whether words are in a path, in their order."""
  left = iter(path)
  return all(word in left for word in words)


def _snake(kind: str) -> str:
  """Returns the name that Keras makes of a class."""
  kind = re.sub(r"\W+", "", kind)
  kind = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", kind)
  return re.sub("([a-z])([A-Z])", r"\1_\2", kind).lower()
