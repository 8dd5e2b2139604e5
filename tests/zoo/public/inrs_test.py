"""INRs of DWSNets and NFN: labels, splits, the functions that they are."""

import json
import os
import pathlib

import jax
import numpy as np
import pytest

from sne_jax import errors
from sne_jax.networks import families
from sne_jax.zoo.public import conversion, inrs, states
from sne_jax.zoo.public import options as options_lib
from sne_jax.zoo.store import store
from tests.zoo.public import shuffled, torch_files

HIDDEN = 4


def state(seed, prefix="seq", linear="", out=1):
  rng = np.random.default_rng(seed)
  widths = (2, HIDDEN, HIDDEN, out)
  tensors = {}
  for k in range(3):
    inner = linear if k < 2 else ""
    shape = (widths[k + 1], widths[k])
    w = rng.normal(size=shape).astype(np.float32) / 10
    b = rng.normal(size=shape[0]).astype(np.float32) / 10
    tensors[f"{prefix}.{k}{inner}.weight"] = w
    tensors[f"{prefix}.{k}{inner}.bias"] = b
  return torch_files.state_dict(**tensors)


def write_mnist(folder, training=12, testing=5):
  for part, count in (("training", training), ("testing", testing)):
    for k in range(count):
      run = folder / f"mnist_png_{part}_{k % 3}_{k + 100}"
      file = run / "checkpoints" / "model_final.pth"
      torch_files.save(file, state(k + 50 * (part == "testing")))
  return folder


def write_fmnist(folder, train=8, test=4):
  paths = {"train": [], "val": [], "test": []}
  for part, count in (("train", train), ("test", test)):
    for k in range(count):
      file = folder / part / f"model_{k}.pth"
      tensors = state(k + 50 * (part == "test"))
      tensors["label"] = k % 5 if k % 2 else np.array(k % 5)
      torch_files.save(file, tensors)
      where = "val" if part == "train" and k < 2 else part
      paths[where].append(f"/somewhere/train/{part}/model_{k}.pth")
  (folder / "splits.json").write_text(json.dumps(paths))
  return folder


def write_nfn(folder, count=12, out=1, augmented=True):
  for k in range(count):
    file = folder / f"randinit_smaller_{k % 4}s" / f"net{k}.pth"
    torch_files.save(file, state(k, "net", ".linear", out))
    if augmented:
      again = folder / f"randinit_smaller_aug0_{k % 4}s" / f"net{k}.pth"
      torch_files.save(again, state(k + 100, "net", ".linear", out))
  return folder


run = jax.jit(families.forward, static_argnums=0)


def convert(source, path, **options):
  return inrs.convert(source, path, options_lib.ConvertOptions(**options))


def contents(path):
  path = pathlib.Path(path)
  return {name: (path / name).read_bytes() for name in sorted(os.listdir(path))}


def weights_of(zoo, name):
  return zoo.vectors([zoo.members["id"].tolist().index(name)])[0]


def flat(tensors):
  return np.concatenate([array.reshape(-1) for array in tensors.values()])


def parts_of(zoo, split):
  ids = zoo.members["id"]
  return {part: set(ids[n].tolist()) for part, n in zoo.split(split).items()}


def test_mnist_labels_and_parts_are_those_of_the_run_not_of_a_parent(tmp_path):
  folder = write_mnist(tmp_path / "my_train_set" / "mnist-inrs")
  zoo = convert(folder, tmp_path / "zoo", val_networks=3)
  assert len(zoo) == 17 and len(zoo.specs) == 1
  for name, label in zip(zoo.members["id"], zoo.property("label"), strict=True):
    assert label == int(name.split("_")[3])
  parts = parts_of(zoo, "default")
  assert {p: len(some) for p, some in parts.items()} == {
    "train": 9,
    "val": 3,
    "test": 5,
  }
  assert all("testing" in name for name in parts["test"])
  assert all("training" in name for name in parts["train"] | parts["val"])
  got = weights_of(zoo, "mnist_png_testing_1_104")
  np.testing.assert_array_equal(got, flat(state(54)))


