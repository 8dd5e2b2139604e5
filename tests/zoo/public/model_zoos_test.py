"""The Model Zoo dataset: both names of snapshots, dropout, results, ResNets."""

import collections
import json
import os
import pathlib
import shutil

import jax
import numpy as np
import pytest

from sne_jax import errors
from sne_jax.networks import families
from sne_jax.zoo.public import conversion, model_zoos
from sne_jax.zoo.public import options as options_lib
from sne_jax.zoo.store import store
from tests.zoo.public import shuffled, torch_files

SHAPES = {
  "CNN": ((8, 1, 5, 5), (6, 8, 5, 5), (4, 6, 2, 2), (20, 36), (10, 20)),
  "CNN3": ((16, 3, 3, 3), (32, 16, 3, 3), (15, 32, 3, 3), (20, 60), (10, 20)),
}
PLAIN, DROPPED, LARGE = (0, 3, 6, 9, 11), (0, 4, 8, 11, 14), (0, 4, 8, 13, 16)
EPOCHS = (0, 1, 2, 50)


def state(seed, kind="CNN", places=PLAIN):
  rng = np.random.default_rng(seed)
  tensors = {}
  for place, shape in zip(places, SHAPES[kind], strict=True):
    draw = lambda shape: (0.3 * rng.normal(size=shape)).astype(np.float32)
    tensors[f"module_list.{place}.weight"] = draw(shape)
    tensors[f"module_list.{place}.bias"] = draw(shape[0])
  return torch_files.state_dict(**tensors)


def result(epoch, run=0, train_acc=None):
  if train_acc is None:
    train_acc = -999 if epoch == 0 else 0.5 + epoch / 1000
  return {
    "train_loss": 2.0,
    "train_acc": train_acc,
    "test_loss": 1.5,
    "test_acc": 0.25 + epoch / 1000 + run / 10000,
    "training_iteration": epoch,
    "trial_id": f"{run:05d}",
    "config": {"seed": run},
  }


def write_run(
  zoo, run, kind="CNN", places=PLAIN, padded=False, epochs=EPOCHS, **params
):
  name = (
    f"NN_tune_trainable_ab{run:02d}_{run:05d}_{run}_seed={run}_2021-10-0{run}"
  )
  folder = zoo / name
  folder.mkdir(parents=True)
  for epoch in epochs:
    number = f"{epoch:06d}" if padded else str(epoch)
    file = folder / f"checkpoint_{number}" / "checkpoints"
    torch_files.save(file, state(100 * run + epoch, kind, places))
    file.with_name("optimizer").write_bytes(b"not read")
    file.with_name(".tune_metadata").write_bytes(b"not read")
  config = {
    "model::type": kind,
    "model::channels_in": 1 if kind == "CNN" else 3,
    "model::o_dim": 4,  # Ignored by the classes of the zoo.
    "model::use_bias": False,
    "model::nlin": "tanh",
    "model::dropout": 0.5 if places != PLAIN else 0,
    "model::init_type": "uniform",
    "optim::optimizer": "adam",
    "optim::lr": 0.0003,
    "optim::wd": 0.0,
    "seed": run,
    "training::batchsize": 10,
    "dataset::dump": "/where/dataset.pt",
    "cuda": False,
  }
  (folder / "params.json").write_text(json.dumps(config | params))
  lines = [json.dumps(result(epoch, run)) for epoch in range(51)]
  (folder / "result.json").write_text("\n".join(lines) + "\n")
  (folder / "progress.csv").write_text("a\n")
  return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  zoo = tmp_path_factory.mktemp("zoos") / "tune_zoo_mnist"
  for run in range(1, 6):
    dropped = run % 2 == 0
    write_run(
      zoo,
      run,
      places=DROPPED if dropped else PLAIN,
      padded=run > 3,
      **{"model::nlin": "gelu"} if run == 5 else {},
    )
  (zoo / "config.json").write_text("{}")
  (zoo / "dataset.pt").write_bytes(b"not read")
  (zoo / "something_else").mkdir()
  return zoo


