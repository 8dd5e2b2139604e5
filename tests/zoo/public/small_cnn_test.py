"""The small CNN zoo: read from its files, run, split; and every fault named."""

import gzip
import json
import os
import pathlib
import random
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from sne_jax import errors
from sne_jax.networks import families
from sne_jax.zoo.public import conversion, nfn_order, small_cnn
from sne_jax.zoo.public import options as options_lib
from sne_jax.zoo.store import store

RUNS = 12
STEPS = (0, 1, 2, 3, 20, 40, 60, 80, 86)
ROWS = RUNS * len(STEPS)
COLUMNS = (
  "config.activation,config.b_init,config.dataset,config.dnn_architecture,"
  "config.dropout,config.epochs,config.epochs_between_checkpoints,"
  "config.init_std,config.l2reg,config.learning_rate,config.num_layers,"
  "config.num_units,config.optimizer,config.random_seed,"
  "config.train_fraction,config.w_init,modeldir,step,test_accuracy,test_loss,"
  "train_accuracy,train_loss"
)
NOT_FINITE = 5 * len(STEPS) + 8  # The last epoch of run 5.


def layout_text():
  lines = [",varname,start_idx,end_idx,shape,size"]
  names = ("conv2d", "conv2d_1", "conv2d_2", "dense")
  for number, (name, start, end, shape) in enumerate(small_cnn.LAYOUT):
    kind = "bias" if name.endswith("bias") else "kernel"
    lines.append(
      f'{number},sequential/{names[number // 2]}/{kind}:0,{start},{end},"'
      f'{shape}",{end - start}'
    )
  return "\n".join(lines) + "\n"


def metrics_text():
  lines = [COLUMNS]
  for run in range(RUNS):
    for step in STEPS:
      activation = ("relu", "tanh")[run % 2]
      accuracy = 0.1 + step / 200 + run / 1000
      std = "" if run % 3 else "0.05"  # Where the initializer knows it.
      lines.append(
        f"{activation},zeros,cifar10,cnn,0.1,86,20,{std},1e-4,0.001,3,16,adam,"
        f"42,0.5,he_normal,/where/it/was/{(run * 7) % RUNS:05d},{step},"
        f"{accuracy},1.5,{accuracy + 0.25},1.25"
      )
  return "\n".join(lines) + "\n"


def write(folder, order=None):
  """Writes the published layout; returns the rows."""
  folder.mkdir(parents=True)
  rng = np.random.default_rng(0)
  weights = rng.normal(size=(ROWS, 4970)).astype(np.float32)
  weights[NOT_FINITE, 7] = np.nan
  np.save(folder / "weights.npy", weights)
  with gzip.open(folder / "metrics.csv.gz", "wt") as file:
    file.write(metrics_text())
  (folder / "layout.csv").write_text(layout_text())
  if order is None:
    order = rng.permutation(ROWS).tolist()
  lines = ["0", *map(str, order)]  # The header that looks like a row.
  (folder / "cifar10_split.csv").write_text("\n".join(lines) + "\n")
  return weights


run = jax.jit(families.forward, static_argnums=0)


def convert(source, path, progress=None, **options):
  chosen = options_lib.ConvertOptions(**options)
  return small_cnn.convert(source, path, chosen, progress)


def contents(path):
  path = pathlib.Path(path)
  return {name: (path / name).read_bytes() for name in sorted(os.listdir(path))}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  folder = tmp_path_factory.mktemp("small_cnn") / "cifar10"
  write(folder)
  return folder


@pytest.fixture(scope="module")
def path(source, tmp_path_factory):
  path = tmp_path_factory.mktemp("zoos") / "cifar10"
  convert(source, path)
  return path


def direct(row, x, activation):
  """The published network, in TensorFlow's layout, with loops over places."""
  start = 0

  def take(*shape):
    nonlocal start
    size = int(np.prod(shape))
    start += size
    return row[start - size : start].reshape(shape).astype(np.float64)

  act = {"relu": lambda v: np.maximum(v, 0), "tanh": np.tanh}[activation]
  channels = 1
  for _ in range(3):
    bias, kernel = take(16), take(3, 3, channels, 16)
    side = (x.shape[1] - 3) // 2 + 1
    y = np.zeros((len(x), side, side, 16))
    for i in range(side):
      for j in range(side):
        patch = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        y[:, i, j] = np.einsum("bhwi,hwio->bo", patch, kernel) + bias
    x, channels = act(y), 16
  bias, kernel = take(10), take(16, 10)
  return x.mean(axis=(1, 2)) @ kernel + bias


