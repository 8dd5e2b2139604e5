"""PyTorch archives without PyTorch: exact views, and no code is run."""

import json
import pathlib
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest

from sne_jax import errors
from sne_jax.checkpoints import limits, reading
from sne_jax.checkpoints.formats.pytorch import pickles, torch_file
from tests.checkpoints import samples
from tests.checkpoints.samples import Call, Global, Storage, view

LIMITS = limits.Limits()


def save(path, obj, **options):
  path.write_bytes(samples.torch_bytes(obj, **options))
  return path


def read(tmp_path, obj, **options):
  return reading.read(save(tmp_path / "a.pt", obj, **options))


def bits(array):
  return array.dtype, array.shape, np.ascontiguousarray(array).tobytes()


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("pack", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_all_dtypes_are_exact(big_endian, pack, tmp_path):
  arrays = samples.odd()
  obj = samples.state_dict(arrays)
  found = read(tmp_path, obj, big_endian=big_endian, pack=pack)
  assert list(found.entries) == list(arrays)
  for name, entry in found.entries.items():
    assert bits(entry.read()) == bits(arrays[name]), name
    assert entry.tied_to is None


def test_views_and_shared_storages(tmp_path):
  base = np.arange(24, dtype=np.float32)
  storage = Storage(base)
  grid = base.reshape(4, 6)
  made = {
    "grid": view(storage, (4, 6), (6, 1)),
    "turned": view(storage, (6, 4), (1, 6)),
    "part": view(storage, (2, 3), (6, 2), 7),
    "one": view(storage, (), (), 5),
    "wide": view(storage, (3, 2), (0, 1), 22),
    "tied": view(storage, (4, 6), (6, 1)),
    "unit": view(storage, (1, 2), (1 << 61, 1)),
    "none": view(storage, (0, 9), (9, 1), 24),
  }
  found = read(tmp_path, made)
  want = {
    "grid": grid,
    "turned": grid.T,
    "part": grid[1:3, 1:6:2],
    "one": grid[0, 5],
    "wide": np.tile(base[22:], (3, 1)),
    "tied": grid,
    "unit": base[None, :2],
    "none": np.zeros((0, 9), np.float32),
  }
  for name, entry in found.entries.items():
    np.testing.assert_array_equal(entry.read(), want[name], name)
  tied = {n: e.tied_to for n, e in found.entries.items() if e.tied_to}
  assert tied == {"tied": "grid"}
  assert found.num_numbers == 24 + 24 + 6 + 1 + 6 + 2


def test_a_tensor_under_two_names_is_tied(tmp_path):
  same = samples.tensor(np.ones(3, np.float32))
  other = samples.tensor(np.ones(3, np.float32))
  found = read(tmp_path, {"a": same, "b": same, "c": other})
  ties = [entry.tied_to for entry in found.entries.values()]
  assert ties == [None, "a", None]


@pytest.mark.parametrize(
  ("shape", "stride", "offset"),
  [
    ((5,), (1,), 2),
    ((2, 3), (3, 2), 0),
    ((7,), (1,), 0),
    ((2,), (1 << 50,), 0),
    ((1 << 40, 2), (0, 6), 0),
    ((2,), (-1,), 1),
    ((2,), (1,), -1),
    ((2,), (1, 1), 0),
    ((-1,), (1,), 0),
    ((2.0,), (1,), 0),
    ((1 << 62,), (0,), 0),
    ((2,), None, 0),
  ],
)
def test_a_view_outside_its_storage_is_refused(shape, stride, offset, tmp_path):
  hooks = Call("collections", "OrderedDict", ())
  storage = Storage(np.zeros(6, np.float32))
  args = (storage, offset, shape, stride, False, hooks)
  bad = Call("torch._utils", "_rebuild_tensor_v2", args)
  with pytest.raises(errors.CheckpointError, match="pickle is damaged"):
    read(tmp_path, {"a": bad})


def test_a_view_that_repeats_one_number_for_ever_is_refused(tmp_path):
  storage = Storage(np.zeros(1, np.float32))
  huge = view(storage, (1 << 20, 1 << 19), (0, 0))
  with pytest.raises(errors.CheckpointError, match="raise max_"):
    read(tmp_path, {"a": huge})


def test_storages_are_checked(tmp_path):
  def shorten(members):
    members["archive/data/0"] = members["archive/data/0"][:-1]

  def remove(members):
    del members["archive/data/0"]

  obj = {"a": samples.tensor(np.zeros(6, np.float32))}
  with pytest.raises(errors.CheckpointError, match="23 bytes where 24"):
    read(tmp_path, obj, change=shorten)
  with pytest.raises(errors.CheckpointError, match="'0' is missing"):
    read(tmp_path, obj, change=remove)
  with pytest.raises(errors.CheckpointError, match="byte order"):
    read(tmp_path, obj, change=lambda m: m.update({"archive/byteorder": b"?"}))


def test_files_without_a_byte_order_are_little(tmp_path):
  found = read(tmp_path, samples.state_dict(samples.network()), order=False)
  for name, array in samples.network().items():
    np.testing.assert_array_equal(found.entries[name].read(), array)


# What trainers save ----------------------------------------------------------


def two():
  return samples.state_dict({"w": np.ones(2, np.float32)})


@pytest.mark.parametrize(
  ("tree", "part", "names", "out"),
  [
    ({"model": two(), "epoch": 3}, "model", ["w"], None),
    ({"state_dict": two(), "optimizer_states": [two()]}, "state_dict", ["w"],
     "optimizer_states (1 tensor: the trainer's)"),
    ({"model": two(), "ema": two()}, "model", ["w"],
     "ema (1 tensor: an average, read as part 'ema')"),
    ({"checkpoint": {"net": two(), "optimizer": {"state": {0: two()}}}},
     "checkpoint/net", ["w"], 
     "checkpoint/optimizer (1 tensor: the trainer's)"),
    ({"encoder": two(), "epoch": samples.tensor(np.array(3))}, "encoder", ["w"],
     "epoch (1 tensor: the trainer's)"),
    ([two()], "0", ["w"], None),
    (samples.tensor(np.ones(2)), None, ["tensor"], None),
    ([samples.tensor(np.ones(2)), samples.tensor(np.ones(1))], None,
     ["0", "1"], None),
    ({"w": samples.tensor(np.ones(2)),
      "deep": {"b": samples.tensor(np.ones(1))}},
     None, ["w", "deep.b"], None),
  ],
)  # fmt: skip
def test_the_network_is_found(tree, part, names, out, tmp_path):
  found = read(tmp_path, tree)
  assert list(found.entries) == names
  assert found.metadata.get("part") == part
  assert found.metadata.get("left_out") == out
  assert ("taken" in found.metadata) == (out is not None)
  if out:
    assert found.metadata["taken"] == f"{part} (1 tensor)"


def test_of_two_networks_one_must_be_named(tmp_path):
  path = save(tmp_path / "gan.pt", {"generator": two(), "critic": two()})
  with pytest.raises(errors.CheckpointError, match="generator, critic"):
    reading.read(path)
  found = reading.read(path, part="critic")
  assert list(found.entries) == ["w"]
  said = "generator (1 tensor: read as part 'generator')"
  assert found.metadata["left_out"] == said
  with pytest.raises(errors.CheckpointError, match="under 'actor'"):
    reading.read(path, part="actor")


@pytest.mark.parametrize(
  ("tree", "words"),
  [
    ({"model_state_dict": {}, "optimizer_state_dict": {"m": two()}},
     "'model_state_dict', is empty"),
    ({"state_dict": samples.Ordered(), "ema": {"a": two(), "b": two()}},
     "'state_dict', is empty"),
    ({"checkpoint": {"model": {}, "optimizer": {"m": two()}}},
     "'model', is empty"),
    ({"state": {0: two()}, "param_groups": [{"lr": 0.1}]},
     "state of an optimizer"),
  ],
)  # fmt: skip
def test_a_file_without_its_network_says_so(tree, words, tmp_path):
  path = save(tmp_path / "a.pt", tree)
  with pytest.raises(errors.CheckpointError, match=words):
    reading.read(path)


def test_values_and_modules_are_kept(tmp_path):
  tree = {"model": two(), "epoch": 3, "note": "a", "lr": [0.5], "on": True}
  found = read(tmp_path, tree)
  values = json.loads(found.metadata["values"])
  assert values == {"epoch": 3, "note": "a", "lr/0": 0.5, "on": True}
  assert json.loads(found.metadata["modules"]) == {"": 1}


def test_a_label_beside_the_weights_is_no_weight(tmp_path):
  obj = {**two(), "label": 4}
  found = read(tmp_path, obj)
  assert list(found.entries) == ["w"]
  assert json.loads(found.metadata["values"]) == {"label": 4}


@pytest.mark.parametrize("start", ["module.", "_orig_mod.module.", "model."])
def test_prefixes_are_kept_and_noted(start, tmp_path):
  arrays = {start + n: a for n, a in samples.network().items()}
  found = read(tmp_path, samples.state_dict(arrays))
  assert list(found.entries) == list(arrays)
  assert found.metadata["prefix"] == start
  arrays["other"] = np.ones(1)
  assert "prefix" not in read(tmp_path, samples.state_dict(arrays)).metadata


def test_names_that_fall_together_are_refused(tmp_path):
  one = samples.tensor(np.ones(1))
  with pytest.raises(errors.CheckpointError, match="two tensors .* 'a.b'"):
    read(tmp_path, {"w": one, "a.b": one, "a": {"b": one}})


def test_parameters_sizes_and_new_dtypes(tmp_path):
  whole = samples.tensor(np.arange(3, dtype=np.float32))
  hooks = Call("collections", "OrderedDict", ())
  small = np.array([1.0, -0.5], ml_dtypes.float8_e5m2)
  tree = {
    "p": Call("torch._utils", "_rebuild_parameter", (whole, True, hooks)),
    "size": Call("torch", "Size", ((2, 3),)),
    "small": samples.tensor(small),
    "u": samples.tensor(np.array([9], np.uint16)),
  }
  found = read(tmp_path, tree)
  assert list(found.entries) == ["p", "small", "u"]
  np.testing.assert_array_equal(found.entries["p"].read(), [0, 1, 2])
  assert bits(found.entries["small"].read()) == bits(small)
  assert found.entries["u"].dtype == "uint16"
  assert json.loads(found.metadata["values"]) == {"size/0": 2, "size/1": 3}


# What must not happen --------------------------------------------------------

CODE = [
  ("os", "system"),
  ("posix", "system"),
  ("builtins", "eval"),
  ("builtins", "getattr"),
  ("pathlib", "PosixPath"),
  ("numpy.core.multiarray", "_reconstruct"),
  ("torch", "load"),
  ("torch._utils", "_rebuild_nested_tensor"),
  ("collections", "OrderedDict.__init__"),
  ("torch.nn.modules.linear", "Linear"),
  ("subprocess", "Popen"),
]


@pytest.mark.parametrize(("module", "name"), CODE)
def test_foreign_globals_are_named_and_never_called(
  module, name, tmp_path, monkeypatch
):
  monkeypatch.setitem(__import__("sys").modules, "torch", None)
  canary = tmp_path / "canary"
  bad = Call(module, name, (f"touch {canary}",))
  for tree in ({"a": bad, **two()}, bad, {"model": two(), "x": [bad]}):
    with pytest.raises(errors.CheckpointError, match=f"{module}.{name}"):
      read(tmp_path, tree)
  assert not canary.exists()


class Evil:
  def __init__(self, command):
    self.command = command

  def __reduce__(self):
    import os

    return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_no_protocol_runs_code(protocol, tmp_path):
  canary = tmp_path / "canary"
  program = pickle.dumps(Evil(f"touch {canary}"), protocol)
  path = tmp_path / "a.pt"
  path.write_bytes(samples.zip_bytes({"archive/data.pkl": program}))
  with pytest.raises(errors.CheckpointError):
    reading.read(path)
  plain = tmp_path / "plain.bin"
  plain.write_bytes(program)
  with pytest.raises(errors.CheckpointError):
    reading.read(plain)
  assert not canary.exists()
  pickle.loads(program)
  assert canary.exists(), "control: the program does run code in Python"


def test_records_are_inert(tmp_path):
  canary = tmp_path / "canary"
  bad = Call("os", "system", (f"touch {canary}",), {"a": 1})
  path = save(tmp_path / "a.pt", {"config": bad, "model": two()})
  tree, size = torch_file.load_tree(str(path), LIMITS, records=True)
  assert size == path.stat().st_size
  record = tree["config"]
  assert isinstance(record, pickles.Record) and record.name == "os.system"
  assert record.args == (f"touch {canary}",) and record.state == {"a": 1}
  assert isinstance(tree["model"]["w"], torch_file.View)
  np.testing.assert_array_equal(tree["model"]["w"].read(), [1, 1])
  with pytest.raises(pickles.RefusedError, match="names os.system"):
    torch_file.load_tree(str(path), LIMITS)
  assert not canary.exists()


def test_records_of_real_classes():
  import fractions

  path = pathlib.PurePosixPath("a/b")
  values = {"path": path, "f": fractions.Fraction(1, 3), "set": {1, 2}}
  for protocol in (2, 3, 4, 5):
    found = pickles.loads(pickle.dumps(values, protocol), {}, records=True)
    assert found["path"].name.endswith("PurePosixPath")
    assert found["f"].name == "fractions.Fraction"
    with pytest.raises(pickles.RefusedError, match="pathlib"):
      pickles.loads(pickle.dumps(values, protocol), {})


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_survive_the_machine(protocol):
  shared = [1, 2]
  values = {
    "n": [None, True, False, 0, -1, 255, 1 << 20, -(1 << 40), 1 << 99, 0.5],
    "s": ["", "é", "x" * 300, b"b", b"c" * 300],
    "t": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "d": {1: {}, "a": [shared, shared]},
  }
  if protocol > 3:
    values["set"] = {1, 2}
  if protocol < 3:
    values["s"] = ["", "é", "x" * 300]
  found = pickles.loads(pickle.dumps(values, protocol), {})
  assert found == values
  assert found["d"]["a"][0] is found["d"]["a"][1]


@pytest.mark.parametrize(
  ("program", "message"),
  [
    (b"\x80\x02N", "ended|exhausted"),
    (b"\x80\x02.", "one value"),
    (b"\x80\x02NN.", "one value"),
    (b"\x80\x02(N.", "one value"),
    (b"\x80\x02a.", "empty"),
    (b"\x80\x02h\x05.", "kept under 5"),
    (b"\x80\x02}]Ns.", "list as a key"),
    (b"\x80\x02}(Nu.", "sets items"),
    (b"\x80\x02NNa.", "appends"),
    (b"\x80\x02NQ.", "outside"),
    (b"\x80\x02NNR.", "tuple"),
    (b"\x80\x02N)R.", "call of a NoneType"),
    (b"\x80\x02]}b.", "attributes of a list"),
    (b"(imodule\nname\n.", "INST"),
    (b"\x80\x02\x82\x01.", "EXT1"),
    (b"\x80\x02\xff.", "opcode"),
    (b"\x80\x04NN\x93.", "no text"),
    (b"\x80\x02X\xff\xff\xff\x7fab.", "expected|bytes"),
  ],
)
def test_damaged_programs_are_refused(program, message):
  with pytest.raises(ValueError, match=message):
    pickles.loads(program, {})


def test_a_large_memo_index_takes_no_memory():
  import tracemalloc

  tracemalloc.start()
  found = pickles.loads(b"\x80\x02Nr\xff\xff\xff\x7f.", {})
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert found is None and peak < 1 << 20


def test_steps_are_counted():
  with pytest.raises(ValueError, match="more than 50"):
    pickles.loads(b"\x80\x02" + b"N0" * 100 + b"N.", {}, max_steps=50)


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_a_tree_that_holds_itself_ends(kind, tmp_path):
  loop = [] if kind == "list" else {}
  loop.append(loop) if kind == "list" else loop.update(a=loop)
  with pytest.raises(errors.CheckpointError, match="nested more than"):
    read(tmp_path, {"a": loop, **two()})


def test_a_tree_that_doubles_at_every_level_ends(tmp_path):
  tree = [samples.tensor(np.ones(1))]
  for _ in range(40):
    tree = [tree, tree]
  small = limits.Limits(max_entries=1000)
  path = save(tmp_path / "a.pt", tree)
  with pytest.raises(errors.CheckpointError, match="values in it"):
    reading.read(path, limits=small)


def test_a_key_that_doubles_at_every_level_is_refused(tmp_path):
  key = ()
  for _ in range(60):
    key = (key, key)
  program = b"\x80\x02})" + b"q\x01h\x01\x86" * 60 + b"Ns."
  with pytest.raises(ValueError, match="tuple as a key"):
    pickles.loads(program, {})


def test_a_script_is_named(tmp_path):
  change = lambda members: members.update({"archive/constants.pkl": b""})
  with pytest.raises(errors.CheckpointError, match="TorchScript"):
    read(tmp_path, two(), change=change)


def test_old_files_ask_for_torch(tmp_path, monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "torch", None)
  path = tmp_path / "a.pt"
  path.write_bytes(reading.OLD_TORCH + b"rest")
  with pytest.raises(errors.CheckpointError, match="PyTorch before 1.6.*pip"):
    reading.read(path)


def test_an_old_torch_is_not_trusted(tmp_path, monkeypatch):
  import types

  fake = types.SimpleNamespace(__version__="2.5.1+cpu", load=None)
  monkeypatch.setitem(__import__("sys").modules, "torch", fake)
  path = tmp_path / "a.pt"
  path.write_bytes(reading.OLD_TORCH + b"rest")
  with pytest.raises(errors.CheckpointError, match="2.5.1.* too old"):
    reading.read(path)


def test_globals_that_are_no_functions_are_not_called(tmp_path):
  bad = Call("torch", "FloatStorage", (3,))
  with pytest.raises(errors.CheckpointError, match="_StorageType|call"):
    read(tmp_path, {"a": bad, **two()})
  with pytest.raises(errors.CheckpointError):
    read(
      tmp_path, {"a": Call("torch._utils", "_rebuild_tensor_v2", ()), **two()}
    )
  assert read(tmp_path, {"d": Global("torch", "float32"), **two()}).entries