@pytest.fixture(scope="module")
def path(source, tmp_path_factory):
  path = tmp_path_factory.mktemp("zoos") / "zoo"
  convert(source, path)
  return path


@pytest.fixture
def copy(source, tmp_path):
  shutil.copytree(source, tmp_path / "copy")
  return tmp_path / "copy"


run = jax.jit(families.forward, static_argnums=0)


def convert(source, path, **options):
  return model_zoos.convert(source, path, options_lib.ConvertOptions(**options))


def run_of(source, run):
  (name,) = [n for n in os.listdir(source) if f"_ab{run:02d}_" in n]
  return name


def contents(path):
  path = pathlib.Path(path)
  return {name: (path / name).read_bytes() for name in sorted(os.listdir(path))}


def flat(tensors):
  return np.concatenate([array.reshape(-1) for array in tensors.values()])


def left_out(zoo):
  return {e["reason"]: e["count"] for e in zoo.provenance["left_out"]}


def direct(tensors, x, kind, act):
  """The published networks, with loops over places. Pools before activation."""
  arrays = [np.asarray(a, np.float64) for a in tensors.values()]
  pools = (True, True, kind == "CNN3")
  for number, pool in enumerate(pools):
    w, b = arrays[2 * number], arrays[2 * number + 1]
    k, side = w.shape[-1], x.shape[-1] - w.shape[-1] + 1
    y = np.zeros((len(x), len(w), side, side))
    for i in range(side):
      for j in range(side):
        patch = x[:, :, i : i + k, j : j + k]
        y[:, :, i, j] = np.einsum("bihw,oihw->bo", patch, w) + b
    if pool:
      half = side // 2
      y = y[:, :, : 2 * half, : 2 * half]
      y = y.reshape(len(x), len(w), half, 2, half, 2).max(axis=(3, 5))
    x = act(y)
  x = act(x.reshape(len(x), -1) @ arrays[6].T + arrays[7])
  return x @ arrays[8].T + arrays[9]


def test_members_are_all_snapshots_of_all_runs(source, path):
  zoo = store.Zoo.open(path)
  assert len(zoo) == 5 * len(EPOCHS) and not left_out(zoo)
  assert len(zoo.specs) == 2  # tanh, gelu
  assert zoo.specs[0].num_weights == 2464 and zoo.licence == "CC-BY-4.0"
  for member, name in enumerate(zoo.members["id"]):
    run = int(name.split("_")[4])
    epoch = zoo.property("epoch")[member]
    assert name == f"{run_of(source, run)}/{epoch:03d}"
    places = DROPPED if run % 2 == 0 else PLAIN
    want = flat(state(100 * run + epoch, "CNN", places))
    np.testing.assert_array_equal(zoo.vectors([member])[0], want)
    want = 0.25 + epoch / 1000 + run / 10000
    np.testing.assert_allclose(zoo.property("test_accuracy")[member], want)
    assert zoo.property("activation")[member] == (
      "gelu" if run == 5 else "tanh"
    )
    assert zoo.property("seed")[member] == run


@pytest.mark.parametrize(
  ("kind", "places"), [("CNN", PLAIN), ("CNN", DROPPED), ("CNN3", LARGE)]
)
def test_networks_compute_what_the_published_ones_do(tmp_path, kind, places):
  write_run(tmp_path / "zoo", 1, kind, places, epochs=(7,))
  zoo = convert(tmp_path / "zoo", tmp_path / "out")
  spec = zoo.specs[0]
  assert spec.num_weights == {"CNN": 2464, "CNN3": 10853}[kind]
  x = np.random.default_rng(0).normal(
    size=(2, *dict(spec.options)["image_shape"])
  )
  want = direct(state(107, kind, places), x, kind, np.tanh)
  got = run(spec, zoo.vectors([0])[0], x.astype(np.float32))
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
  # Control: activation before pooling is the same for tanh alone, so the
  # order of places in the flattened image is what this can tell.
  tensors = zoo.specs[0].unflatten(np.array(zoo.vectors([0])[0]))
  first = tensors["dense0.weight"]
  channels = {"CNN": 4, "CNN3": 15}[kind]
  swapped = first.reshape(20, channels, -1).swapaxes(1, 2).reshape(20, -1)
  wrong = spec.flatten(tensors | {"dense0.weight": swapped}, np)
  got = run(spec, wrong, x.astype(np.float32))
  assert np.abs(got - want).max() > 0.01


