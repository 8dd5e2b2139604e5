"""Checkpoint files that a command line names: each opened, or its fault noted.

One bad file of a folder does not keep the others from being read; what failed
is listed at the end, and the exit code is 1. Large networks stay in their files
until an encoder asks for their tensors, one after the other.

Dimensions: `P` weights of a network.
"""

import collections
import dataclasses
import functools
import math
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sne_jax import checkpoints, room
from sne_jax.learning.training import progress
from sne_jax.networks.spec import NetworkSpec

GROUP_WEIGHTS = 20_000_000
"""Weights of networks that are handed on together."""

Handler = Callable[[list[checkpoints.FileNetwork], list[Any]], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileOptions:
  """How files are read.

  Attributes:
    override: JSON file that settles what names and shapes of tensors do not
      (see sne_jax/networks/inference/override.py); for all files alike.
    layout: how kernels are stored where files do not say: out_in (PyTorch),
      in_out (Keras, Flax, x @ w in NumPy) or mlx; empty to find out.
    part: which network to read where a file holds several: a branch of a
      PyTorch file, names joined by "/", or what the names of its tensors begin
      with; empty to choose.
  """

  override: str = ""
  layout: str = ""
  part: str = ""

  def read_override(self) -> dict[str, Any] | None:
    """Returns what is settled by the file and the flags, if anything.

    Raises:
      ValueError: there is no such file, or it holds no JSON object.
    """
    override = checkpoints.read_override(self.override)
    return (
      (override or {}) | {"layout": self.layout} if self.layout else override
    )


def paths_of(arguments: Sequence[str]) -> list[str]:
  """Returns the checkpoints that arguments name; folders are searched.

  Raises:
    ValueError: none are named, or a folder holds none.
  """
  if not arguments:
    raise ValueError("name at least one checkpoint file, or a folder of them")
  paths = []
  for argument in arguments:
    if not os.path.isdir(argument):
      paths.append(argument)
      continue
    inside = checkpoints.find(argument)
    if not inside:
      raise ValueError(
        f"{argument} holds no checkpoint; known are safetensors, PyTorch, Flax,"
        " Orbax, Keras, ONNX and npz files"
      )
    paths += inside
  return list(dict.fromkeys(paths))


def each(
  paths: Sequence[str],
  options: FileOptions,
  handle: Handler,
  title: str,
  *,
  lazy_above: float | int = math.inf,
  familiar: checkpoints.Familiar | None = None,
) -> dict[str, str]:
  """Opens networks and hands them on, some at a time.

  Args:
    paths: of the checkpoints.
    options: how they are read.
    handle: is given networks, and their weights `[P]` or tensors. What it
      raises for one network, of any type, is taken as that file's fault.
    title: of the progress.
    lazy_above: networks of more weights than this are handed on one by one, as
      tensors that are read from the file when they are needed.
    familiar: see `checkpoints.load`.

  Returns:
    What was wrong, by path.
  """
  override = options.read_override()
  failures: dict[str, str] = {}
  with progress.Progress(title) as shown:
    read = functools.partial(
      checkpoints.load,
      override=override,
      part=options.part,
      familiar=familiar,
    )
    groups = _groups(paths, read, failures, lazy_above)
    for count, group in groups:
      networks, weights = [n for n, _ in group], [w for _, w in group]
      shown.hide()  # A large network has a line of its own, and may ask.
      try:
        handle(networks, weights)
      except Exception as error:  # noqa: BLE001 of a stranger's file
        if len(group) == 1:
          failures[networks[0].path] = line(error)
          continue
        # One of them is at fault: which?
        for network, vector in group:
          try:
            handle([network], [vector])
          except Exception as error:  # noqa: BLE001
            failures[network.path] = line(error)
      shown.update(count, len(paths))
  return failures


def _groups(
  paths: Sequence[str],
  read: Callable[[str], checkpoints.FileNetwork],
  failures: dict[str, str],
  lazy_above: float | int,
) -> Iterator[tuple[int, list[tuple[checkpoints.FileNetwork, Any]]]]:
  """Yields how many paths are done, and networks that are read."""
  group, total = [], 0
  for count, path in enumerate(paths, start=1):
    large = False
    try:
      network = read(path)
      large = network.spec.num_weights > lazy_above
      weights = network.lazy() if large else network.weights()
    except Exception as error:  # noqa: BLE001 of a stranger's file
      failures[path] = line(error)
    else:
      if large and group:
        yield count - 1, group
        group, total = [], 0
      group.append((network, weights))
      total += network.spec.num_weights
    if group and (large or total >= GROUP_WEIGHTS or count == len(paths)):
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


def parameters(spec: NetworkSpec) -> str:
  """Returns how many parameters there are, with running statistics or not."""
  text = f"{spec.num_weights:,} parameters"
  if spec.num_parameters == spec.num_weights:
    return text
  return f"{text} ({spec.num_parameters:,} without running statistics)"


def line(error: BaseException) -> str:
  """Returns an error as one line; of a kind that is not foreseen, its type."""
  text, kind = " ".join(str(error).split()), type(error).__name__
  if isinstance(error, MemoryError):
    return f"not enough memory: {text or kind}"
  if text.startswith("RESOURCE_EXHAUSTED"):
    return f"not enough memory ({text}); lower --stream_above"
  if isinstance(error, (ValueError, OSError, RuntimeError)):
    return text or kind
  return f"{kind}: {text}" if text else kind


def shown(path: str) -> str:
  """Returns a path on one line: what cannot be printed is escaped."""
  return "".join(c if c.isprintable() else repr(c)[1:-1] for c in path)


def say(word: str, said: Sequence[tuple[str, str]]) -> None:
  """Prints pairs of a file and what is said of it; the same of several once."""
  files: dict[str, list[str]] = {}
  for file, text in said:
    files.setdefault(text, []).append(file)
  for text, some in files.items():
    more = f" and {len(some) - 1} more" if len(some) > 1 else ""
    print(f"{word}: {shown(some[0])}{more}: {text}")


def check_outputs(paths: Sequence[str], given: Sequence[str] = ()) -> None:
  """Looks, before long work, whether files can be written; makes folders.

  Args:
    paths: of the files; empty ones are none.
    given: files that are read, and must stay.

  Raises:
    ValueError: one is a folder, is read, or cannot be written.
    NoRoom: the disk is full, or read-only.
  """
  read = {os.path.realpath(path) for path in given}
  for path in filter(None, paths):
    target = pathlib.Path(path)
    if target.is_dir():
      raise ValueError(f"{path} is a folder; name a file to write")
    if os.path.realpath(path) in read:
      raise ValueError(f"{path} is one of the files to read; name another")
    try:
      target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      if room.shortage(error) is not None:
        raise
      raise ValueError(f"{path} cannot be written ({error})") from error
    with room.writing(target), tempfile.TemporaryFile(dir=target.parent):
      pass


def report_failures(failures: dict[str, str]) -> int:
  """Lists what failed, and returns the exit code."""
  if failures:
    print(f"\n{len(failures)} could not be read:", file=sys.stderr)
  for path, why in failures.items():
    name = " ".join(path.split())
    text = why if why.startswith(name) else f"{shown(path)}: {why}"
    print(f"  {text}", file=sys.stderr)
  return 1 if failures else 0
