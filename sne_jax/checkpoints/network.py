"""A network from a file: what it is, and its weights.

Dimensions: `P` weights of a network.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from sne_jax import errors
from sne_jax.checkpoints import contents, reading, recipes, tensors
from sne_jax.checkpoints.limits import Limits
from sne_jax.networks import inference
from sne_jax.networks.inference.override import as_override
from sne_jax.networks.spec import NetworkSpec

Familiar = Callable[[NetworkSpec], bool]
"""Says whether networks of a spec are expected; see `load`."""


@dataclasses.dataclass(frozen=True)
class FileTensor:
  """One tensor of a spec, still in its file.

  Attributes:
    source: where it lies.
    entry: the tensor of the file that holds it.
  """

  source: inference.Source
  entry: tensors.Entry

  @property
  def shape(self) -> tuple[int, ...]:
    """The spec's."""
    return self.source.shape

  def read(self) -> np.ndarray:
    """Returns the array: a view of the mapped file where that is possible.

    Raises:
      CheckpointError: it cannot be read.
    """
    return self.source.take(self.entry.read())


@dataclasses.dataclass(frozen=True)
class FileNetwork:
  """A network as it lies in a file.

  Attributes:
    path: the file or folder.
    tensors: what it holds; numbers are read when they are asked for.
    inferred: the spec, where each of its tensors lies, and what is doubtful.
  """

  path: str
  tensors: tensors.Tensors
  inferred: inference.InferredNetwork

  @property
  def spec(self) -> NetworkSpec:
    """The network."""
    return self.inferred.spec

  @property
  def found(self) -> inference.InferredNetwork:
    """`inferred`, by its name in code written for earlier versions."""
    return self.inferred

  @property
  def notes(self) -> tuple[str, ...]:
    """What of the file is not in the network, or not as it is stored."""
    metadata = self.tensors.metadata
    reasons: dict[str, list[str]] = {}
    for name, why in self.left_out.items():
      reasons.setdefault(why, []).append(name)
    return (
      *(f"read was {one}" for one in _given(metadata, "taken")),
      *(f"not read were {one}" for one in _given(metadata, "left_out")),
      *(f"computed is {one}" for one in _given(metadata, "computed")),
      *(f"computed is {one}" for one in self._dequantised()),
      *(
        f"left out: {', '.join(names[:3])}"
        + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        + f": {why}"
        for why, names in reasons.items()
      ),
    )

  @property
  def unbiased(self) -> str:
    """Says which layers have no bias where others have one; "": none."""
    layers = [
      tensor.name
      for tensor in self.spec.tensors
      if tensor.kind in ("linear_weight", "conv_weight")
    ]
    shifted = {tensor.of for tensor in self.spec.tensors}
    without = [name for name in layers if name not in shifted]
    if not without or len(without) == len(layers):
      return ""
    more = f" and {len(without) - 3} more" if len(without) > 3 else ""
    return (
      f"no bias was found of {', '.join(without[:3])}{more}; others have one"
    )

  @property
  def left_out(self) -> dict[str, str]:
    """What of the file is not in the network, and why.

    Stored integers and scales that a weight is computed from are in it.
    """
    parts = {part for names in self._stored().values() for part in names}
    out = self.inferred.left_out
    return {name: why for name, why in out.items() if name not in parts}

  def _stored(self) -> dict[str, tuple[str, ...]]:
    """Weights that a graph computes from entries beside them, and those."""
    entries = self.tensors.entries
    return {
      name: entries[name].computed_from
      for name in self._used()
      if _has_parts(self.tensors, name)
    }

  def _dequantised(self) -> list[str]:
    """Says which weights are computed from stored integers, some of them."""
    said = [
      f"{name} from {', '.join(parts)}"
      for name, parts in self._stored().items()
    ]
    more = f" and {len(said) - 3} more" if len(said) > 3 else ""
    return [f"{', '.join(said[:3])}{more}, by DequantizeLinear"] if said else []

  def weights(self, *, finite: bool = True) -> Float[np.ndarray, "P"]:
    """Reads all weights, float32.

    Args:
      finite: refuse weights that are NaN or infinite.

    Raises:
      CheckpointError: they cannot be read, or are not finite.
    """
    weights = self.inferred.gather(self.tensors.entries)
    if finite and not np.isfinite(weights).all():
      self.check_finite()
      raise self._too_large()
    return weights

  def check_finite(self) -> list[str]:
    """Refuses weights that are NaN or infinite, block by block.

    Constants of a graph may well be so, as the value of a masked place.

    Returns:
      Names of tensors that are not finite, and no weights of the network.

    Raises:
      CheckpointError: names the first such tensor of weights.
    """
    used = self._used()
    tensors.check_finite(self.tensors, used)
    others = self.tensors.entries.keys() - used.keys()
    return [
      name
      for name, entry in self.tensors.entries.items()
      if name in others and entry.tied_to is None and tensors.not_finite(entry)
    ]

  def _used(self) -> dict[str, None]:
    """Names of the entries that hold weights of the network, each once."""
    entries = self.tensors.entries
    used = [entries[source.name] for source in self.inferred.sources]
    return dict.fromkeys(entry.tied_to or entry.name for entry in used)

  def lazy(self, *, finite: bool = True) -> dict[str, FileTensor]:
    """Returns the tensors by the spec's names, to be read when needed.

    Args:
      finite: refuse weights that are NaN or infinite, or beyond float32; they
        are gone through once, block by block.

    Raises:
      CheckpointError: they cannot be read, or are not finite.
    """
    entries = self.tensors.entries
    if finite:
      names = self._used()
      tensors.check_finite(self.tensors, names)
      wide = [entries[n] for n in names if entries[n].dtype == "float64"]
      if any(tensors.not_finite(e, as_float32=True) for e in wide):
        raise self._too_large()
    return {
      s.tensor: FileTensor(s, entries[s.name]) for s in self.inferred.sources
    }

  def _too_large(self) -> errors.CheckpointError:
    return errors.unreadable(
      self.path, "weights are too large for float32", "scale them first"
    )


