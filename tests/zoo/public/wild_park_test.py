"""The CNN Wild Park: configurations without omegaconf, skips, splits."""

import json
import math
import os
import pathlib

import jax
import numpy as np
import pytest

from sne_jax import errors
from sne_jax.networks import families
from sne_jax.zoo.public import conversion, wild_park
from sne_jax.zoo.public import options as options_lib
from sne_jax.zoo.store import store
from tests.zoo.public import shuffled, torch_files

CONFIGS = (
  {
    "n_layers": 4,
    "n_classes": 10,
    "channels": [3, 8, 4, 16, 4],
    "kernel_size": [3, 5, 3, 7],
    "stride": [1, 1, 1, 1],
    "padding": [1, 2, 1, 3],
    "residual": [-1, -1, 0, 1],  # 8 onto 16 channels, 4 onto 4.
    "activation": ["relu", "gelu", "none", "leaky_relu"],
  },
  {
    "n_layers": 2,
    "n_classes": 10,
    "channels": [3, 4, 4],
    "kernel_size": [3, 3],
    "stride": [1, 1],
    "padding": [1, 1],
    "residual": [-1, -1],
    "activation": ["tanh", "sigmoid"],
  },
)
TRIALS, STEPS = 6, (10, 20)


def state(seed, config):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: (0.3 * rng.normal(size=shape)).astype(np.float32)
  channels = config["channels"]
  tensors = {}
  for k, kernel in enumerate(config["kernel_size"]):
    out = channels[k + 1]
    tensors[f"layers.{k}.weight"] = draw(out, channels[k], kernel, kernel)
    tensors[f"layers.{k}.bias"] = draw(out)
  tensors["fc.weight"] = draw(config["n_classes"], channels[-1])
  tensors["fc.bias"] = draw(config["n_classes"])
  return torch_files.state_dict(**tensors)


def whole(config):
  """The configuration as it was saved: a branch of a larger one."""
  root = {
    "seed": 1,
    "data": {"root": "/data"},
    "model": config,
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3},
  }
  return torch_files.config(root).__dict__["_content"]["model"]


def write_checkpoint(root, trial, step, **changes):
  config = CONFIGS[trial % 2]
  value = {
    "model": state(100 * trial + step, config),
    "optimizer": {"state": {0: {"exp_avg": np.zeros(3, np.float32)}}},
    "config": whole(config),
    "iteration": step,
    "last_result": {
      "test/acc": 0.1 + trial / 10 + step / 1000,
      "test/loss": 1.5,
      "training_iteration": step,
      "config": {"model": config},
    },
  }
  file = root / f"trial_{trial}" / f"checkpoint_{step:06d}" / "checkpoint.pt"
  torch_files.save(file, value | changes)
  return file


def write(root):
  for trial in range(TRIALS):
    for step in STEPS:
      write_checkpoint(root, trial, step)
  (root / "trial_0" / "result.json").write_text("not read")
  return root


def write_split(file, scores=None, **parts):
  split = {}
  for part in ("train", "val", "test"):
    pairs = [(t, s) for t in parts.get(part, ()) for s in STEPS]
    split[part] = {
      "path": [
        f"train_data/trial_{t}/checkpoint_{s:06d}/checkpoint.pt"
        for t, s in pairs
      ],
      "score": [0.9] * len(pairs),
      "step": [s for _, s in pairs],
    }
  file.write_text(json.dumps(split))
  return file


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  return write(tmp_path_factory.mktemp("park") / "cnn_park")


run = jax.jit(families.forward, static_argnums=0)


def convert(source, path, progress=None, **options):
  chosen = options_lib.ConvertOptions(**options)
  return wild_park.convert(source, path, chosen, progress)


@pytest.fixture(scope="module")
def path(source, tmp_path_factory):
  path = tmp_path_factory.mktemp("zoos") / "zoo"
  convert(source, path)
  return path


def contents(path):
  path = pathlib.Path(path)
  return {name: (path / name).read_bytes() for name in sorted(os.listdir(path))}


def direct(tensors, config, x):
  """The reference loop: skips before the activation, on shared channels."""
  erf = np.vectorize(math.erf)
  acts = {
    "relu": lambda v: np.maximum(v, 0),
    "gelu": lambda v: 0.5 * v * (1 + erf(v / np.sqrt(2))),
    "tanh": np.tanh,
    "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    "leaky_relu": lambda v: np.where(v > 0, v, 0.01 * v),
    "none": lambda v: v,
  }
  t = {name: np.asarray(a, np.float64) for name, a in tensors.items()}
  saved = []
  for k, source in enumerate(config["residual"]):
    w, pad = t[f"layers.{k}.weight"], config["padding"][k]
    size, side = w.shape[-1], x.shape[-1]
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    y = np.zeros((len(x), len(w), side, side))
    for i in range(side):
      for j in range(side):
        patch = x[:, :, i : i + size, j : j + size]
        y[:, :, i, j] = np.einsum("bihw,oihw->bo", patch, w)
    y += t[f"layers.{k}.bias"][None, :, None, None]
    if source >= 0:
      shared = min(saved[source].shape[1], y.shape[1])
      y[:, :shared] += saved[source][:, :shared]
    x = acts[config["activation"][k]](y)
    saved.append(x)
  return x.mean(axis=(2, 3)) @ t["fc.weight"].T + t["fc.bias"]


