"""Networks as people hold them: files, state dicts, specs with weights.

Dimensions: `P` weights of a network.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from absl import logging

from sne_jax import checkpoints, errors
from sne_jax.encoders.sne import tensor_source
from sne_jax.learning.data import models
from sne_jax.learning.training.progress import Progress
from sne_jax.networks.spec import NetworkSpec

KINDS = (
  "the path of a file, a state_dict (arrays by name), a model of PyTorch, Keras"
  " or Flax, or (spec, weights)"
)


def networks_of(
  given: Any,
  *,
  lazy_above: float = float("inf"),
  familiar: checkpoints.Familiar | None = None,
) -> list[tuple[NetworkSpec, Any]]:
  """Returns `(spec, weights)` of what was given, one network or several.

  Args:
    given: one network as `network_of` takes it, or several of these.
    lazy_above: see `network_of`.
    familiar: see `checkpoints.load`.

  Raises:
    ValueError: there are none, or one is no network; the message says which.
  """
  if is_one(given):
    given = [given]
  elif hasattr(given, "pairs"):  # `Networks`.
    given = given.pairs()
  if not isinstance(given, Iterable):
    raise ValueError(f"got {type(given).__name__}; a network is {KINDS}")
  networks = [
    network_of(
      *(network, f"network {n}"), lazy_above=lazy_above, familiar=familiar
    )
    for n, network in enumerate(given)
  ]
  if not networks:
    raise ValueError("no networks given")
  return networks


def networks_of_files(
  paths: Sequence[str],
  override: Mapping[str, Any] | None = None,
  skip_unreadable: bool = False,
) -> tuple[list[tuple[NetworkSpec, Any]], list[int]]:
  """Returns `(spec, weights)` of files, and which of them were read.

  Args:
    paths: of checkpoints.
    override: for all alike; see `networks.inference.override`.
    skip_unreadable: leave out what cannot be read, of any fault, with a warning
      that says it.

  Raises:
    CheckpointError: a file cannot be read.
    ValueError: none can be read.
  """
  pairs: list[tuple[NetworkSpec, Any]] = []
  kept: list[int] = []
  faults: list[str] = []
  with Progress("reading networks") as progress:
    for number, path in enumerate(paths):
      try:
        pairs.append(network_of(path, path, override=override))
        kept.append(number)
      except Exception as error:
        if not skip_unreadable:
          raise
        kind = "" if isinstance(error, ValueError) else type(error).__name__
        text = " ".join(f"{kind} {error}".split())
        faults.append(text if text.startswith(path) else f"{path}: {text}")
        logging.warning("left out: %s", faults[-1])
      progress.update(number + 1, len(paths))
  if not pairs:
    raise ValueError(f"none of {len(paths)} files can be read: {faults[0]}")
  return pairs, kept


def names_of(given: Any, count: int) -> list[str]:
  """Returns what networks are called: their file, or `network N`.

  Args:
    given: as for `networks_of`.
    count: how many these are.
  """
  several = [] if hasattr(given, "pairs") else given
  several = [given] if is_one(given) else list(several)
  names = [f"network {n}" for n in range(count)]
  for n, one in enumerate(several):
    one = one.path if isinstance(one, checkpoints.FileNetwork) else one
    if isinstance(one, (str, os.PathLike)):
      names[n] = os.fspath(one)
  return names


def is_one(given: Any) -> bool:
  """Whether what was given is one network rather than several."""
  if models.kind_of(given) or models.is_traceable(given):
    return True
  if isinstance(given, tuple) and given:
    return isinstance(given[0], NetworkSpec)
  return isinstance(given, (str, os.PathLike, Mapping, checkpoints.FileNetwork))


def network_of(
  given: Any,
  label: str = "network",
  *,
  override: Mapping[str, Any] | None = None,
  lazy_above: float = float("inf"),
  familiar: checkpoints.Familiar | None = None,
) -> tuple[NetworkSpec, Any]:
  """Returns the spec of one network, and its weights `[P]` or tensors.

  Args:
    given: the path of a checkpoint of any format, an open one, a state_dict as
      PyTorch has them (arrays or tensors by name), or `(spec, weights)`; a
      model of PyTorch, Keras or Flax (of linen its variables); or `(model,
      example)`, a model of PyTorch with an input, to trace it: what names and
      shapes leave open is then known.
    label: what errors call it.
    override: settles what names and shapes of tensors do not; see
      `networks.inference.override`.
    lazy_above: a file of more weights than this is not read yet: its tensors
      are, by the spec's names, when they are asked for.
    familiar: see `checkpoints.load`.

  Raises:
    ValueError: it is no network, or names and shapes do not say which one.
  """
  if isinstance(given, (str, os.PathLike)):
    given = checkpoints.load(given, override=override, familiar=familiar)
  if isinstance(given, checkpoints.FileNetwork):
    large = given.spec.num_weights > lazy_above
    return given.spec, given.lazy() if large else given.weights()
  if models.is_traceable(given):
    return models.traced(given[0], given[1], label)
  kind = models.kind_of(given)
  if kind == "torch":
    given = given.state_dict()
  elif kind:
    try:
      return models.read(given, override=override, familiar=familiar)
    except errors.CheckpointError as error:
      # Not by the name of the file that was between.
      raise ValueError(f"{label}: {error.problem or error}") from error
  if isinstance(given, Mapping):
    return _of_state_dict(given, label, override, familiar)
  if (
    isinstance(given, (tuple, list))
    and len(given) == 2
    and isinstance(given[0], NetworkSpec)
  ):
    spec, weights = given
    if not isinstance(weights, Mapping):
      _check_finite(np.asarray(_array(weights), np.float32), spec, label)
    return spec, weights
  raise ValueError(f"{label} is {type(given).__name__}; give {KINDS}")


def vector_of(
  spec: NetworkSpec, weights: Any, label: str = "network"
) -> np.ndarray:
  """Returns weights `[P]`, or tensors by name, as one float32 vector.

  Args:
    spec: of the network.
    weights: of the network.
    label: what errors call it.

  Raises:
    ValueError: they do not have their spec's length, or its shapes; or are not
      finite.
  """
  if isinstance(weights, Mapping):
    source = tensor_source.TensorSource(spec, weights)
    vector = np.empty(spec.num_weights, np.float32)
    for place, part in enumerate(spec.unflatten(vector).values()):
      part[...] = source[place]
      source.give_back(place)
    _check_finite(vector, spec, label)
    return vector
  vector = np.asarray(_array(weights), np.float32)
  if vector.shape != (spec.num_weights,):
    raise ValueError(f"{spec.describe()}: got weights of shape {vector.shape}")
  _check_finite(vector, spec, label)
  return vector


def _check_finite(vector: np.ndarray, spec: NetworkSpec, label: str) -> None:
  """Refuses weights that are not finite, as those of a diverged training."""
  if not np.isfinite(vector).all():
    raise ValueError(
      f"{label} ({spec.describe()}) has weights that are not finite; leave it"
      " out"
    )


def _of_state_dict(tensors, label, override, familiar):
  """Finds out what network a state_dict is, and reads its weights."""
  arrays = {str(name): _array(value) for name, value in tensors.items()}
  first: dict[tuple, str] = {}
  tied = {
    name: owner
    for name, value in tensors.items()
    if (key := _storage(value))
    and (owner := first.setdefault(key, str(name))) != str(name)
  }
  nested = [n for n, a in arrays.items() if a.dtype == object]
  if nested:
    raise ValueError(
      f"{label}: {nested[0]!r} is no array; give a flat mapping of arrays by"
      " name, as PyTorch's state_dict() returns"
    )
  network = checkpoints.of_arrays(
    arrays, label, override=override, tied=tied, familiar=familiar
  )
  weights = network.weights(finite=False)
  if not np.isfinite(weights).all():
    raise ValueError(f"{label} has weights that are not finite; leave it out")
  return network.spec, weights


def _storage(value: Any) -> tuple:
  """Returns what is equal for one tensor under two names; () if unknown."""
  if hasattr(value, "detach"):  # Of PyTorch.
    if "strided" not in str(value.layout) or not value.data_ptr():
      return ()
    signs = (value.is_neg(), value.is_conj())
    where = (value.data_ptr(), value.stride(), tuple(value.shape))
    return (*where, str(value.dtype), *signs)
  if not isinstance(value, np.ndarray) or not value.size:
    return ()
  where = value.__array_interface__["data"][0]
  return (where, value.strides, value.shape, value.dtype.str)


def _array(value: Any) -> np.ndarray:
  """Returns an array, or a tensor of PyTorch, as a numpy array."""
  if not hasattr(value, "detach"):
    return np.asarray(value)
  value = value.detach().cpu()
  if "strided" not in str(value.layout):
    value = value.to_dense()
  value = value.resolve_conj().resolve_neg()
  kind = str(value.dtype).removeprefix("torch.")
  if kind in ("bfloat16", "float16"):
    value = value.float()
  if kind.startswith("float8"):  # Kept: beside it there may be a scale.
    dtype = np.dtype(getattr(ml_dtypes, kind))
    return value.float().numpy().astype(dtype)
  return np.asarray(value)
