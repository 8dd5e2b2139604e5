"""Zoos that take long to make: begun, broken off, taken up again.

Finished batches of members lie in `<path>.partial`, beside the plan: what the
zoo is to be, and how many members make a batch. Whoever resumes must want the
same zoo. When all batches are there, the zoo is written, whole or not at all.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from absl import logging as log

from sne_jax import atomic, digests, errors, room
from sne_jax.zoo.store import lock, store

PLAN_FILE = "plan.json"

Progress = Callable[[int, int, str], None]
"""Is told the networks done, how many there are, and what is being done."""


def make_zoo(
  path: str | os.PathLike,
  provenance: Mapping[str, Any],
  *,
  batch_members: int,
  find_batch_members: Callable[[], int],
  make: Callable[[str, int], store.Zoo],
  size: int = 0,
) -> store.Zoo:
  """Makes a zoo, resumes it, or opens it if it is there already.

  Args:
    path: folder of the zoo.
    provenance: what makes two zoos the same. Plain values; at least
      `generator`, and `options`, which are compared by name.
    batch_members: members of a batch; 0 takes up the number that was begun
      with, or, if there is none, the one that is found.
    find_batch_members: is called for it.
    make: is given the partial folder and the members of a batch; does what is
      not yet done, and writes the zoo to `path` by way of `staging(partial)`.
    size: bytes that it takes to make the zoo, where they are known.

  Returns:
    The zoo, opened.

  Raises:
    ZooError: `path` is a file, another process generates here, or `path` or
      `<path>.partial` hold a zoo of other options, which the message names.
    NoRoom: the disk has no room for it; nothing was begun.
  """
  path = os.path.abspath(path)
  if os.path.exists(path) and not os.path.isdir(path):
    raise errors.fault(path, "", "is a file, not a folder", "choose a folder")
  os.makedirs(os.path.dirname(path), exist_ok=True)
  partial = f"{path}.partial"

  def opened() -> store.Zoo:
    zoo = store.Zoo.open(path)
    _compare(path, "", provenance, zoo.provenance)
    return zoo

  is_there = lambda: os.path.isdir(path) and os.listdir(path)
  if is_there() and not os.path.exists(partial):
    return opened()  # Several may read at once.
  with lock.folder_lock(path):
    if is_there():
      zoo = opened()
      shutil.rmtree(partial, ignore_errors=True)
      return zoo
    room.check(path, size, "the zoo", there=room.taken(partial))
    batch = begin(partial, provenance, batch_members, find_batch_members)
    zoo = make(partial, batch)
    shutil.rmtree(partial)
  return zoo


def staging(partial: str) -> str:
  """Returns the folder within a partial one to write the zoo in."""
  return os.path.join(partial, "zoo")


def part(
  partial: str,
  number: int,
  shapes: Mapping[str, tuple[int, ...]],
  make: Callable[[], Mapping[str, np.ndarray]],
) -> tuple[dict[str, np.ndarray], bool]:
  """Reads a finished batch, or makes and keeps it.

  Args:
    partial: the folder.
    number: of the batch.
    shapes: of the arrays that a whole batch has.
    make: is called if the batch is missing or not whole.

  Returns:
    The arrays, and whether they were there.

  Raises:
    NoRoom: the batch cannot be written, because a disk is full for one.

  A batch that is not what was written is made anew, with a warning.
  """
  file = os.path.join(partial, f"part-{number:08d}.safetensors")
  with contextlib.suppress(FileNotFoundError, safetensors.SafetensorError):
    arrays = safetensors.numpy.load_file(file)
    with safetensors.safe_open(file, "np") as opened:
      known = (opened.metadata() or {}).get(digests.SEAL)
    intact = known in (None, digest_of(arrays))  # Those of before have none.
    if not intact:
      log.warning("%s was changed or damaged; it is made anew", file)
    wanted = dict(shapes)
    if intact and {k: array.shape for k, array in arrays.items()} == wanted:
      return arrays, True
  arrays = {k: np.ascontiguousarray(v) for k, v in make().items()}
  # Not by its save_file, which hides that a disk is full.
  metadata = {digests.SEAL: digest_of(arrays)}
  content = safetensors.numpy.save(arrays, metadata)
  atomic.write_atomically(file, content)
  return arrays, False


def digest_of(arrays: Mapping[str, np.ndarray]) -> str:
  """Returns the SHA-256 of arrays: names, types, shapes, values."""
  digest = hashlib.sha256()
  for name, array in sorted(arrays.items()):
    digest.update(repr((name, str(array.dtype), array.shape)).encode())
    digest.update(np.ascontiguousarray(array).tobytes())
  return digest.hexdigest()


def _compare(path: str, file: str, provenance, stored) -> None:
  """Raises `ZooError` if `stored` is of another generator or other options.

  A zoo that was asked for without a split may have one.
  """
  if stored.get("generator") != provenance["generator"]:
    raise errors.fault(
      path,
      file,
      f"holds a zoo of another origin ({stored.get('generator')!r})",
      "choose another folder",
    )
  old, new = stored.get("options", {}), provenance["options"]
  differing = [
    f"{name} is {old.get(name)!r} there, {new.get(name)!r} asked for"
    for name in sorted(old.keys() | new.keys())
    if old.get(name) != new.get(name)
    and not (name == "split" and new[name] is None)
  ]
  if differing:
    raise errors.fault(
      path,
      file,
      f"holds a zoo of other options: {', '.join(differing)}",
      "remove it, or choose another folder",
    )


def begin(
  partial: str,
  provenance: Mapping[str, Any],
  wanted: int,
  find_batch_members: Callable[[], int],
) -> int:
  """Makes or takes up the partial folder; returns the size of its batches.

  Args:
    partial: the folder.
    provenance: see `make_zoo`.
    wanted: members of a batch, or 0; see `make_zoo`.
    find_batch_members: see `make_zoo`.

  Raises:
    ZooError: it was begun with something else, or its plan is unreadable.
  """
  plan_file = os.path.join(partial, PLAN_FILE)
  os.makedirs(partial, exist_ok=True)
  if not os.path.exists(plan_file):
    batch = wanted or find_batch_members()
    plan = digests.sealed({**provenance, "batch_members": batch})
    atomic.write_json(plan_file, plan)
    return batch
  try:
    with open(plan_file, encoding="utf-8") as file:
      plan = json.load(file)
    if digests.SEAL in plan:  # Those of before have none.
      plan = digests.unsealed(plan)
    planned = int(plan["batch_members"])
  except (ValueError, KeyError, TypeError) as error:
    raise errors.fault(
      partial, PLAN_FILE, f"unreadable ({error!r})", "remove the folder"
    ) from error
  _compare(partial, "", provenance, plan)
  if wanted and planned != wanted:
    raise errors.fault(
      partial,
      "",
      f"was begun with batches of {planned}, not {wanted}",
      f"set batch_members to {planned} or 0, or remove the folder",
    )
  return planned


def place(tree, devices):
  """Cuts the members (axis 0) of every array over devices; copies scalars."""
  if len(devices) == 1:
    return jax.device_put(tree, devices[0])
  mesh = jax.sharding.Mesh(np.array(devices), ("members",))

  def put(array):
    axes = ("members",) if array.ndim else ()
    spec = jax.sharding.PartitionSpec(*axes)
    return jax.device_put(array, jax.sharding.NamedSharding(mesh, spec))

  return jax.tree.map(put, tree)


def free_bytes(devices) -> int:
  """Returns the memory that is free for programs on each of some devices.

  1 GiB where nothing tells. Devices of a CPU share its memory.
  """
  if devices[0].platform == "cpu":
    return _free_host_bytes() // len(devices)
  stats = devices[0].memory_stats() or {}
  return stats.get("bytes_limit", 1 << 30) - stats.get("bytes_in_use", 0)


def _free_host_bytes() -> int:
  try:
    with open("/proc/meminfo", encoding="ascii") as file:
      sizes = dict(line.split(":") for line in file)
    return 1024 * int(sizes["MemAvailable"].split()[0])
  except (OSError, ValueError, KeyError):
    return 1 << 30
