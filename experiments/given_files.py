"""Checkpoint files that a command line names: each opened, or its fault noted.

One bad file of a folder does not keep the others from being read; what failed
is listed at the end, and the exit code is 1.

Dimensions: `P` weights of a network.
"""

import collections
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sne_jax.learning import progress
from sne_jax.networks.spec import NetworkSpec
from sne_jax.zoo import checkpoints, errors

GROUP_WEIGHTS = 20_000_000
"""Weights of networks that are handed on together."""

Handler = Callable[[list[checkpoints.FileNetwork], list[Any]], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileOptions:
  """How files are read.

  Attributes:
    override: JSON file that settles what names and shapes of tensors do not
      (see sne_jax/networks/inference/override.py); for all files alike.
    part: which branch of a PyTorch file to read, names joined by "/", where a
      trainer saved several networks; empty to choose.
  """

  override: str = ""
  part: str = ""


def paths_of(arguments: Sequence[str]) -> list[str]:
  """Returns the checkpoints that arguments name; folders are searched.

  Raises:
    ValueError: none are named, or a folder holds none.
  """
  if not arguments:
    raise ValueError("name at least one checkpoint file, or a folder of them")
  found = []
  for argument in arguments:
    if not os.path.isdir(argument):
      found.append(argument)
      continue
    inside = checkpoints.find(argument)
    if not inside:
      raise ValueError(
        f"{argument} holds no checkpoint; known are safetensors, PyTorch, Flax,"
        " Orbax, Keras, ONNX and npz files"
      )
    found += inside
  return list(dict.fromkeys(found))


def each(
  paths: Sequence[str], options: FileOptions, handle: Handler, title: str
) -> dict[str, str]:
  """Opens networks and hands them on, some at a time.

  Args:
    paths: of the checkpoints.
    options: how they are read.
    handle: is given networks, and their weights `[P]`. What it says of one
      network with a `ValueError` is taken as that file's fault.
    title: of the progress.

  Returns:
    What was wrong, by path.
  """
  override = checkpoints.read_override(options.override)
  failures: dict[str, str] = {}
  with progress.Progress(title) as shown:
    for count, group in _groups(paths, options, override, failures):
      networks, weights = [n for n, _ in group], [w for _, w in group]
      try:
        handle(networks, weights)
      except ValueError:
        # One of them is at fault: which?
        for network, vector in group:
          try:
            handle([network], [vector])
          except ValueError as error:
            failures[network.path] = str(error)
      shown.update(count, len(paths))
  return failures


def _groups(
  paths: Sequence[str],
  options: FileOptions,
  override: Any,
  failures: dict[str, str],
) -> Iterator[tuple[int, list[tuple[checkpoints.FileNetwork, Any]]]]:
  """Yields how many paths are done, and networks that are read."""
  group, total = [], 0
  for count, path in enumerate(paths, start=1):
    try:
      network = checkpoints.load(path, override=override, part=options.part)
      weights = network.weights()
    except (errors.CheckpointError, ValueError, OSError) as error:
      failures[path] = " ".join(str(error).split())
    else:
      group.append((network, weights))
      total += len(weights)
    if group and (total >= GROUP_WEIGHTS or count == len(paths)):
      yield count, group
      group, total = [], 0


def architecture(spec: NetworkSpec) -> str:
  """Returns what a network is, in a few words."""
  names = {
    "linear_weight": "dense",
    "conv_weight": "conv",
    "embedding": "embedding",
    "norm_scale": "norm",
    "attention_q": "attention",
  }
  counts = collections.Counter(
    names[t.kind] for t in spec.tensors if t.kind in names
  )
  parts = [f"{n} {name}" for name, n in counts.items()]
  if spec.skips:
    parts.append(f"{len(spec.skips)} skips")
  return ", ".join(parts) or f"{len(spec.tensors)} tensors"


def report_failures(failures: dict[str, str]) -> int:
  """Lists what failed, and returns the exit code."""
  if failures:
    print(f"\n{len(failures)} could not be read:", file=sys.stderr)
  for path, why in failures.items():
    text = why if why.startswith(path) else f"{path}: {why}"
    print(f"  {text}", file=sys.stderr)
  return 1 if failures else 0
