"""Random networks as files, in every container, by small writers of our own.

See `random_rows.py` for where their parameters lie.
"""

import dataclasses
import pathlib

import numpy as np

from tests.checkpoints import (
  random_keras,
  random_names,
  random_onnx,
  samples,
)
from tests.checkpoints.drawn import graphs, plans
from tests.checkpoints.random_rows import Row, moved


@dataclasses.dataclass(frozen=True)
class Written:
  """A file, where its parameters lie, and whether channels flatten last.

  No name tells of images that are flattened in the way of another framework.
  Readers take the usual way and say so, with the override that settles it:
  `settled`, which such files are read with.
  """

  path: pathlib.Path
  rows: list[Row]
  last: bool
  settled: str = ""


def _ported(network) -> bool:
  """Whether images are flattened in the way of another framework."""
  return network.plan.style % 8 == 5


def arrays(network, rows) -> dict[str, np.ndarray]:
  """The arrays of a file, by name."""
  params = graphs.true_params(network)
  return {row.name: row.to(params[row.key]) for row in rows}


def _torch_rows(network):
  """Rows in the order of definition, and names of the same storage."""
  habit = random_names.habit_of(network)
  names = random_names.prefixes(network, habit)
  rows, again = [], {}
  for i in random_names.order(network, habit):
    first, *others = names[i]
    for part in network.modules[i].params:
      if habit == "custom":
        rows.append(_custom(first, (i, part)))
        continue
      row = Row(f"{first}.{random_names.TORCH[part]}", (i, part))
      rows.append(row)
      for other in others:
        again[f"{other}.{random_names.TORCH[part]}"] = row.name
  return rows, again


def _custom(first: str, key) -> Row:
  name = random_names.CUSTOM[key[1]] + first
  return moved(name, key, (1, 0)) if key[1] == "weight" else Row(name, key)


def _counters(network, names):
  """PyTorch's counters of batch norms."""
  habit = random_names.habit_of(network)
  if habit == "custom":
    return {}
  made = {n.rpartition(".")[0] for n in names if n.endswith("running_var")}
  return {f"{n}.num_batches_tracked": np.array(9, np.int64) for n in made}


def write_torch(network, folder) -> Written:
  """A state dict, in the order of definition, as `torch.save` writes it."""
  rows, again = _torch_rows(network)
  made = arrays(network, rows)
  state = {name: samples.tensor(array) for name, array in made.items()}
  for name, first in again.items():
    state[name] = samples.view(*_parts(state[first]))
  for name, array in _counters(network, made).items():
    state[name] = samples.tensor(array)
  if again:  # Both names stand where the layers do.
    state = dict(sorted(state.items(), key=lambda pair: _number(pair[0])))
  path = folder / "net.pt"
  path.write_bytes(samples.torch_bytes(samples.Ordered(state)))
  return Written(path, rows, _ported(network))


def _number(name: str):
  """Place in a `Sequential`, or in the second of two."""
  *_, number, _ = ("", *name.split("."))
  second = name.startswith("classifier")
  return second, int(number) if number.isdigit() else 0


def _parts(call):
  storage, offset, shape, stride, *_ = call.args
  return storage, shape, stride, offset


def write_safetensors(network, folder) -> Written:
  """Sorted by name; of one storage one name is kept, and the other said."""
  rows, again = _torch_rows(network)
  made = arrays(network, rows)
  made |= _counters(network, made)
  wide = lambda pair: (-pair[1].dtype.itemsize, pair[0])
  made = dict(sorted(made.items(), key=wide))
  metadata = {"format": "pt"} if network.plan.style % 2 else None
  if again:
    metadata = {**(metadata or {}), **again}
  path = folder / "net.safetensors"
  path.write_bytes(samples.safetensors_bytes(made, metadata))
  return Written(path, rows, _ported(network))


def write_npz(network, folder) -> Written:
  """Parameters of one's own, as `np.savez` keeps them."""
  if random_names.habit_of(network) != "custom":
    return None
  rows, _ = _torch_rows(network)
  path = folder / "net.npz"
  path.write_bytes(samples.npz_bytes(arrays(network, rows)))
  return Written(path, rows, _ported(network))


FLAX = {
  **{"weight": "kernel", "bias": "bias", "scale": "scale", "shift": "bias"},
  **{"mean": "mean", "var": "var"},
}