@pytest.mark.parametrize("trial", [0, 1])
def test_networks_compute_what_the_reference_does(path, trial):
  zoo = store.Zoo.open(path)
  assert len(zoo) == TRIALS * len(STEPS) and len(zoo.specs) == 2
  name = f"trial_{trial}/checkpoint_000020"
  member = zoo.members["id"].tolist().index(name)
  spec = zoo.specs[zoo.members["spec"][member]]
  config = CONFIGS[trial]
  x = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
  got = run(spec, zoo.vectors([member])[0], x)
  tensors = state(100 * trial + 20, config)
  want = direct(tensors, config, x)
  np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
  if trial == 0:  # Control: without its skips it is another function.
    wrong = direct(tensors, config | {"residual": [-1] * 4}, x)
    assert np.abs(wrong - want).max() > 0.05


def test_properties_are_those_of_the_checkpoint(path):
  zoo = store.Zoo.open(path)
  for member, name in enumerate(zoo.members["id"]):
    trial, step = int(name[6]), int(name[-6:])
    assert zoo.property("epoch")[member] == step
    assert zoo.property("network")[member] == trial
    want = 0.1 + trial / 10 + step / 1000
    np.testing.assert_allclose(zoo.property("test_accuracy")[member], want)
    want = ",".join(CONFIGS[trial % 2]["activation"])
    assert zoo.property("activation")[member] == want
    assert zoo.property("layers")[member] == CONFIGS[trial % 2]["n_layers"]


def test_the_published_split_is_found_beside_the_zoo_and_parts_no_network(
  tmp_path,
):
  root = write(tmp_path / "published" / "cnn_park")
  file = root.parent / "cnn_park_splits.json"
  write_split(file, train=(0, 1, 2, 7), val=(3,), test=(4, 5))
  zoo = convert(root, tmp_path / "zoo")
  trials = {
    part: set(zoo.property("network")[numbers])
    for part, numbers in zoo.split("published").items()
  }
  assert trials == {"train": {0, 1, 2}, "val": {3}, "test": {4, 5}}
  assert zoo.provenance["split_paths_not_there"] == len(STEPS)
  assert {p: len(n) for p, n in zoo.split("default").items()} == {
    "train": 6,
    "val": 2,
    "test": 4,
  }


def test_without_a_split_file_all_checkpoints_of_a_network_are_in_one_part(
  path,
):
  zoo = store.Zoo.open(path)
  assert zoo.splits == ("default",)
  trials = [
    set(zoo.property("network")[n]) for n in zoo.split("default").values()
  ]
  assert all(trials) and sum(map(len, trials)) == TRIALS


def test_the_score_of_the_split_file_is_taken_where_the_result_is_missing(
  tmp_path,
):
  root = tmp_path / "park"
  write_checkpoint(root, 0, 10, last_result=None)
  write_checkpoint(root, 1, 10)
  write_checkpoint(root, 2, 10, last_result={"test/acc": float("nan")})
  zoo = convert(root, tmp_path / "without")
  assert zoo.members["id"].tolist() == ["trial_1/checkpoint_000010"]
  assert zoo.provenance["left_out"][0]["count"] == 2
  file = write_split(tmp_path / "s.json", train=(0, 1), test=(2,))
  zoo = convert(root, tmp_path / "with", split_file=str(file))
  np.testing.assert_allclose(zoo.property("test_accuracy"), [0.9, 0.21])


def test_epochs_that_are_not_chosen_are_left_out_and_counted(source, tmp_path):
  zoo = convert(source, tmp_path / "zoo", epochs="20")
  assert set(zoo.property("epoch")) == {20}
  assert zoo.provenance["left_out"][0]["count"] == TRIALS


def test_the_order_of_the_file_system_changes_nothing(source, path, tmp_path):
  with shuffled.reversed_folders():
    convert(source, tmp_path / "zoo")
  assert contents(tmp_path / "zoo") == contents(path)


def test_a_broken_off_conversion_goes_on_to_the_same_zoo(
  source, path, tmp_path, monkeypatch
):
  monkeypatch.setattr(conversion, "PART_MEMBERS", 3)

  def stop(done, *_):
    if done >= 6:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    convert(source, tmp_path / "zoo", stop)
  assert len(list((tmp_path / "zoo.partial").glob("part-*"))) == 2
  convert(source, tmp_path / "zoo")
  assert contents(tmp_path / "zoo") == contents(path)