def test_a_published_split_of_mnist_is_taken_by_the_run(tmp_path):
  folder = write_mnist(tmp_path / "mnist-inrs", 4, 2)
  runs = sorted(os.listdir(folder))
  tests = [run for run in runs if "testing" in run]
  trains = [run for run in runs if "training" in run]
  path_of = lambda run: f"/data/train/{run}/checkpoints/model_final.pth"
  split = {
    part: {"path": list(map(path_of, some)), "label": ["0"] * len(some)}
    for part, some in {
      "train": trains[:3],
      "val": trains[3:],
      "test": tests,
    }.items()
  }
  file = tmp_path / "mnist_splits.json"
  file.write_text(json.dumps(split))
  zoo = convert(folder, tmp_path / "zoo", split_file=str(file))
  want = {"train": set(trains[:3]), "val": {trains[3]}, "test": set(tests)}
  assert parts_of(zoo, "published") == parts_of(zoo, "default") == want


def test_the_label_in_a_fashion_file_is_a_property_and_no_weight(tmp_path):
  zoo = convert(write_fmnist(tmp_path / "fmnist_inrs"), tmp_path / "zoo")
  assert len(zoo) == 12 and zoo.specs[0].num_weights == 37
  labels = dict(zip(zoo.members["id"], zoo.property("label"), strict=True))
  assert labels["train/model_7.pth"] == 2
  assert labels["train/model_6.pth"] == 1  # A tensor of one number.
  got = weights_of(zoo, "test/model_3.pth")
  np.testing.assert_array_equal(got, flat(state(53)))
  parts = parts_of(zoo, "published")
  assert parts["val"] == {"train/model_0.pth", "train/model_1.pth"}
  assert parts["test"] == {f"test/model_{k}.pth" for k in range(4)}
  assert len(parts["train"]) == 6


def test_augmented_copies_of_nfn_are_not_taken(tmp_path):
  folder = write_nfn(tmp_path / "siren_mnist_wts")
  zoo = convert(folder, tmp_path / "zoo", train_networks=6, val_networks=2)
  assert len(zoo) == 12
  for k in range(12):
    got = weights_of(zoo, f"net-{k:05d}")
    np.testing.assert_array_equal(got, flat(state(k, "net", ".linear")))
  np.testing.assert_array_equal(zoo.property("label"), np.arange(12) % 4)
  np.testing.assert_array_equal(zoo.property("image"), np.arange(12))
  parts = {p: n.tolist() for p, n in zoo.split("default").items()}
  want = {"train": [0, 1, 2, 3, 4, 5], "val": [6, 7], "test": [8, 9, 10, 11]}
  assert parts == want


def test_published_bounds_of_nfn():
  found = inrs.ZooFiles(
    *("nfn", inrs.NFN, "", 0.0, [str(k) for k in range(60000)]),
    *([], [], [], [], str),
  )
  parts = inrs._own_split("", found, options_lib.ConvertOptions())
  sizes = {part: len(some) for part, some in parts.items()}
  assert sizes == {"train": 45000, "val": 5000, "test": 10000}
  assert parts["val"][0] == "45000" and parts["test"][0] == "50000"


@pytest.mark.parametrize("out", [1, 3])
def test_the_two_families_are_the_functions_that_were_published(tmp_path, out):
  write_nfn(tmp_path / "nfn", 2, out)
  write_mnist(tmp_path / "dws", 2, 1)
  nfn = convert(tmp_path / "nfn", tmp_path / "zoo1", val_networks=1)
  dws = convert(tmp_path / "dws", tmp_path / "zoo2", val_networks=1)

  def direct(tensors, points):
    arrays = list(tensors.values())
    x = np.asarray(points, np.float64)
    for w, b in zip(arrays[:4:2], arrays[1:4:2], strict=True):
      x = np.sin(30 * (x @ w.T.astype(np.float64) + b))
    return x @ arrays[4].T + arrays[5]

  side = 5
  pixels = [(i, j) for i in range(side) for j in range(side)]
  line = np.linspace(-1, 1, side)
  # NFN: rows first. DWSNets: the first coordinate runs along a row.
  points = {
    "nfn": [(line[i], line[j]) for i, j in pixels],
    "dws": [(line[j], line[i]) for i, j in pixels],
  }
  for family, zoo, member, tensors, offset in (
    ("nfn", nfn, "net-00001", state(1, "net", ".linear", out), 0.0),
    ("dws", dws, "mnist_png_testing_0_100", state(50), 0.5),
  ):
    x = inrs.coordinates(family, side)
    np.testing.assert_allclose(x, points[family], atol=1e-6)
    got = run(zoo.specs[0], weights_of(zoo, member), x)
    want = direct(tensors, points[family]) + offset
    np.testing.assert_allclose(got, want, atol=1e-4)  # sin(30 x) in float32