def _given(metadata: Mapping[str, str], key: str) -> list[str]:
  return [metadata[key]] if metadata.get(key) else []


def load(
  path: str | os.PathLike,
  *,
  override: inference.Override | Mapping[str, Any] | None = None,
  part: str = "",
  limits: Limits | None = None,
  familiar: Familiar | None = None,
) -> FileNetwork:
  """Opens a checkpoint of any format and finds out what network it is.

  Args:
    path: see `reading.read`.
    override: what a person settles; see `networks.inference.override`.
    part: which network of several to read; see `reading.read`.
    limits: what the file may ask for.
    familiar: says of a spec whether networks of it are expected. Where names
      and shapes leave open whether there are skips, and the network is familiar
      without any, it is read so; `inferred.guesses` says it.

  Raises:
    CheckpointError: no readable checkpoint, one of something else than a
      network, or one whose network names and shapes do not settle. One line:
      file, what, remedy.
  """
  opened = reading.read(path, part=part, limits=limits)
  return _found(os.fspath(path), opened, as_override(override), familiar)


def of_arrays(
  arrays: Mapping[str, np.ndarray],
  source: str,
  *,
  override: inference.Override | Mapping[str, Any] | None = None,
  tied: Mapping[str, str] | None = None,
  familiar: Familiar | None = None,
) -> FileNetwork:
  """Finds out what network a state_dict of PyTorch is, as `load` of a file.

  Args:
    arrays: by name.
    source: what errors call it.
    override: as of `load`.
    tied: names of arrays that are another's, and that name.
    familiar: as of `load`.

  Raises:
    CheckpointError: as of `load`.
  """
  entries = {
    name: tensors.Entry(
      name,
      array.shape,
      array.dtype.name,
      lambda array=array: array,
      (tied or {}).get(name),
    )
    for name, array in arrays.items()
    if array.dtype.name in tensors.DTYPES
  }
  opened = tensors.Tensors(entries, "torch", source)
  computed = reading.as_computed(opened)
  return _found(source, computed, as_override(override), familiar)


def _found(
  path: str,
  opened: tensors.Tensors,
  override: inference.Override,
  familiar: Familiar | None,
) -> FileNetwork:
  """Finds out what network tensors are; see `load`."""
  found = _read(path, opened, override)
  settled = found.inferred.how == "traced" or override.skips is not None
  if familiar is None or settled:
    return found
  try:
    plain = _read(path, opened, dataclasses.replace(override, skips=()))
  except errors.CheckpointError:
    return found
  if plain.spec == found.spec or not familiar(plain.spec):
    return found
  said = "without skips, as networks of its shapes in the training are"
  guesses = (*plain.inferred.guesses, said)
  inferred = dataclasses.replace(plain.inferred, guesses=guesses)
  return dataclasses.replace(plain, inferred=inferred)


def _has_parts(opened: tensors.Tensors, name: str) -> bool:
  """Whether other entries are what a tensor is computed from."""
  parts = set(opened.entries[name].computed_from)
  return bool((parts - {name}) & opened.entries.keys())


def _read(
  path: str, opened: tensors.Tensors, override: inference.Override
) -> FileNetwork:
  """Finds out what network tensors are, of themselves."""
  other = contents.describe(opened)
  settled = override.opaque
  if other is not None and not other.final:
    settled = override != inference.Override()
  if other is not None and (other.unread or not settled):
    raise errors.unreadable(
      os.fspath(path), f"it is {other.what}", other.remedy
    )
  recipes.check_doubts(opened, override.names_left_out(opened.entries))
  try:
    inferred = inference.infer_file(opened, override)
  except inference.AmbiguousError as error:
    what = "it is GGUF; " if opened.format == "gguf" else ""
    problem = f"{what}{error.problem}"
    raise errors.unreadable(path, problem, error.remedy) from error
  uncompute = {
    name: entry.uncompute
    for name, entry in opened.entries.items()
    if entry.computed_from and not _has_parts(opened, name)
  }
  inferred = dataclasses.replace(inferred, uncompute=uncompute)
  return FileNetwork(path, opened, inferred)


def read_override(path: str) -> dict[str, Any] | None:
  """Reads an override from a JSON file; None for no path.

  Raises:
    ValueError: there is no such file, or it holds no JSON object.
  """
  if not path:
    return None
  try:
    with open(path, encoding="utf-8") as file:
      override = json.load(file)
  except (OSError, ValueError) as error:
    raise ValueError(f"override {path}: {error}; give a JSON object") from error
  if not isinstance(override, dict):
    raise ValueError(
      f"override {path} holds no JSON object, but {override!r:.60}"
    )
  return override