def test_epoch_0_and_what_was_not_measured(source, tmp_path):
  zoo = convert(source, tmp_path / "zoo", epochs="0,50")
  assert len(zoo) == 10
  first = zoo.property("epoch") == 0
  assert np.isnan(zoo.property("train_accuracy")[first]).all()  # -999
  assert np.isnan(zoo.property("generalization_gap")[first]).all()
  np.testing.assert_allclose(zoo.property("train_accuracy")[~first], 0.55)
  assert np.isnan(zoo.property("val_loss")).all()
  assert np.isnan(zoo.property("momentum")).all()


def test_results_are_matched_by_iteration_not_by_line(copy, tmp_path):
  file = copy / run_of(copy, 1) / "result.json"
  lines = file.read_text().splitlines()
  # No line for epoch 0; epoch 2 twice, as a resumed run writes it.
  again = json.dumps(result(2, train_acc=0.75))
  file.write_text("\n".join([*lines[1:3], again, *lines[3:]]))
  zoo = convert(copy, tmp_path / "zoo")
  assert left_out(zoo) == {model_zoos.NO_RESULT: 1}
  accuracy = {
    name.split("/")[1]: zoo.property("train_accuracy")[member]
    for member, name in enumerate(zoo.members["id"])
    if name.startswith(run_of(copy, 1))
  }
  assert accuracy == {"001": 0.501, "002": 0.75, "050": 0.55}


def test_a_short_result_and_missing_files_leave_out_what_they_must(
  copy, tmp_path
):
  runs = {run: copy / run_of(copy, run) for run in range(1, 6)}
  text = (runs[1] / "result.json").read_text().splitlines()
  (runs[1] / "result.json").write_text("\n".join(text[:2]) + '\n{"trai')
  (runs[2] / "result.json").unlink()
  (runs[3] / "params.json").unlink()
  (runs[4] / "checkpoint_000001" / "checkpoints").unlink()
  shutil.rmtree(runs[5] / "checkpoint_000002")
  bad = state(550)
  bad["module_list.3.weight"][0, 0, 0, 0] = np.nan
  torch_files.save(runs[5] / "checkpoint_000050" / "checkpoints", bad)
  zoo = convert(copy, tmp_path / "zoo")
  assert left_out(zoo) == {
    model_zoos.NO_RESULT: 2,  # Epochs 2 and 50 of run 1.
    model_zoos.NO_RESULT_FILE: 1,
    model_zoos.NO_PARAMS: 1,
    model_zoos.NO_STATE: 1,
    conversion.NOT_FINITE: 1,
  }
  counts = collections.Counter(n.split("/")[0] for n in zoo.members["id"])
  assert counts == {runs[1].name: 2, runs[4].name: 3, runs[5].name: 2}


def test_of_two_names_of_an_epoch_that_without_zeros_is_taken(copy, tmp_path):
  folder = copy / run_of(copy, 1) / "checkpoint_000001"
  torch_files.save(folder / "checkpoints", state(999))
  zoo = convert(copy, tmp_path / "zoo", epochs="1")
  (member,) = [
    number
    for number, name in enumerate(zoo.members["id"])
    if name.startswith(run_of(copy, 1))
  ]
  np.testing.assert_array_equal(zoo.vectors([member])[0], flat(state(101)))


def test_the_order_of_the_file_system_changes_nothing(source, path, tmp_path):
  with shuffled.reversed_folders():
    convert(source, tmp_path / "zoo")
  assert contents(tmp_path / "zoo") == contents(path)


def test_epochs_of_a_run_are_in_one_part(path):
  zoo = store.Zoo.open(path)
  parts = zoo.split("default")
  runs = [set(zoo.property("run")[n]) for n in parts.values()]
  assert all(runs) and sum(map(len, runs)) == 5 == len(set.union(*runs))