def test_networks_are_those_that_were_published(path):
  zoo = store.Zoo.open(path)
  assert len(zoo) == ROWS - 1 and len(zoo.specs) == 2
  assert zoo.licence == "CC-BY-4.0"
  assert zoo.members["valid"].all()


@pytest.mark.parametrize("row", [8, 17])  # relu, tanh
def test_a_network_computes_what_the_published_one_does(source, path, row):
  zoo = store.Zoo.open(path, verify=False)
  weights = np.load(source / "weights.npy")
  member = zoo.members["id"].tolist().index(f"cifar10-{row:06d}")
  spec = zoo.specs[zoo.members["spec"][member]]
  activation = zoo.property("activation")[member]
  assert set(spec.activations[:3]) == {activation}
  x = np.random.default_rng(row).normal(size=(3, 32, 32, 1))
  want = direct(weights[row], x, activation)
  x = x.transpose(0, 3, 1, 2).astype(np.float32)
  got = run(spec, zoo.vectors([member])[0], x)
  # Float32 sums of up to 144 products against float64.
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
  # Control: kernels that are only reshaped give another network.
  wrong = np.concatenate(
    [
      weights[row][start:end]
      for name in [t.name for t in spec.tensors]
      for own, start, end, _ in small_cnn.LAYOUT
      if own == name
    ]
  )
  assert np.abs(run(spec, wrong, x) - want).max() > 0.1


def test_properties_are_those_of_the_same_row(path):
  zoo = store.Zoo.open(path, verify=False)
  rows = np.array([int(name.split("-")[1]) for name in zoo.members["id"]])
  assert NOT_FINITE not in rows and len(set(rows)) == ROWS - 1
  run, step = rows // len(STEPS), np.array(STEPS)[rows % len(STEPS)]
  np.testing.assert_array_equal(zoo.property("run"), run)
  np.testing.assert_array_equal(zoo.property("epoch"), step)
  np.testing.assert_allclose(
    zoo.property("test_accuracy"), 0.1 + step / 200 + run / 1000
  )
  np.testing.assert_allclose(zoo.property("generalization_gap"), 0.25)
  assert np.isnan(zoo.property("init_std")[run % 3 != 0]).all()
  assert (zoo.property("init_std")[run % 3 == 0] == 0.05).all()


def test_provenance_says_what_was_left_out_and_why(path):
  zoo = store.Zoo.open(path, verify=False)
  assert zoo.provenance["left_out"] == [
    {
      "reason": conversion.NOT_FINITE,
      "count": 1,
      "names": [f"cifar10-{NOT_FINITE:06d}"],
    }
  ]
  assert zoo.provenance["runs_by_epochs"] == {"9": RUNS}
  assert zoo.provenance["published"]["licence"] == "CC-BY-4.0"
  assert json.loads((path / "zoo.json").read_text())["sne_jax"]