@pytest.mark.parametrize("write", [write_mnist, write_fmnist, write_nfn])
def test_the_order_of_the_file_system_changes_nothing(tmp_path, write):
  source = write(tmp_path / "source")
  convert(source, tmp_path / "one", val_networks=2)
  with shuffled.reversed_folders():
    convert(source, tmp_path / "two", val_networks=2)
  assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_networks_that_are_not_finite_are_left_out_and_counted(tmp_path):
  folder = write_nfn(tmp_path / "nfn", 5, augmented=False)
  bad = state(3, "net", ".linear")
  bad["net.1.linear.bias"][0] = np.inf
  torch_files.save(folder / "randinit_smaller_3s" / "net3.pth", bad)
  zoo = convert(folder, tmp_path / "zoo", train_networks=2, val_networks=1)
  assert len(zoo) == 4 and "net-00003" not in zoo.members["id"]
  assert zoo.provenance["left_out"] == [
    {"reason": conversion.NOT_FINITE, "count": 1, "names": ["net-00003"]}
  ]
  assert zoo.members["id"][zoo.split("default")["test"]] == ["net-00004"]


def test_a_file_that_runs_code_is_refused_by_name_and_nothing_runs(tmp_path):
  folder = write_nfn(tmp_path / "nfn", 4, augmented=False)
  file = folder / "randinit_smaller_2s" / "net2.pth"
  mark = tmp_path / "it_ran"
  tensors = state(2, "net", ".linear")
  tensors["x"] = torch_files.Evil(f"touch {mark}")
  torch_files.save(file, tensors)
  with pytest.raises(errors.ZooError, match=r"net2.pth.*posix.system"):
    convert(folder, tmp_path / "zoo")
  assert not mark.exists() and not (tmp_path / "zoo").exists()
  assert not (tmp_path / "zoo.partial").exists()
  zoo = convert(folder, tmp_path / "zoo", skip_damaged=True)
  assert len(zoo) == 3 and not mark.exists()
  assert zoo.provenance["left_out"][0]["reason"] == conversion.DAMAGED


@pytest.mark.parametrize("kind", [IndexError, RecursionError, KeyError])
def test_a_fault_of_any_type_is_that_network_alone(kind, tmp_path, monkeypatch):
  folder = write_nfn(tmp_path / "nfn", 4, augmented=False)
  read = states.load

  def broken(file, *args, **options):
    if str(file).endswith("net2.pth"):
      raise kind("unforeseen")
    return read(file, *args, **options)

  monkeypatch.setattr(states, "load", broken)
  with pytest.raises(errors.ZooError, match=f"{kind.__name__}.*skip_damaged"):
    convert(folder, tmp_path / "zoo")
  zoo = convert(folder, tmp_path / "zoo", skip_damaged=True)
  assert len(zoo) == 3
  assert zoo.provenance["left_out"][0]["reason"] == conversion.DAMAGED


def damage(folder, name):
  file = folder / "randinit_smaller_1s" / "net1.pth"
  tensors = state(1, "net", ".linear")
  match name:
    case "cut":
      file.write_bytes(file.read_bytes()[:-30])
      return
    case "empty":
      file.write_bytes(b"")
      return
    case "missing":
      file.unlink()
      return
    case "twice":
      torch_files.save(folder / "randinit_smaller_2s" / "net1.pth", tensors)
      return
    case "other name":
      tensors["extra.weight"] = np.zeros((2, 2), np.float32)
    case "one missing":
      del tensors["net.2.bias"]
    case "shape":
      tensors["net.1.linear.weight"] = np.zeros((5, 3), np.float32)
    case "integers":
      tensors["net.0.linear.bias"] = np.zeros(HIDDEN, np.int64)
    case "a list":
      tensors = [1, 2]
    case "no tensors":
      tensors = {"a": 1}
    case "number":
      tensors["net.0.linear.weight"] = np.float32(1)[None][0:1].reshape(())
  torch_files.save(file, tensors)


