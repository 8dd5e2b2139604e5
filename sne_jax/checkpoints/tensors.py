"""Named tensors of one checkpoint, whatever the format: read when asked for.

Dimensions: none; a tensor has any shape.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping

import ml_dtypes
import numpy as np

from sne_jax import errors
from sne_jax.checkpoints.limits import Budget
from sne_jax.networks.inference import Graph

BLOCK = 1 << 20
"""Numbers looked at a time where a whole tensor is gone through."""

DTYPES = {
  name: np.dtype(kind)
  for name, kind in {
    **{
      name: name
      for name in (
        *("bool", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
      )
    },
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "float8_e8m0fnu": ml_dtypes.float8_e8m0fnu,
  }.items()
}
"""Every dtype that a reader may hand on, by the name that `Entry` has."""

FLOATS = frozenset(n for n in DTYPES if n.startswith(("float", "bfloat")))
"""Names of the dtypes of real numbers that are not whole."""


OWN_KEYS = frozenset(
  (
    *("left_out", "taken", "part", "prefix", "modules", "values"),
    *("computed", "shards"),
  )
)
"""Keys of `Tensors.metadata` that readers write, not files."""


@dataclasses.dataclass(frozen=True)
class Entry:
  """One tensor of a checkpoint; its numbers are still on disk.

  Attributes:
    name: as in the file; in a tree the path of the leaf, with dots in PyTorch
      files and slashes in Flax, Orbax and Keras files.
    shape: sizes of the axes, in the file's own order; () for a number.
    dtype: a name of `DTYPES`.
    load: returns the array; use `read`, which checks it.
    tied_to: name of an earlier entry that has exactly the same storage (one
      tensor under two names), or None.
    computed_from: names in the file of what it is computed from, where it does
      not lie there itself; see `recipes`.
    uncompute: gives those by name, from an array in its place; None if nothing
      does.
    doubt: why its numbers are not what the network computes with; "" if they
      are.
  """

  name: str
  shape: tuple[int, ...]
  dtype: str
  load: Callable[[], np.ndarray] = dataclasses.field(repr=False, compare=False)
  tied_to: str | None = None
  computed_from: tuple[str, ...] = ()
  uncompute: Callable[[np.ndarray], dict[str, np.ndarray]] | None = (
    dataclasses.field(default=None, repr=False, compare=False)
  )
  doubt: str = ""

  @property
  def size(self) -> int:
    """Count of numbers."""
    return math.prod(self.shape)

  @property
  def num_bytes(self) -> int:
    """Bytes of the array."""
    return self.size * DTYPES[self.dtype].itemsize

  def read(self) -> np.ndarray:
    """Returns the array, of `shape` and `dtype`, often mapped and read-only.

    Other tensors are not read. A mapped array comes from disk page by page as
    it is used, and need not be contiguous or aligned.

    Raises:
      CheckpointError: the numbers cannot be read, or are not what the header
        announced.
    """
    array = self.load()
    if array.shape != self.shape or array.dtype != DTYPES[self.dtype]:
      raise errors.unreadable(
        self.name,
        f"read as {array.dtype}{list(array.shape)} where"
        f" {self.dtype}{list(self.shape)} was announced",
      )
    return array


@dataclasses.dataclass(frozen=True)
class Tensors:
  """All tensors of one checkpoint.

  Attributes:
    entries: by name, in the order of the file. No guarantee that this is the
      order of computation: safetensors files are sorted by name, for one.
    format: "safetensors", "torch", "flax", "orbax", "keras", "onnx", "npz"
      or "gguf".
    source: the file or folder.
    metadata: what else the file says, as text; see each reader. Keys that all
      may have: `left_out` (what is in the file but not in `entries`, and why),
      `taken` (which branch was read, where others were not), `computed` (which
      entries are computed from others, and how).
    graph: what the file says of how the network is computed, to be played;
      None where it holds tensors alone.
  """

  entries: Mapping[str, Entry]
  format: str
  source: str
  metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
  graph: Graph | None = dataclasses.field(default=None, repr=False)

  def __repr__(self) -> str:
    """One line with the file and the counts."""
    return (
      f"Tensors({self.source!r}: {self.format}, {len(self.entries)} tensors,"
      f" {self.num_numbers} numbers)"
    )

  @property
  def num_numbers(self) -> int:
    """Count of numbers; tied tensors count once."""
    return sum(e.size for e in self.entries.values() if e.tied_to is None)


def add(
  entries: dict[str, Entry], entry: Entry, budget: Budget, stored: int
) -> None:
  """Adds an entry to those of a file, and counts it; tied ones take nothing.

  Raises:
    CheckpointError: there is one of that name, or a limit is passed.
  """
  if entry.name in entries:
    raise errors.unreadable(
      budget.path, f"two tensors are called {entry.name!r}"
    )
  num_bytes = 0 if entry.tied_to else entry.num_bytes
  budget.take(entry.name, num_bytes, stored=stored)
  entries[entry.name] = entry


def retied(entries: Mapping[str, Entry]) -> dict[str, Entry]:
  """Returns entries whose ties are to the first of one storage among them."""
  made: dict[str, Entry] = {}
  first: dict[str, str] = {}
  for name, entry in entries.items():
    owner = first.setdefault(entry.tied_to or name, name)
    tied_to = None if owner == name else owner
    made[name] = dataclasses.replace(entry, tied_to=tied_to)
  return made


def not_finite(entry: Entry, *, as_float32: bool = False) -> int:
  """Returns how many numbers of a tensor are NaN or infinite, 0 for integers.

  Goes through the tensor in blocks; a mapped tensor is not loaded at once.

  Args:
    entry: the tensor.
    as_float32: count those of float64 that are infinite as float32, too.

  Raises:
    CheckpointError: the numbers cannot be read.
  """
  if entry.dtype not in FLOATS and not entry.dtype.startswith("complex"):
    return 0
  array, bad = entry.read(), 0
  if not array.size:
    return 0
  wide = entry.dtype in ("float32", "float64", "complex64", "complex128")
  wide = wide and not (as_float32 and entry.dtype == "float64")
  # Blocks in the order of memory; a strided view is not copied as a whole.
  for part in np.nditer(
    array, ["external_loop", "buffered"], order="K", buffersize=BLOCK
  ):
    block = np.asarray(part)
    with np.errstate(over="ignore"):
      block = block if wide else block.astype(np.float32)
    bad += int(block.size - np.isfinite(block).sum())
  return bad


def check_finite(tensors: Tensors, names: Iterable[str] | None = None) -> None:
  """Refuses a checkpoint in which a number is NaN or infinite.

  Args:
    tensors: what was read.
    names: entries to look at; all by default. Tied ones are looked at once.

  Raises:
    CheckpointError: names the first such tensor, and how many there are.
  """
  bad = {}
  for name in tensors.entries if names is None else names:
    entry = tensors.entries[name]
    if entry.tied_to is None and (count := not_finite(entry)):
      bad[name] = count
  if bad:
    first, count = next(iter(bad.items()))
    more = f", and so in {len(bad) - 1} other tensor(s)" * (len(bad) > 1)
    raise errors.unreadable(
      tensors.source,
      f"{count} of {tensors.entries[first].size} numbers of {first!r} are NaN"
      f" or infinite{more}",
      "the network has diverged; ask for such weights explicitly to keep them",
    )