@pytest.mark.parametrize("stop_at", [3, 12])
def test_a_broken_off_conversion_goes_on_to_the_same_zoo(
  source, path, tmp_path, monkeypatch, stop_at
):
  monkeypatch.setattr(conversion, "PART_MEMBERS", 3)

  def stop(done, *_):
    if done >= stop_at:
      raise KeyboardInterrupt

  chosen = options_lib.ConvertOptions()
  with pytest.raises(KeyboardInterrupt):
    model_zoos.convert(source, tmp_path / "zoo", chosen, stop)
  assert not (tmp_path / "zoo").exists()
  convert(source, tmp_path / "zoo")
  assert contents(tmp_path / "zoo") == contents(path)


def resnet_state(seed, widths=(4, 6), blocks=2, classes=7):
  rng = np.random.default_rng(seed)
  tensors = collections.OrderedDict()

  def conv(name, norm, out, into, kernel):
    shape = (out, into, kernel, kernel)
    tensors[f"{name}.weight"] = rng.normal(size=shape).astype(np.float32) / 3
    for part in ("weight", "bias", "running_mean", "running_var"):
      values = rng.uniform(0.5, 1.5, size=out)
      tensors[f"{norm}.{part}"] = values.astype(np.float32)
    tensors[f"{norm}.num_batches_tracked"] = np.array(17)

  conv("conv1", "bn1", widths[0], 3, 3)
  into = widths[0]
  for stage, width in enumerate(widths):
    for block in range(blocks):
      name = f"layer{stage + 1}.{block}"
      conv(f"{name}.conv1", f"{name}.bn1", width, into, 3)
      conv(f"{name}.conv2", f"{name}.bn2", width, width, 3)
      if block == 0 and stage:
        shortcut = f"{name}.downsample"
        conv(f"{shortcut}.0", f"{shortcut}.1", width, into, 1)
      into = width
  shape = (classes, into)
  tensors["fc.weight"] = rng.normal(size=shape).astype(np.float32)
  tensors["fc.bias"] = rng.normal(size=classes).astype(np.float32)
  return tensors