def test_the_nfn_split_is_as_published_without_the_header_line(source, path):
  zoo = store.Zoo.open(path, verify=False)
  lines = (source / "cifar10_split.csv").read_text().split()
  assert lines.count("0") == 2 and len(lines) == ROWS + 1
  final = [int(line) for line in lines[1:] if int(line) % 9 == 8]
  shuffled = list(range(RUNS // 2))
  random.Random(0).shuffle(shuffled)
  want = {
    "train": [final[k] for k in shuffled[:4]],  # int(0.8 * 6)
    "val": [final[k] for k in shuffled[4:]],
    "test": final[6:],
  }
  for part, numbers in zoo.split("nfn").items():
    ids = {f"cifar10-{row:06d}" for row in want[part] if row != NOT_FINITE}
    assert set(zoo.members["id"][numbers]) == ids
  assert sum(map(len, zoo.split("nfn").values())) == RUNS - 1


def test_row_0_at_the_last_epoch_does_not_move_the_split(tmp_path):
  # With the header taken for data, row 0 would be final twice: the middle of
  # the networks would move by one, and the test part hold other networks.
  order = list(range(10))
  file = tmp_path / "order.csv"
  file.write_text("\n".join(["0", *map(str, order)]))
  assert nfn_order.read_order(str(file), 10) == order
  last = np.ones(10, bool)
  parts = nfn_order.split(order, last)
  assert parts["test"] == [5, 6, 7, 8, 9]
  wrong = nfn_order.split([0, *order], last)
  assert wrong["test"] != parts["test"] and 0 in wrong["train"] + wrong["val"]


def test_documented_sizes_of_the_parts():
  last = np.tile(np.arange(9) == 8, 30000)
  order = np.random.default_rng(0).permutation(270000).tolist()
  parts = nfn_order.split(order, last)
  sizes = {part: len(some) for part, some in parts.items()}
  assert sizes == {"train": 12000, "val": 3000, "test": 15000}
  assert sorted(sum(parts.values(), [])) == np.flatnonzero(last).tolist()


def test_a_split_file_without_a_header_is_read_too(tmp_path):
  file = tmp_path / "order.csv"
  file.write_text("2\n0\n1\n")
  assert nfn_order.read_order(str(file), 3) == [2, 0, 1]


def test_epochs_of_a_run_are_in_one_part(path):
  zoo = store.Zoo.open(path, verify=False)
  parts = zoo.split("default")
  runs = [set(zoo.property("run")[numbers]) for numbers in parts.values()]
  assert sum(map(len, runs)) == RUNS == len(set.union(*runs))
  assert sum(map(len, parts.values())) == ROWS - 1


def test_the_unterthiner_split_is_of_last_epochs_that_are_finite(
  source, tmp_path
):
  zoo = convert(source, tmp_path / "zoo", train_networks=4, epochs="20,86")
  assert set(zoo.property("epoch")) == {20, 86}
  parts = zoo.split("unterthiner")
  assert {p: len(n) for p, n in parts.items()} == {"train": 4, "test": 7}
  for numbers in parts.values():
    assert set(zoo.property("epoch")[numbers]) == {86}


@pytest.fixture
def small_parts(monkeypatch):
  monkeypatch.setattr(conversion, "PART_MEMBERS", 10)


def test_a_broken_off_conversion_goes_on_to_the_same_zoo(
  source, path, tmp_path, small_parts
):
  calls = []

  def stop(done, total, message):
    calls.append(done)
    if done >= 50:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    convert(source, tmp_path / "zoo", stop)
  assert not (tmp_path / "zoo").exists() and calls[-1] == 50
  partial = tmp_path / "zoo.partial"
  kept = sorted(partial.glob("part-*"))
  assert len(kept) == 5
  kept[3].write_bytes(kept[3].read_bytes()[:-100])  # Cut by a crash.
  stamps = [file.stat().st_mtime_ns for file in kept]
  convert(source, tmp_path / "zoo", lambda *_: calls.append("again"))
  assert contents(tmp_path / "zoo") == contents(path)
  assert not partial.exists() and len(stamps) == 5


def test_parts_that_are_there_are_not_read_again(
  source, tmp_path, small_parts, monkeypatch
):
  def stop(done, *_):
    if done >= 50:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    convert(source, tmp_path / "zoo", stop)
  read = []
  checked = conversion._checked

  def counted(network):
    read.append(network)
    return checked(network)

  monkeypatch.setattr(conversion, "_checked", counted)
  convert(source, tmp_path / "zoo")
  assert len(read) == ROWS - 50


def test_a_killed_process_leaves_what_the_next_one_needs(
  source, path, tmp_path
):
  program = f"""
    import os, signal
    from sne_jax.zoo.public import conversion, options, small_cnn
    conversion.PART_MEMBERS = 10
    def kill(done, total, message):
      if done >= 40:
        os.kill(os.getpid(), signal.SIGKILL)
    small_cnn.convert({str(source)!r}, {str(tmp_path / "zoo")!r},
                      options.ConvertOptions(), kill)
  """
  environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
  died = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(program)], env=environment
  )
  assert died.returncode < 0
  assert not (tmp_path / "zoo").exists()
  assert len(list((tmp_path / "zoo.partial").glob("part-*"))) == 4
  convert(source, tmp_path / "zoo")
  assert contents(tmp_path / "zoo") == contents(path)


def test_the_zoo_is_opened_if_it_is_there_and_no_other_is_taken_for_it(
  source, path, tmp_path
):
  before = contents(path)
  assert len(convert(source, path)) == ROWS - 1
  assert contents(path) == before
  with pytest.raises(errors.ZooError, match="epochs is '' there, '86' asked"):
    convert(source, path, epochs="86")


def test_peak_memory_does_not_grow_with_the_rows(source, tmp_path, monkeypatch):
  monkeypatch.setattr(conversion, "PART_BYTES", 4970 * 4 * 8)
  sizes = []
  write_part = conversion.parts.write

  def seen(folder, first, networks):
    sizes.append(len(networks))
    return write_part(folder, first, networks)

  monkeypatch.setattr(conversion.parts, "write", seen)
  convert(source, tmp_path / "zoo")
  assert max(sizes) <= 9 and sum(sizes) == ROWS


