"""Nested containers of tensors: which part is the network, and its names.

Trainers save more than a network: {"model": {...}, "optimizer": {...},
"epoch": 3}. What is not the network is left out, and said.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sne_jax import errors
from sne_jax.checkpoints.limits import Budget

NETWORK = (
  *("state_dict", "model_state_dict", "model_state", "model", "module"),
  *("net", "network", "weights", "params"),
)
"""Names under which trainers keep the network, the most telling first."""

TRAINER = frozenset(
  (
    *("optimizer", "optimizers", "optimizer_state", "optimizer_states"),
    *("optimizer_state_dict", "optim", "opt", "opt_state", "tx", "amp"),
    *("scheduler", "lr_scheduler", "lr_schedulers", "scheduler_state_dict"),
    *("scaler", "grad_scaler", "callbacks", "loops", "rng", "rng_state"),
    *("step", "global_step", "epoch", "iteration", "best_acc", "loss"),
    *("metrics", "metric", "losses", "history", "results", "random_state"),
  )
)
"""Names under which they keep what is not the network."""

_TRAINERS = re.compile(
  r"(^|_)(optim(izers?)?|(lr_)?sched(ulers?)?|(grad|amp)_scaler)(_|$)"
)
_AVERAGES = re.compile(r"(^|_)(ema|averaged?|swa|shadow|target)(_|$)")

COLLECTIONS = ("params", "batch_stats")
"""Collections of Flax variables that every network with them has."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""First words that wrappers put before every name; kept, but noted."""

MAX_DEPTH = 64
MAX_VALUES = 1000
MAX_TEXT = 1000

Leaf = tuple[tuple[str, ...], Any]
_NUMBERS = (int, float, type(None))


def leaves(tree: Any, budget: Budget) -> list[Leaf]:
  """Returns path and value of everything in nested tables and lists.

  Raises:
    CheckpointError: it is nested too deep (perhaps in itself), or has more
      leaves than the limits allow; a shared branch counts each time.
  """
  pairs: list[Leaf] = []
  work: list[Leaf] = [((), tree)]
  visited = 0
  limit = 20 * budget.limits.max_entries
  while work:
    path, node = work.pop()
    visited += 1
    if visited > limit:
      raise budget.fault(f"more than {limit} values in it", "max_entries")
    if isinstance(node, dict):
      inner = list(node.items())
    elif isinstance(node, (list, tuple)):
      inner = list(enumerate(node))
    else:
      pairs.append((path, node))
      continue
    if len(path) >= MAX_DEPTH:
      raise errors.unreadable(
        budget.path,
        f"nested more than {MAX_DEPTH} deep",
        "save a plain table of names and tensors",
      )
    for key, value in reversed(inner):
      work.append(((*path, _text(key)), value))
  return pairs


def pick(
  tree: Any, is_tensor: Callable[[Any], bool], budget: Budget, part: str = ""
) -> tuple[list[Leaf], dict[str, str]]:
  """Chooses the network in what a trainer saved.

  A table that holds tensors itself is a network. Else the branch is followed
  that has a telling name, or that alone holds tensors.

  Args:
    tree: nested tables and lists.
    is_tensor: whether a value is a tensor.
    budget: of this file.
    part: path of the branch to take, its names joined by "/"; empty to choose.
      What follows the branch, or is none, is a start of names (`parts.take`).

  Returns:
    Path, from the branch on, and value of each tensor; and metadata: `part`
    (the branch), `left_out` (what else holds tensors, and why it was left),
    `taken` (the branch once more, where something was left), `values` (numbers
    and texts beside the tensors, as JSON).

  Raises:
    CheckpointError: no tensor, or two networks and no way to choose.
  """
  everything = leaves(tree, budget)
  tensors = [path for path, value in everything if is_tensor(value)]
  if not tensors:
    raise _no_tensors(budget)
  chosen = tuple(filter(None, part.split("/")))
  while chosen and not any(
    path[: len(chosen)] == chosen and len(path) > len(chosen)
    for path in tensors
  ):
    chosen = chosen[:-1]
  chosen = chosen or _choose(tree, tensors, budget, part)
  depth = len(chosen)
  taken = [
    (path[depth:], value)
    for path, value in everything
    if path[:depth] == chosen and is_tensor(value)
  ]
  out: dict[str, int] = {}
  for path in tensors:
    if path[:depth] != chosen:
      same = sum(1 for a, b in zip(path, chosen, strict=False) if a == b)
      name = "/".join(path[: same + 1])
      out[name] = out.get(name, 0) + 1
  metadata = {}
  if chosen:
    metadata["part"] = "/".join(chosen)
  if out:
    metadata["left_out"] = counted(out, are_parts=True)
    metadata["taken"] = f"{'/'.join(chosen)} ({_tensors(len(taken))})"
  values = _values(everything)
  if values:
    metadata["values"] = values
  return taken, metadata