def direct_resnet(tensors, x, blocks=2, stages=2):
  t = {name: np.asarray(a, np.float64) for name, a in tensors.items()}

  def conv(x, name, norm, stride):
    w = t[f"{name}.weight"]
    k = w.shape[-1]
    x = np.pad(x, ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    side = (x.shape[-1] - k) // stride + 1
    y = np.zeros((len(x), len(w), side, side))
    for i in range(side):
      for j in range(side):
        a, b = i * stride, j * stride
        patch = x[:, :, a : a + k, b : b + k]
        y[:, :, i, j] = np.einsum("bihw,oihw->bo", patch, w)
    at = lambda part: t[f"{norm}.{part}"][None, :, None, None]
    y = (y - at("running_mean")) / np.sqrt(at("running_var") + 1e-5)
    return y * at("weight") + at("bias")

  relu = lambda x: np.maximum(x, 0)
  x = relu(conv(x, "conv1", "bn1", 1))
  for stage in range(stages):
    for block in range(blocks):
      name = f"layer{stage + 1}.{block}"
      stride = 2 if stage and block == 0 else 1
      y = relu(conv(x, f"{name}.conv1", f"{name}.bn1", stride))
      y = conv(y, f"{name}.conv2", f"{name}.bn2", 1)
      if f"{name}.downsample.0.weight" in t:
        x = conv(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
      x = relu(x + y)
  return x.mean(axis=(2, 3)) @ t["fc.weight"].T + t["fc.bias"]


def write_resnet(zoo, tensors):
  folder = write_run(zoo, 1, epochs=(), **{"model::type": "Resnet18"})
  torch_files.save(folder / "checkpoint_000050" / "checkpoints", tensors)


def test_resnets_keep_running_statistics_and_compute_the_same(tmp_path):
  write_resnet(tmp_path / "zoo", resnet_state(0))
  zoo = convert(tmp_path / "zoo", tmp_path / "out")
  spec = zoo.specs[0]
  assert spec.family == "resnet"
  kept = sum(
    array.size
    for name, array in resnet_state(0).items()
    if "num_batches" not in name
  )
  assert spec.num_weights == kept
  x = np.random.default_rng(1).normal(size=(1, 3, 32, 32)).astype(np.float32)
  got = run(spec, zoo.vectors([0])[0], x)
  want = direct_resnet(resnet_state(0), x)
  np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def test_the_published_size_of_the_resnet():
  spec = families.resnet((3, 32, 32), (64, 128, 256, 512), blocks=2)
  running = sum(
    t.size for t in spec.tensors if t.kind in ("norm_mean", "norm_var")
  )
  assert spec.num_weights - running == 11173962


def damage(folder, name):
  params = json.loads((folder / "params.json").read_text())
  state_file = folder / "checkpoint_1" / "checkpoints"
  match name:
    case "cut":
      state_file.write_bytes(state_file.read_bytes()[:-40])
    case "model":
      params["model::type"] = "CNN_ARD"
    case "nlin":
      params["model::nlin"] = "swoosh"
    case "params":
      params = [1]
    case "extra":
      torch_files.save(state_file, state(1) | {"head.weight": np.zeros(2)})
    case "fewer":
      torch_files.save(state_file, dict(list(state(1).items())[:-1]))
    case "shape":
      torch_files.save(state_file, state(1, "CNN3", LARGE))
    case "result":
      text = (folder / "result.json").read_text().splitlines()
      text[3] = "{broken"
      (folder / "result.json").write_text("\n".join(text))
    case "iteration":
      text = (folder / "result.json").read_text().splitlines()
      text[3] = '{"training_iteration": "3"}'
      (folder / "result.json").write_text("\n".join(text))
    case "resnet":
      params["model::type"] = "Resnet18"
  (folder / "params.json").write_text(json.dumps(params))


@pytest.mark.parametrize(
  ("name", "said"),
  [
    ("cut", "checkpoints: "),
    ("model", "class 'CNN_ARD' with 'tanh' is not known"),
    ("nlin", "'swoosh' is not known"),
    ("params", "params.json: no table of parameters"),
    ("extra", "tensor 'head.weight' is not called like"),
    ("fewer", "9 tensors, where cnn of 2464"),
    ("shape", "'module_list.0.weight' is float32 of shape (16, 3, 3, 3)"),
    ("result", "result.json: line 4 is no result"),
    ("iteration", "line 4 is no result (training_iteration is '3')"),
    ("resnet", "its tensors are no residual network"),
  ],
)
def test_damage_is_named_in_one_line_and_nothing_is_left(tmp_path, name, said):
  folder = write_run(tmp_path / "zoo", 1, epochs=(1,))
  damage(folder, name)
  with pytest.raises(errors.ZooError) as caught:
    convert(tmp_path / "zoo", tmp_path / "out" / "zoo")
  assert said in str(caught.value) and "\n" not in str(caught.value)
  out = tmp_path / "out"
  assert not out.exists() or not os.listdir(out)


def test_resnets_with_tensors_too_many_or_too_few_are_named(tmp_path):
  write_resnet(tmp_path / "one", resnet_state(0) | {"aux.weight": np.zeros(2)})
  with pytest.raises(errors.ZooError, match="'aux.weight' is one too many"):
    convert(tmp_path / "one", tmp_path / "out")
  less = resnet_state(0)
  del less["layer2.0.bn2.running_var"]
  write_resnet(tmp_path / "two", less)
  with pytest.raises(errors.ZooError, match="layer2.0.bn2.running_var"):
    convert(tmp_path / "two", tmp_path / "out")


def test_a_folder_without_runs_is_named(tmp_path):
  (tmp_path / "empty").mkdir()
  with pytest.raises(errors.ZooError, match="no snapshot that can be taken"):
    convert(tmp_path / "empty", tmp_path / "out")
  folder = write_run(tmp_path / "zoo", 1, epochs=(1,))
  (folder / "result.json").unlink()
  with pytest.raises(errors.ZooError, match="the run has no result.json"):
    convert(tmp_path / "zoo", tmp_path / "out")