def _flax_rows(network, end: str, nnx: bool):
  """Rows with names of linen (numbers by class, or setup) or of NNX."""
  habit = random_names.habit_of(network)
  auto = not nnx and network.plan.style % 2
  names = random_names.prefixes(network, habit)
  counts: dict[str, int] = {}
  rows = []
  for i, module in enumerate(network.modules):
    name = names[i][0].replace(".", "/" if nnx else "_")
    if not name[0].isalpha() and not nnx and habit != "custom":
      name = f"layers_{name}"
    if auto:
      word = {
        "conv": "Conv",
        "dense": "Dense",
        "transposed": "ConvTranspose",
      }.get(module.kind, f"{module.kind.title()}Norm")
      number = counts[word] = counts.get(word, -1) + 1
      name = f"{word}_{number}"
    for part, array in module.params.items():
      top = "batch_stats" if part in ("mean", "var") else "params"
      top = "" if nnx else f"{top}/"
      key, full = (i, part), f"{top}{name}/{FLAX[part]}{end}"
      if habit == "custom" and not auto:
        row = _custom(names[i][0], key)
        rows.append(dataclasses.replace(row, name=top + row.name + end))
        continue
      rank = array.ndim
      if part != "weight":
        rows.append(Row(full, key))
      elif module.kind == "transposed":
        places = range(rank - 2)
        rows.append(moved(full, key, (*range(2, rank), 0, 1), tuple(places)))
      else:
        rows.append(moved(full, key, (*range(2, rank), 1, 0)))
  return sorted(rows, key=lambda row: row.name)


def _tree(made):
  tree = {}
  for name, array in made.items():
    *path, last = name.split("/")
    node = tree
    for word in path:
      node = node.setdefault(word, {})
    node[last] = array
  return tree


def write_flax(network, folder) -> Written:
  """Variables of linen, as `flax.serialization.to_bytes` writes them."""
  rows = _flax_rows(network, "", nnx=False)
  path = folder / "net.msgpack"
  path.write_bytes(samples.flax_bytes(_tree(arrays(network, rows))))
  return Written(path, rows, not _ported(network))


def write_orbax(network, folder) -> Written:
  """Variables of linen, or the state of an NNX module, in an Orbax folder."""
  import orbax.checkpoint as ocp

  nnx = network.plan.style // 2 % 2 == 1
  end = "/value" if nnx and network.plan.style // 4 % 2 else ""
  rows = _flax_rows(network, end, nnx)
  handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False)
  path = folder / "orbax"
  tree = _tree(arrays(network, rows))
  ocp.Checkpointer(handler).save(path, tree, force=True)
  return Written(path, rows, not _ported(network))


def write_onnx(network, folder) -> Written:
  """A graph as exporters write it."""
  model, rows, last = random_onnx.model(network)
  path = folder / "net.onnx"
  path.write_bytes(model.SerializeToString())
  return Written(path, rows, last)


def write_keras(network, folder) -> Written:
  """A `.keras` archive, or the older `.h5`, with its config."""
  old = network.plan.style % 4 == 0
  path = folder / ("net.h5" if old else "net.keras")
  data, rows = random_keras.model(network, old)
  path.write_bytes(data)
  return Written(path, rows, True)


CONTAINERS = {
  "torch": write_torch,
  "safetensors": write_safetensors,
  "npz": write_npz,
  "flax": write_flax,
  "orbax": write_orbax,
  "keras": write_keras,
  "onnx": write_onnx,
}


def _looks_apart(first, second) -> bool:
  """Whether a first convolution of groups is surely doubted by its shapes."""
  outputs, inputs, *places = first.params["weight"].shape
  like = outputs <= 4 or set(places) == {1} or second.part == "point"
  return inputs == 1 and like


def write(network, container: str, folder) -> Written | None:
  """Writes a network; None where the container cannot hold it.

  Names alone do not tell a first convolution of groups from one that reads all
  of fewer channels. Readers take it for the latter and say so, which `judge`
  would call wrong: such files are not written. Those are in which it looks like
  a convolution of groups, of which nothing is claimed.
  """
  layers = [m for m in network.modules if m.kind not in plans.NORMS]
  says = container in ("keras", "onnx")
  if layers[0].groups > 1 and not (says or _looks_apart(*layers[:2])):
    return None
  written = CONTAINERS[container](network, folder)
  if written is None or says or not _ported(network):
    return written
  way = "channels_last" if written.last else "channels_first"
  return dataclasses.replace(written, settled=way)