def damage(folder, name):
  weights = folder / "weights.npy"
  metrics = folder / "metrics.csv.gz"
  layout = folder / "layout.csv"
  split = folder / "cifar10_split.csv"
  text = metrics_text()
  rewrite = lambda new: metrics.write_bytes(gzip.compress(new.encode()))
  cut = lambda file: file.write_bytes(file.read_bytes()[:-50])
  match name:
    case "no weights":
      weights.unlink()
    case "weights cut":
      cut(weights)
    case "pickled weights":
      np.save(weights, np.array([{"a": 1}], object), allow_pickle=True)
    case "no npy":
      weights.write_bytes(b"hello")
    case "integers":
      np.save(weights, np.zeros((ROWS, 4970), np.int32))
    case "other width":
      np.save(weights, np.zeros((ROWS, 4971), np.float32))
    case "no metrics":
      metrics.unlink()
    case "metrics cut":
      cut(metrics)
    case "row missing":
      rewrite("\n".join(text.split("\n")[:-2]))
    case "column missing":
      rewrite(text.replace("test_accuracy", "best_accuracy", 1))
    case "no number":
      rewrite(text.replace("1.25", "abc", 1))
    case "half step":
      rewrite(text.replace(",80,", ",80.5,", 1))
    case "activation":
      rewrite(text.replace("relu", "swoosh"))
    case "image set":
      rewrite(text.replace("cifar10", "cifar11"))
    case "layout code":
      layout.write_text(
        layout_text().replace("(16,)", "__import__('os').abort()", 1)
      )
    case "layout order":
      layout.write_text(layout_text().replace("3, 3, 1, 16", "16, 1, 3, 3"))
    case "layout kernel":
      layout.write_text(layout_text().replace("kernel:0", "gamma:0", 1))
    case "layout short":
      layout.write_text("\n".join(layout_text().split("\n")[:-2]))
    case "layout empty":
      layout.write_text("")
    case "split twice":
      split.write_text(split.read_text().replace("\n7\n", "\n8\n"))
    case "split short":
      cut(split)
    case "split words":
      split.write_text("a\nb\n")
    case "two splits":
      (folder / "mnist_split.csv").write_text("0\n")


DAMAGES = (
  ("no weights", "weights.npy: file is missing"),
  ("weights cut", "not a whole npy file"),
  ("pickled weights", "not a whole npy file"),
  ("no npy", "not a whole npy file"),
  ("integers", "floats of shape"),
  ("other width", "floats of shape"),
  ("no metrics", "metrics.csv.gz: file is missing"),
  ("metrics cut", "not the published table"),
  ("row missing", "107 rows, and weights.npy has 108"),
  ("column missing", "test_accuracy"),
  ("no number", "not the published table"),
  ("half step", "a step is no whole number"),
  ("activation", "activation 'swoosh' is not known"),
  ("image set", "image set 'cifar11' is not known"),
  ("layout code", 'has shape "__import__'),
  ("layout order", "where a kernel:0 at 16:160 of shape"),
  ("layout kernel", "gamma:0"),
  ("layout short", "'nothing' at 0:0"),
  ("layout empty", "no column 'varname'"),
  ("split twice", "do not name each of 108 rows once"),
  ("split short", "do not name each of 108 rows once"),
  ("split words", "do not name each of 108 rows once"),
  ("two splits", "2 split files: cifar10_split.csv, mnist_split.csv"),
)


@pytest.mark.parametrize(("name", "said"), DAMAGES, ids=lambda v: v[:16])
def test_damage_is_named_in_one_line_and_nothing_is_left(tmp_path, name, said):
  write(tmp_path / "source")
  damage(tmp_path / "source", name)
  with pytest.raises(errors.ZooError) as caught:
    convert(tmp_path / "source", tmp_path / "out" / "zoo")
  assert said in str(caught.value) and "\n" not in str(caught.value)
  assert len(str(caught.value)) < 600
  out = tmp_path / "out"
  assert not out.exists() or not os.listdir(out)


def test_options_that_are_of_no_use_or_out_of_range_are_refused(
  source, tmp_path
):
  with pytest.raises(ValueError, match="val_networks is 3, and small_cnn"):
    convert(source, tmp_path / "zoo", val_networks=3)
  with pytest.raises(ValueError, match="epochs must be numbers"):
    options_lib.ConvertOptions(epochs="1,b")
  with pytest.raises(ValueError, match="seed is -?[0-9]+; must be at least 0"):
    options_lib.ConvertOptions(seed=-1)
  with pytest.raises(errors.ZooError, match="12 networks are chosen"):
    convert(source, tmp_path / "zoo", train_networks=12)
  with pytest.raises(errors.ZooError, match="no network is chosen"):
    convert(source, tmp_path / "zoo", epochs="7")
  assert not os.listdir(tmp_path)
