"""Reads the file of a random network, and holds every claim against the truth.

Dimensions: `N` inputs, `C` channels.
"""

import dataclasses
import traceback

import numpy as np

from sne_jax import checkpoints, errors
from sne_jax.networks import inference, symmetry
from sne_jax.networks.inference import assembly
from sne_jax.networks.inference.override import Override
from sne_jax.networks.tracing import operations
from sne_jax.networks.tracing.player import Player
from tests.checkpoints.drawn import graphs, plans, running

INPUTS = 3


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What came of one file: full, less, refused, WRONG or CRASH; and why."""

  kind: str
  why: str = ""


def judge(
  network: graphs.Network, path, rows, last: bool, seed: int = 0, override=None
) -> Verdict:
  """Reads a file, and holds what is claimed against the true network.

  Args:
    network: what is in the file.
    path: of the file.
    rows: of `random_files.py`: where its parameters lie.
    last: whether the file's network flattens with channels last.
    seed: of inputs and permutations.
    override: what a person says.
  """
  try:
    opened = checkpoints.load(
      path, **({"override": override} if override else {})
    )
  except (errors.CheckpointError, inference.AmbiguousError) as error:
    if "\n" in str(error):
      return Verdict("CRASH", f"many lines: {error}")
    return Verdict("refused", str(error))
  except Exception:  # noqa: BLE001 whatever it is, it is a fault
    return Verdict("CRASH", traceback.format_exc()[-600:])
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(INPUTS, *network.input_shape))
  network = graphs.flattened(network, last)
  entries = opened.tensors.entries
  found = {row: _entry(entries, row.name) for row in rows}
  if missing := [row.name for row, name in found.items() if name is None]:
    return Verdict("WRONG", f"the reader has no {missing}")
  stored = {name: entries[name].read() for name in found.values()}

  def forward(tensors, inputs):
    tensors = {**stored, **tensors}
    params = {row.key: row.back(tensors[found[row]]) for row in rows}
    return running.run(network, params, inputs)

  want = running.run(network, graphs.true_params(network), x)
  spec, net = opened.spec, opened.inferred
  weights = net.gather(entries)
  apart = np.abs(forward(net.scatter(weights), x) - want).max()
  if not apart < 1e-5 * max(1.0, np.abs(want).max()):
    return Verdict("WRONG", f"numbers are {apart:.2g} apart")
  if fault := _misordered(network, net, found):
    return Verdict("WRONG", fault)
  check = inference.permutation_check(net, weights, forward, x, rng)
  if not check.change <= 1e-4:
    said = "; ".join(net.guesses)[:300]
    return Verdict("WRONG", f"change {check.change:.2g}, said: {said}")
  due = true_log_order(network)
  if symmetry.log_order(spec) < due - 1e-6:
    return Verdict("less", f"{check.log_order:.1f} of {due:.1f}")
  return Verdict("full")


def _entry(entries, name: str) -> str | None:
  """Finds a name as the reader gives it, with or without what is around."""
  short = name.removesuffix("/value")
  for candidate in (name, short):
    matches = [n for n in entries if n == candidate]
    matches = matches or [n for n in entries if n.endswith("/" + candidate)]
    if len(matches) == 1:
      return matches[0]
  return None


def _misordered(network: graphs.Network, net, found) -> str:
  """Says which layer has a level not above that of one that feeds it."""
  tensors = {row.key: name for row, name in found.items()}
  levels = {
    source.name: tensor.level
    for source, tensor in zip(net.sources, net.spec.tensors, strict=True)
  }
  before: list[set[int]] = [set()]
  done = set()
  for node in network.nodes:
    feeds = set().union(*(before[i] for i in node.inputs))
    before.append(feeds)
    if node.op != "module" or network.modules[node.module].kind in plans.NORMS:
      continue
    if node.module in done:  # Its level is that of its first use.
      before[-1] = feeds | {node.module}
      continue
    done.add(node.module)
    mine = levels.get(tensors[node.module, "weight"])
    for other in feeds - {node.module}:
      theirs = levels.get(tensors[other, "weight"])
      if None in (mine, theirs) or mine <= theirs:
        names = [tensors[n, "weight"] for n in (other, node.module)]
        return f"{names} have levels {theirs}, {mine}"
    before[-1] = feeds | {node.module}
  return ""


def true_log_order(network: graphs.Network) -> float:
  """How many permutations there are, natural logarithm, by its code."""
  names = {
    (number, part): f"{number}.{part}"
    for number, part in graphs.true_params(network)
  }
  shapes = {
    names[key]: a.shape for key, a in graphs.true_params(network).items()
  }
  p = Player(shapes, "torch", Override())
  channels, *places = network.input_shape
  values = [p.tape.input((1, channels, *(1 for _ in places)))]
  for node in network.nodes:
    given = [values[i] for i in node.inputs]
    values.append(_played(p, network, node, names, *given))
  p.tape.output(values[-1])
  return symmetry.log_order(assembly.assemble(p.tape)[0])


def _played(
  p: Player, network: graphs.Network, node: graphs.Node, names, x, *more
):
  """Plays one node on the tape."""
  if node.op in ("act", "sigmoid", "softmax"):
    return p.activate(x)
  if node.op == "mul":
    return p.tape.elementwise(x, more[0])
  if node.op == "add":
    return p.add(x, more[0])
  if node.op == "concat":
    return p.tape.concatenate([x, *more], 1)
  if node.op in ("pool", "mean_keep"):
    return x
  if node.op == "mean":
    return p.tape.reshape(x, x.shape[:2])
  if node.op in ("flatten", "flatten_last"):
    channels, count = x.shape[1], node.shape[0] // x.shape[1]
    x = p.tape.reshape(x, (1, channels, 1))
    x = p.tape.spatial(x, (1, channels, count))
    if node.op == "flatten_last":
      x = p.tape.transpose(x, (0, 2, 1))
    return p.tape.reshape(x, (1, node.shape[0]))
  module = network.modules[node.module]
  get = lambda part: names.get((node.module, part))
  if module.kind in plans.NORMS:
    kinds = {f"norm_{part}": get(part) for part in module.params}
    if module.kind == "batch":
      return p.batch_norm(x, kinds)
    groups = None if module.kind == "instance" else module.groups
    return p.norm(x, kinds, (1,), groups)
  if module.kind == "dense":
    return p.linear(x, get("weight"), get("bias"))
  if module.kind == "conv":
    return p.conv(x, get("weight"), get("bias"))
  kernel = p.weight(get("weight"))
  rank = len(kernel.shape)
  kernel = p.tape.transpose(kernel, (1, 0, *range(2, rank)))
  y = operations.convolution(p.tape, x, kernel, (1,) * (rank - 2))
  return p.bias(y, get("bias"), place=1)