@pytest.mark.parametrize(
  ("name", "said"),
  [
    ("cut", "net1.pth: "),
    ("empty", "net1.pth: "),
    ("missing", "net1.pth is missing or there twice"),
    ("twice", "there twice"),
    ("other name", "tensor 'extra.weight' is not called like"),
    ("one missing", "5 tensors, where inr"),
    ("shape", "'net.1.linear.weight' is float32 of shape (5, 3)"),
    ("integers", "'net.0.linear.bias' is int64"),
    ("a list", "it holds a list, no table"),
    ("no tensors", "its weights are of shapes"),
    ("number", "its weights are of shapes"),
  ],
)
def test_damage_is_named_in_one_line_and_nothing_is_left(tmp_path, name, said):
  folder = write_nfn(tmp_path / "nfn", 3, augmented=False)
  damage(folder, name)
  with pytest.raises(errors.ZooError) as caught:
    convert(folder, tmp_path / "out" / "zoo")
  assert said in str(caught.value) and "\n" not in str(caught.value)
  out = tmp_path / "out"
  assert not out.exists() or not os.listdir(out)


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ("{", "not JSON"),
    ("[]", "no list of paths for part 'train'"),
    ('{"train": [], "val": [1], "test": []}', "for part 'val'"),
    ('{"train": ["x/none.pth"], "val": [], "test": []}', "1 paths of part"),
    (
      '{"train": ["train/model_0.pth"], "val": ["train/model_0.pth"],'
      ' "test": []}',
      "more than once",
    ),
    ("[" * 100000, "not JSON"),
  ],
)
def test_a_bad_split_file_is_named(tmp_path, text, said):
  folder = write_fmnist(tmp_path / "fmnist", 2, 1)
  (folder / "splits.json").write_text(text)
  with pytest.raises(errors.ZooError) as caught:
    convert(folder, tmp_path / "zoo")
  assert said in str(caught.value) and "splits.json" in str(caught.value)
  assert not (tmp_path / "zoo.partial").exists()


def test_a_fashion_file_without_a_label_is_named(tmp_path):
  folder = write_fmnist(tmp_path / "fmnist", 2, 1)
  torch_files.save(folder / "train" / "model_0.pth", state(0))
  with pytest.raises(errors.ZooError, match="its label is None"):
    convert(folder, tmp_path / "zoo")


def test_no_layout_and_two_layouts_and_no_folder_are_named(tmp_path):
  with pytest.raises(errors.ZooError, match="no such folder"):
    convert(tmp_path / "none", tmp_path / "zoo")
  (tmp_path / "empty").mkdir()
  with pytest.raises(errors.ZooError, match="layouts of INRs in it: none"):
    convert(tmp_path / "empty", tmp_path / "zoo")
  write_nfn(tmp_path / "both", 2)
  write_mnist(tmp_path / "both", 1, 1)
  with pytest.raises(errors.ZooError, match="dws_mnist, nfn; one is due"):
    convert(tmp_path / "both", tmp_path / "zoo")
  with pytest.raises(ValueError, match="epochs is '1', and nfn has no use"):
    convert(write_nfn(tmp_path / "n", 2), tmp_path / "zoo", epochs="1")
  with pytest.raises(errors.ZooError, match=r"val_networks \(5000\) below"):
    convert(write_mnist(tmp_path / "m", 2, 1), tmp_path / "zoo")


def test_a_zoo_is_opened_again(tmp_path):
  folder = write_nfn(tmp_path / "nfn", 3, augmented=False)
  convert(folder, tmp_path / "zoo")
  before = contents(tmp_path / "zoo")
  assert len(convert(folder, tmp_path / "zoo")) == 3
  assert contents(tmp_path / "zoo") == before
  assert len(store.Zoo.open(tmp_path / "zoo")) == 3