def variables(
  everything: list[Leaf], is_tensor: Callable[[Any], bool], budget: Budget
) -> tuple[list[Leaf], dict[str, str]]:
  """Chooses the network in a Flax tree: all collections, no trainer's state.

  Args:
    everything: what `leaves` gave.
    is_tensor: whether a value is a tensor.
    budget: of this file.

  Returns:
    Path and value of each tensor; and metadata, as of `pick`.

  Raises:
    CheckpointError: no tensor.
  """
  taken, out = [], {}
  for path, value in everything:
    if not is_tensor(value):
      continue
    end = next((i for i, p in enumerate(path) if p in COLLECTIONS), 1)
    if not any(map(_is_trainers, path[:end])):
      taken.append((path, value))
    else:
      out[path[0]] = out.get(path[0], 0) + 1
  if not taken:
    raise _no_tensors(budget)
  metadata = {"left_out": counted(out)} if out else {}
  values = _values(everything)
  return taken, metadata | ({"values": values} if values else {})


def counted(out: Mapping[str, int], *, are_parts: bool = False) -> str:
  """Returns names, their counts of tensors, and why they are left, in words.

  Args:
    out: counts by name.
    are_parts: whether each can be read by naming it as the part.
  """
  return ", ".join(
    f"{name} ({_tensors(count)}{_why(name, are_parts)})"
    for name, count in out.items()
  )


def _tensors(count: int) -> str:
  return f"{count} tensor{'s' * (count != 1)}"


def _why(name: str, is_part: bool) -> str:
  """Returns what a branch that is left out seems to be."""
  words = re.split(r"[./]", name.lower())
  if any(map(_is_trainers, words)):
    return ": the trainer's"
  kind = "an average, " if any(map(_AVERAGES.search, words)) else ""
  return f": {kind}read as part {name!r}" if is_part else ""


def _is_trainers(word: str) -> bool:
  return word in TRAINER or bool(_TRAINERS.search(word))


def prefix(names: Iterable[str]) -> str:
  """Returns what wrappers put before every name; empty if nothing."""
  names, shared = list(names), ""
  while names:
    for start in PREFIXES:
      if all(name.startswith(shared + start) for name in names):
        shared += start
        break
    else:
      break
  return shared


def _choose(
  tree: Any, tensors: list[tuple[str, ...]], budget: Budget, part: str
) -> tuple[str, ...]:
  """Returns the path of the branch that is the network."""
  problem = (
    f"no tensors under {part!r}" if part else "it holds several networks"
  )
  chosen: tuple[str, ...] = ()
  while True:
    depth = len(chosen)
    below = [path for path in tensors if path[:depth] == chosen]
    branches = dict.fromkeys(p[depth] for p in below if len(p) > depth + 1)
    plain = [p for p in below if len(p) <= depth + 1]
    plain = [p for p in plain if not p or not _is_trainers(p[-1])]
    if plain or not branches:
      return chosen
    telling = [name for name in NETWORK if name in branches]
    if not telling:
      _refuse_empty(tree, budget)
    likely = telling[:1] or [n for n in branches if not _is_trainers(n)]
    if len(likely) != 1:
      raise _ask(budget, problem, chosen, tensors)
    chosen = (*chosen, likely[0])
    tree = tree.get(likely[0]) if isinstance(tree, dict) else None


def _refuse_empty(tree: Any, budget: Budget) -> None:
  """Refuses a table of a network that is empty, and an optimizer's alone."""
  if not isinstance(tree, dict):
    return
  for name in NETWORK:
    if isinstance(tree.get(name), dict | list | tuple) and not tree[name]:
      raise errors.unreadable(
        budget.path,
        f"the table of its network, {name!r}, is empty",
        "save the network's weights in it",
      )
  if "param_groups" in tree and "state" in tree:
    raise errors.unreadable(
      budget.path,
      "it is the state of an optimizer, not a network",
      "save the network's weights: model.state_dict()",
    )


def _no_tensors(budget: Budget) -> errors.CheckpointError:
  return errors.unreadable(
    budget.path, "it holds no tensors", "save the network's weights in it"
  )


def _ask(
  budget: Budget, problem: str, chosen: tuple, tensors: list
) -> errors.CheckpointError:
  """Returns the error that asks for a `part`."""
  depth = len(chosen)
  names = dict.fromkeys(
    "/".join(p[: depth + 1]) for p in tensors if p[:depth] == chosen
  )
  listed = ", ".join(list(names)[:12])
  return errors.unreadable(
    budget.path, problem, f"name the part to read; it has {listed}"[:400]
  )


def _values(everything: list[Leaf]) -> str:
  """Returns the plain values among the leaves as JSON, "" if there are none."""
  values = {}
  for path, value in everything:
    if isinstance(value, str):
      plain = len(value) <= MAX_TEXT and value.isprintable()
    elif isinstance(value, int):
      plain = value.bit_length() <= 64
    else:
      plain = isinstance(value, float)
    if plain and len(values) < MAX_VALUES:
      values["/".join(path)] = value
  return json.dumps(values) if values else ""


def _text(key: Any) -> str:
  """Returns a key as text, short even where it is long."""
  if isinstance(key, str):
    return key
  if isinstance(key, int) and key.bit_length() > 64:
    return "a large number"
  if isinstance(key, _NUMBERS):
    return str(key)
  return f"a {type(key).__name__}"