def test_nothing_that_a_checkpoint_names_is_run(tmp_path):
  root, mark = tmp_path / "park", tmp_path / "it_ran"
  write_checkpoint(root, 0, 10, extra=torch_files.Evil(f"touch {mark}"))
  zoo = convert(root, tmp_path / "zoo")  # Inert: read, and passed over.
  assert len(zoo) == 1 and not mark.exists()
  evil = torch_files.Evil(f"touch {mark}")
  write_checkpoint(root, 0, 10, config=evil)
  with pytest.raises(errors.ZooError, match="posix.system"):
    convert(root, tmp_path / "zoo2")
  assert not mark.exists() and not (tmp_path / "zoo2").exists()


def damage(root, name):
  config = dict(CONFIGS[0])
  tensors = state(10, config)
  changes = {}
  match name:
    case "cut":
      file = write_checkpoint(root, 0, 10)
      file.write_bytes(file.read_bytes()[:-40])
      return
    case "no config":
      changes["config"] = None
    case "no residual":
      del config["residual"]
      changes["config"] = whole(config)
    case "activation":
      changes["config"] = whole(config | {"activation": ["swoosh"] * 4})
    case "residual":
      changes["config"] = whole(config | {"residual": [-1, 0, 1, 2]})
    case "kernel":
      changes["config"] = whole(
        config | {"kernel_size": [3, 3, 3, 7], "padding": [1, 1, 1, 3]}
      )
    case "text":
      changes["config"] = whole(config | {"n_classes": "10"})
    case "lengths":
      changes["config"] = whole(config | {"stride": [1]})
    case "no fc":
      del tensors["fc.bias"]
      changes["model"] = tensors
    case "no model":
      changes["model"] = 3
    case "name":
      changes["model"] = tensors | {"norm.weight": np.zeros(3, np.float32)}
    case "iteration":
      changes["iteration"] = "ten"
  write_checkpoint(root, 0, 10, **changes)


@pytest.mark.parametrize(
  ("name", "said"),
  [
    ("cut", "checkpoint.pt: "),
    ("no config", "its config describes no network (it is no table)"),
    ("no residual", "its config describes no network ('residual')"),
    ("activation", "unknown activation 'swoosh'"),
    ("residual", "skips must come from 2 or more layers before"),
    ("kernel", "'layers.1.weight' is float32 of shape (4, 8, 5, 5), where"),
    ("text", "'10' is no whole number"),
    ("lengths", "its config describes no network (strides must be"),
    ("no fc", "no state dict `model` with layers and fc"),
    ("no model", "no state dict `model` with layers and fc"),
    ("name", "tensor 'norm.weight' is not called like"),
    ("iteration", "its iteration is 'ten'"),
  ],
)
def test_damage_is_named_in_one_line_and_nothing_is_left(tmp_path, name, said):
  damage(tmp_path / "park", name)
  with pytest.raises(errors.ZooError) as caught:
    convert(tmp_path / "park", tmp_path / "out" / "zoo")
  assert said in str(caught.value) and "\n" not in str(caught.value)
  out = tmp_path / "out"
  assert not out.exists() or not os.listdir(out)


def test_a_split_that_parts_a_network_is_refused(source, tmp_path):
  file = write_split(tmp_path / "s.json", train=(0, 1), val=(1,), test=(2,))
  with pytest.raises(errors.ZooError, match="'trial_1' is in train and in val"):
    convert(source, tmp_path / "zoo", split_file=str(file))
  file = write_split(tmp_path / "s.json", train=(8,), val=(9,), test=())
  with pytest.raises(errors.ZooError, match="none of its paths is there"):
    convert(source, tmp_path / "zoo", split_file=str(file))
  file.write_text('{"train": {"path": ["a"], "score": []}}')
  with pytest.raises(errors.ZooError, match="no lists path and score"):
    convert(source, tmp_path / "zoo", split_file=str(file))
  with pytest.raises(errors.ZooError, match="cannot be read|missing"):
    convert(source, tmp_path / "zoo", split_file=str(tmp_path / "none.json"))
  assert os.listdir(tmp_path) == ["s.json"]


def test_a_folder_without_checkpoints_is_named(tmp_path):
  (tmp_path / "trial_0" / "checkpoint_1").mkdir(parents=True)
  with pytest.raises(errors.ZooError, match="no <trial>/<checkpoint>"):
    convert(tmp_path, tmp_path / "zoo")


def test_a_converted_zoo_opens(path):
  zoo = store.Zoo.open(path)
  assert zoo.provenance["published"]["title"] == "CNN Wild Park"
