"""From checkpoint files to a table, codes and a picture, by the programs."""

import contextlib
import csv
import io
import json
import os
import types

import jax
import numpy as np
import pytest
import safetensors.numpy
from absl import flags
from matplotlib import patches

from sne_jax import checkpoints
from sne_jax import predictor as predictor_lib
from sne_jax.cli import config, given_files, memory
from sne_jax.cli.commands import encode, predict
from sne_jax.cli.commands import inspect as inspect_network
from sne_jax.cli.reports import drawing, network_figure, network_rows
from sne_jax.encoders.sne import pace
from sne_jax.learning.evaluation import calibration
from sne_jax.networks import families
from sne_jax.networks import spec as spec_lib
from tests.checkpoints import samples

SPEC = families.inr((1, 4, 4, 1))
NAMES = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
NAMES += ("fc3.weight", "fc3.bias")


@pytest.fixture(scope="module")
def workdir(launch, tiny_zoo, tmp_path_factory):
  """A finished run of two seeds."""
  path = tmp_path_factory.mktemp("run") / "run"
  sizes = ("--train_members=9", "--validation_members=7", "--split=of_predict")
  ended = launch(path, tiny_zoo, "--seeds=2", *sizes)
  assert ended.code == 0, ended
  return path


def written(folder, count=3, seed=0, spec=SPEC):
  """Writes networks, like those of the zoo, under names of their own."""
  rng = np.random.default_rng(seed)
  vectors = {}
  folder.mkdir(exist_ok=True)
  for number in range(count):
    vector = 0.5 * rng.normal(size=spec.num_weights).astype(np.float32)
    arrays = spec.unflatten(vector).values()
    path = folder / f"net{number}.safetensors"
    safetensors.numpy.save_file(dict(zip(NAMES, arrays, strict=True)), path)
    vectors[str(path)] = vector
  return vectors


@pytest.fixture
def start():
  """Returns `start(module, *arguments)`: exit code, stdout, stderr."""

  def run(module, *arguments):
    values = flags.FlagValues()
    config.define_flags(*module.CLASSES, flag_values=values)
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
      try:
        rest = config.parse(
          ["program", *map(str, arguments)], values, positional=True
        )
        code = config.guarded(
          lambda argv: module.main(argv, values), rest, values
        )
      except SystemExit as ended:
        code = ended.code
    return code or 0, out.getvalue(), err.getvalue()

  return run


def test_files_are_predicted_as_their_weights_are(workdir, start, tmp_path):
  vectors = written(tmp_path / "files")
  out = tmp_path / "out.json"
  code, text, err = start(
    predict,
    *(f"--workdir={workdir}", f"--json={out}", "--coverage=0.8"),
    tmp_path / "files",
  )
  assert code == 0, err
  rows = {r["file"]: r for r in json.loads(out.read_text())["networks"]}
  model = predictor_lib.Predictor.load(workdir)
  wanted = model.predict([(SPEC, v) for v in vectors.values()])[:, 0]
  for (path, _), value in zip(vectors.items(), wanted, strict=True):
    row = rows[path]
    assert row["frequency"] == pytest.approx(value, rel=1e-5)
    assert row["frequency low"] < row["frequency"] < row["frequency high"]
    assert row["parameters"] == SPEC.num_weights
    assert row["architecture"] == "3 dense" and path in text
    # The tiny zoo's networks have these tensors: nothing is said of that.
    assert not any("architecture" in warning for warning in row["warnings"])
  listed = [line.split("|")[1].strip() for line in text.splitlines()[2:5]]
  order = sorted(rows, key=lambda p: rows[p]["frequency"], reverse=True)
  assert listed == order


def test_a_bad_file_does_not_stop_the_rest(workdir, start, tmp_path):
  vectors = written(tmp_path / "files")
  (tmp_path / "files" / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
  diverged = SPEC.unflatten(np.full(SPEC.num_weights, np.nan, np.float32))
  safetensors.numpy.save_file(
    dict(zip(NAMES, diverged.values(), strict=True)),
    tmp_path / "files" / "nan.safetensors",
  )
  table = tmp_path / "out.csv"
  code, text, err = start(
    predict, f"--workdir={workdir}", f"--csv={table}", tmp_path / "files"
  )
  assert code == 1
  lines = err.strip().splitlines()
  assert "2 could not be read" in lines[-3]
  assert "cut.safetensors" in lines[-2] and "nan.safetensors" in lines[-1]
  assert "NaN" in lines[-1] and "Traceback" not in err
  assert all(path in text for path in vectors)
  # What is said of several files is said once.
  assert text.count("a residual connection") <= 1
  with table.open() as file:
    assert {row["file"] for row in csv.DictReader(file)} == set(vectors)


@pytest.mark.parametrize(
  "kind", [IndexError, RecursionError, AssertionError, MemoryError]
)
def test_faults_of_any_type_are_one_line(
  kind, workdir, start, tmp_path, monkeypatch
):
  vectors = written(tmp_path / "files")
  load = checkpoints.load

  def broken(path, **options):
    if str(path).endswith("net1.safetensors"):
      raise kind("unforeseen,\nin two lines")
    return load(path, **options)

  monkeypatch.setattr(checkpoints, "load", broken)
  sound = [path for path in vectors if "net1" not in path]
  for module, *options in (
    (predict, f"--workdir={workdir}"),
    (encode, f"--workdir={workdir}", f"--out={tmp_path / 'codes.npz'}"),
    (inspect_network,),
  ):
    code, text, err = start(module, *options, tmp_path / "files")
    assert code == 1 and "Traceback" not in err
    said = err.strip().splitlines()
    assert said[-2] == "1 could not be read:"
    assert "net1.safetensors: " in said[-1] and "in two lines" in said[-1]
    if module is not encode:
      assert all(path in text for path in sound)
    # Alone it is no traceback either.
    path = tmp_path / "files" / "net1.safetensors"
    code, _, err = start(module, *options, path)
    assert code == 1 and "in two lines" in err
  with np.load(tmp_path / "codes.npz") as archive:
    assert list(archive["files"]) == sound


def test_memory_that_the_encoder_lacks_has_a_remedy():
  error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory.")
  line = given_files.line(error)
  assert "not enough memory" in line and line.endswith("--stream_above")
  assert "--stream_above" not in given_files.line(RuntimeError("else"))


def test_what_was_taken_and_left_out_is_printed(workdir, start, tmp_path):
  rng = np.random.default_rng(0)
  arrays = SPEC.unflatten(rng.normal(size=SPEC.num_weights).astype(np.float32))
  network = dict(zip(NAMES, arrays.values(), strict=True))
  network["fc1.steps"] = np.array([3])
  tree = {"model": network, "model_ema": network, "optimizer": network}
  tree = {name: samples.state_dict(part) for name, part in tree.items()}
  path = tmp_path / "a.pt"
  path.write_bytes(samples.torch_bytes(tree | {"epoch": 3}))
  for module, *options in (
    (predict, f"--workdir={workdir}"),
    (encode, f"--workdir={workdir}", f"--out={tmp_path / 'codes.npz'}"),
    (inspect_network,),
  ):
    code, text, err = start(module, *options, path)
    assert code == 0, err
    assert "read was model (7 tensors)" in text
    average = "model_ema (7 tensors: an average, read as part 'model_ema')"
    assert average in text
    assert "optimizer (7 tensors: the trainer's)" in text
    assert "fc1.steps: numbers of type int64, which are no weights" in text
  # A control: of a file that holds one network, nothing is said.
  del network["fc1.steps"]
  path.write_bytes(samples.torch_bytes(samples.state_dict(network)))
  for module, *options in ((predict, f"--workdir={workdir}"),):
    text = start(module, *options, path)[1]
    assert "read was" not in text and "left out" not in text


def test_what_a_safetensors_file_says_is_shown(start, tmp_path):
  arrays = SPEC.unflatten(np.ones(SPEC.num_weights, np.float32))
  words = {"format": "pt", "base_model": "x" * 300, "left_out": "nothing"}
  words |= {f"key{n}": str(n) for n in range(20)}
  path = tmp_path / "a.safetensors"
  safetensors.numpy.save_file(
    dict(zip(NAMES, arrays.values(), strict=True)), path, words
  )
  code, text, err = start(inspect_network, path)
  assert code == 0, err
  assert "Said by the file:" in text and "format: pt\n" in text
  assert "x" * 200 + "...\n" in text and "x" * 201 not in text
  # What it says is not taken for what the reader says.
  assert "its left_out: nothing" in text and "not read were" not in text
  assert "and 11 more" in text


def test_pictures_are_of_one_network(start, tmp_path):
  written(tmp_path / "files", count=2)
  code, _, err = start(
    inspect_network, f"--picture={tmp_path / 'a.png'}", tmp_path / "files"
  )
  assert code == 2 and "picture and json are of one checkpoint; got 2" in err


def test_an_unknown_architecture_is_said(workdir, start, tmp_path):
  other = families.inr((1, 6, 1))
  arrays = other.unflatten(np.ones(other.num_weights, np.float32))
  path = tmp_path / "other.safetensors"
  safetensors.numpy.save_file(
    dict(zip(NAMES[:4], arrays.values(), strict=True)), path
  )
  code, text, _ = start(predict, f"--workdir={workdir}", path)
  assert code == 0
  assert "of an architecture that no network of the training had" in text
  assert "no bias" not in text


def test_a_bias_that_is_missing_is_said(workdir, start, tmp_path):
  (path,) = written(tmp_path, count=1)
  arrays = safetensors.numpy.load_file(path)
  assert "no bias" not in start(inspect_network, path)[1]
  lost = [name for name in arrays if name.endswith("bias")][1]
  del arrays[lost]
  safetensors.numpy.save_file(arrays, path)
  weight = lost.replace("bias", "weight")
  said = f"no bias was found of {weight}; others have one"
  for module, given in (
    (predict, (f"--workdir={workdir}",)),
    (inspect_network, ()),
  ):
    code, text, _ = start(module, *given, path)
    assert code == 0 and said in text, text


def test_a_model_that_is_not_there_leaves_no_folder(start, tmp_path):
  (path,) = written(tmp_path / "files", count=1)
  for module, out in ((predict, "--csv"), (encode, "--out")):
    given = (f"--workdir={tmp_path}/typo", f"{out}={tmp_path}/new/a.csv")
    assert start(module, *given, path)[0] == 2
  assert [p.name for p in tmp_path.iterdir()] == ["files"]


def test_streamed_networks_are_judged_as_loaded_ones(
  workdir, start, tmp_path, monkeypatch
):
  """Predictions, intervals, distances and codes, with nothing loaded whole."""
  vectors = written(tmp_path / "files")
  whole, parts = tmp_path / "new" / "whole.json", tmp_path / "parts.json"
  given = (f"--workdir={workdir}", "--coverage=0.8", tmp_path / "files")
  assert start(predict, f"--json={whole}", *given)[0] == 0
  wanted = json.loads(whole.read_text())["networks"]
  codes = predictor_lib.Predictor.load(workdir).encode(
    [(SPEC, v) for v in vectors.values()]
  )
  broken = SPEC.unflatten(np.full(SPEC.num_weights, 1e300))
  wide = tmp_path / "files" / "wide.safetensors"
  safetensors.numpy.save_file(
    dict(zip(NAMES, broken.values(), strict=True)), wide
  )
  monkeypatch.delattr(checkpoints.FileNetwork, "weights")
  large = ("--stream_above=0", "--memory_limit=8MiB")
  code, _, err = start(predict, f"--json={parts}", *large, *given)
  assert code == 1 and "wide.safetensors: weights are too large" in err
  found = json.loads(parts.read_text())["networks"]
  assert len(found) == len(wanted) == 3
  for one, other in zip(found, wanted, strict=True):
    assert one["unlike"] > 0 and one["frequency low"] < one["frequency high"]
    for name, value in other.items():
      if isinstance(value, float):
        value = pytest.approx(value, rel=1e-4)
      assert one[name] == value, name
  out = tmp_path / "codes.npz"
  code, _, _ = start(encode, f"--out={out}", *large, given[0], given[2])
  with np.load(out) as archive:
    assert code == 1 and len(archive["files"]) == 3
    np.testing.assert_allclose(archive["codes"], codes, rtol=1e-4, atol=1e-6)


def test_a_long_encoding_is_asked_about(workdir, tmp_path, start, monkeypatch):
  """Of a threshold of nothing; where there is no terminal, it goes on."""
  monkeypatch.setattr(pace, "FEW_PARTS", 0)
  written(tmp_path / "files", 1)
  given = (f"--workdir={workdir}", "--stream_above=0", tmp_path / "files")
  words = f"a network of {SPEC.num_weights} weights takes about"
  assert words not in start(predict, *given)[2]  # It takes no minute.
  code, out, err = start(predict, "--ask_above=0", *given)
  assert code == 0 and words in err and "it goes on" in err
  assert "net0.safetensors" in out

  class Terminal(io.StringIO):
    def isatty(self):
      return True

  for answer, wanted in (("n\n", 1), ("y\n", 0), ("\n", 0)):
    monkeypatch.setattr(memory.sys, "stdin", Terminal(answer))
    terminal = Terminal()
    with monkeypatch.context() as patch:
      patch.setattr(memory.sys, "stderr", terminal)
      if wanted:
        with pytest.raises(ValueError, match=r"left out: .*--ask_above=\d+ "):
          memory.ask(SPEC, 75.0)
      else:
        memory.ask(SPEC, 75.0)
    assert "about 1 min 15 s to encode" in terminal.getvalue()
    assert terminal.getvalue().endswith("Go on? [Y/n] ")


def test_running_statistics_are_no_parameters():
  norms = ("norm_scale", "norm_shift", "norm_mean", "norm_var")
  axes = tuple(spec_lib.plain_axis(size) for size in (3, 2))
  tensors = [spec_lib.TensorSpec("w", "linear_weight", (3, 2), 0, axes)]
  tensors += [spec_lib.TensorSpec(k, k, (3,), 0, axes[:1]) for k in norms]
  spec = spec_lib.NetworkSpec("some", tuple(tensors))
  assert (spec.num_weights, spec.num_parameters) == (18, 12)
  assert SPEC.num_weights == SPEC.num_parameters


def test_amounts_of_memory_are_read():
  read = {"2GiB": 2**31, "1.5 gb": 1.5e9, "512mib": 2**29, "70000": 7e4}
  for text, wanted in read.items():
    assert memory.num_bytes("limit", text) == wanted
  for text in (
    "two",
    "-1GiB",
    "0",
    "nan",
    "1e9",
    "2 parsecs",
    "9" * 40,
    "0.1B",
  ):
    with pytest.raises(
      ValueError, match="limit is .*; (give a number|must be)"
    ):
      memory.num_bytes("limit", text)


def test_names_of_files_are_kept(workdir, start, tmp_path):
  """Commas, line breaks, bars, and bytes that are no text."""
  (path,) = written(tmp_path / "files", count=1)
  names = {"a, b", 'c"\n|d', os.fsdecode(b"\xff\xfe")}
  for name in names:
    os.link(path, tmp_path / "files" / f"{name}.safetensors")
  os.symlink(".", tmp_path / "files" / "loop")
  wanted = {os.path.join(tmp_path, "files", f"{n}.safetensors") for n in names}
  wanted.add(path)
  table, out = tmp_path / "made" / "t.csv", tmp_path / "made" / "j.json"
  given = (f"--workdir={workdir}", tmp_path / "files")
  code, _, err = start(predict, f"--csv={table}", f"--json={out}", *given)
  assert code == 0, err
  read = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
  with table.open(**read) as file:
    assert {row["file"] for row in csv.DictReader(file)} == wanted
  rows = json.loads(out.read_text())["networks"]
  assert {row["file"] for row in rows} == wanted
  for suffix in ("csv", "npz"):
    out = tmp_path / f"codes.{suffix}"
    assert start(encode, f"--out={out}", *given)[0] == 0
  with np.load(out) as archive:
    assert set(archive["files"]) == wanted
  with (tmp_path / "codes.csv").open(**read) as file:
    assert {row["file"] for row in csv.DictReader(file)} == wanted


def test_outputs_are_looked_at_before_the_work(workdir, start, tmp_path):
  (path,) = written(tmp_path / "files", count=1)
  before = (tmp_path / "files" / "net0.safetensors").read_bytes()
  os.symlink(path, tmp_path / "link.csv")
  model = f"--workdir={workdir}"
  for module, given, words in (
    (inspect_network, (f"--json={path}",), "one of the files to read"),
    (inspect_network, (f"--picture={path}",), "one of the files to read"),
    (predict, (model, f"--json={path}"), "one of the files to read"),
    (predict, (model, f"--csv={tmp_path}/link.csv"), "one of the files"),
    (encode, (model, f"--out={tmp_path}/link.csv"), "one of the files"),
    (predict, (model, f"--csv={tmp_path}"), "is a folder"),
    (predict, (model, f"--csv={path}/x.csv"), "cannot be written"),
  ):
    code, out, err = start(module, *given, path)
    assert code == 2 and words in err and not out, (given, err)
  assert (tmp_path / "files" / "net0.safetensors").read_bytes() == before
  spec = tmp_path / "made" / "spec.json"
  assert start(inspect_network, f"--json={spec}", path)[0] == 0
  assert spec.exists()


def test_a_table_without_rows_has_its_header(workdir, start, tmp_path):
  (tmp_path / "empty.pt").write_bytes(b"")
  table = tmp_path / "t.csv"
  code, _, _ = start(
    predict, f"--workdir={workdir}", f"--csv={table}", tmp_path / "empty.pt"
  )
  assert code == 1
  assert table.read_text().startswith("file,architecture,parameters,frequency")


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    ((), "workdir is empty"),
    (("--workdir=nowhere", "x.pt"), "nowhere"),
    (("--workdir={run}",), "name at least one checkpoint"),
    (("--workdir={run}", "--coverage=2", "x.pt"), "coverage is 2.0"),
    (("--workdir={run}", "{empty}"), "holds no checkpoint"),
    (("--workdir={run}", "--memory_limit=2parsecs", "x.pt"), "give a number"),
    (("--workdir={run}", "--memory_limit=9", "x.pt"), "set it to at least"),
    (("--workdir={run}", "--stream_above=-1", "x.pt"), "stream_above is -1"),
    (("--workdir={run}", "--override=none.json", "x.pt"), "none.json"),
  ],
)
def test_what_is_refused(workdir, start, tmp_path, arguments, words):
  (tmp_path / "empty").mkdir()
  given = [a.format(run=workdir, empty=tmp_path / "empty") for a in arguments]
  code, _, err = start(predict, *given)
  lines = err.strip().splitlines()
  assert code == 2 and lines[-1].startswith("error: ") and words in lines[-1]


def test_too_few_networks_for_a_coverage_are_said(workdir, start, tmp_path):
  (path,) = written(tmp_path / "files", count=1)
  flags_ = (f"--workdir={workdir}", "--coverage=0.99")
  code, text, _ = start(predict, *flags_, path)
  assert code == 0 and "7 validation networks" in text
  assert "[" not in text.splitlines()[2]


def test_an_override_settles_what_a_network_is(start, tmp_path):
  written(tmp_path / "files", count=1)
  override = tmp_path / "override.json"
  override.write_text('{"opaque": true}')
  code, text, err = start(
    inspect_network,
    f"--override={override}",
    tmp_path / "files" / "net0.safetensors",
  )
  assert code == 0, err
  assert "no permutation" in text and "0 groups" in text
  # Flags add to the file: (4, 9) and (9, 4) may be read either way.
  kernels = {"w1": np.ones((4, 9)), "w2": np.ones((9, 4))}
  np.savez(tmp_path / "net.npz", **kernels)
  code, text, err = start(inspect_network, tmp_path / "net.npz")
  assert code == 0 and '{"layout": "in_out"}' in text and "0 groups" in text
  override.write_text('{"activation": "relu"}')
  code, text, err = start(
    inspect_network,
    *("--layout=in_out", f"--override={override}"),
    tmp_path / "net.npz",
  )
  assert code == 0 and "1 groups" in text and "9x4" in text, err


def test_codes_are_written(workdir, start, tmp_path):
  vectors = written(tmp_path / "files")
  model = predictor_lib.Predictor.load(workdir)
  wanted = model.encode([(SPEC, v) for v in vectors.values()])
  for suffix in (".npz", ".csv"):
    out = tmp_path / "made" / f"codes{suffix}"
    code, text, err = start(
      encode, f"--workdir={workdir}", f"--out={out}", tmp_path / "files"
    )
    assert code == 0, err
    # Names leave skips open, and the training has settled it: of all, once.
    (line,) = [l for l in text.splitlines() if "in the training" in l]
    assert line.startswith("note: ") and " and 2 more: without skips" in line
    if suffix == ".npz":
      with np.load(out) as archive:
        assert list(archive["files"]) == list(vectors)
        np.testing.assert_allclose(archive["codes"], wanted, rtol=1e-5)
    else:
      rows = list(csv.reader(out.open()))
      assert len(rows) == 1 + len(vectors)
      found = np.array([row[1:] for row in rows[1:]], float)
      np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    assert os.listdir(out.parent) == [out.name] or suffix == ".csv"
  code, _, err = start(encode, f"--workdir={workdir}", "--out=codes.txt", "x")
  assert code == 2 and "must end with .npz or .csv" in err


def test_an_adapter_is_shown_and_not_encoded(workdir, start, tmp_path):
  (path,) = written(tmp_path / "files", count=1)
  ranks = {"A": (4, 8), "B": (8, 4)}
  arrays = {
    f"base_model.model.fc.lora_{end}.weight": np.ones(shape, np.float32)
    for end, shape in ranks.items()
  }
  adapter = tmp_path / "files" / "adapter_model.safetensors"
  safetensors.numpy.save_file(arrays, adapter)
  code, text, err = start(inspect_network, adapter)
  assert code == 0, err
  assert "a LoRA adapter of rank 4 for 1 layer(s) (fc)" in text
  assert "target modules: fc" in text and "lora_A.weight | float32" in text
  out = tmp_path / "codes.npz"
  for module, given in ((encode, (f"--out={out}",)), (predict, ())):
    given = (f"--workdir={workdir}", *given, tmp_path / "files")
    code, _, err = start(module, *given)
    assert code == 1
    (line,) = [x for x in err.splitlines() if "adapter" in x]
    assert "merge it into its base model" in line
  with np.load(out) as archive:
    assert list(archive["files"]) == [path]


def test_a_network_is_shown(start, tmp_path):
  written(tmp_path / "files", count=1)
  picture, spec = tmp_path / "net.png", tmp_path / "net.json"
  code, text, err = start(
    inspect_network,
    f"--picture={picture}",
    f"--json={spec}",
    tmp_path / "files" / "net0.safetensors",
  )
  assert code == 0, err
  assert "4x4" in text and "linear_weight" in text and "All numbers" in text
  assert picture.stat().st_size > 1000
  found = spec_lib.NetworkSpec.from_json(json.loads(spec.read_text()))
  assert found.num_weights == SPEC.num_weights
  code, _, err = start(inspect_network)
  assert code == 2 and "name at least one checkpoint" in err


def test_pictures_of_skips_and_transformers(tmp_path):
  for spec in (
    families.architecture("residual", (1, 16, 16)),
    families.architecture("vit", (1, 16, 16)),
  ):
    path = network_figure.draw(tmp_path / f"{spec.digest}.png", spec)
    assert path.stat().st_size > 1000


def test_a_picture_shows_layers_skips_norms_and_weights(tmp_path, monkeypatch):
  spec = families.resnet((3, 8, 8), (4,), blocks=2)  # 27 tensors, 6 levels.
  monkeypatch.setattr(network_figure, "MOST", 10)
  seen, draw = [], drawing.drawing

  @contextlib.contextmanager
  def kept(*arguments):
    with draw(*arguments) as axes:
      yield axes
      seen.append(axes)

  monkeypatch.setattr(drawing, "drawing", kept)
  weights = np.random.default_rng(0).normal(size=spec.num_weights)
  network_figure.draw(tmp_path / "a", spec)
  network_figure.draw(tmp_path / "b", spec, weights, title="b.pt")
  for axes, bars in zip(seen, (0, 6 * network_rows.BINS), strict=True):
    kinds = [type(patch).__name__ for patch in axes.patches]
    assert kinds.count("FancyBboxPatch") == 6
    assert kinds.count("FancyArrowPatch") == len(spec.skips) == 2
    assert kinds.count("Rectangle") == bars
    said = [text.get_text() for text in axes.texts]
    assert "conv 4 x 4 x 3 x 3, norm, relu" in said
    assert any("block1.conv1.weight" in text for text in said)
  bars = [p for p in seen[1].patches if isinstance(p, patches.Rectangle)]
  highest = max(-bar.get_height() for bar in bars)
  assert highest == pytest.approx(0.45)
  assert seen[1].get_title(loc="left") == f"b.pt: {spec.num_weights} weights"


def test_coverage_is_measured_on_the_test_part(workdir):
  results = json.loads((workdir / "results.json").read_text())
  own = json.loads((workdir / calibration.FILE).read_text())
  predictions = [
    json.loads((workdir / f"seed{n}" / "result.json").read_text())[
      "predictions"
    ]
    for n in (0, 1)
  ]
  errors = own["targets"]["frequency"]["errors"]
  assert len(errors) == len(predictions[0]["val"]) == 7
  shares = results["coverage"]["frequency"]["test"]
  assert set(shares) == {"0.5", "0.8", "0.9", "0.95"}
  assert shares["0.5"] <= shares["0.8"] <= shares["0.95"] == 1.0
  assert "Coverage of intervals" in (workdir / "report.md").read_text()


def test_a_damaged_calibration_is_named(tmp_path):
  (tmp_path / calibration.FILE).write_text("{}")
  with pytest.raises(ValueError, match="calibration.json is damaged"):
    calibration.read(tmp_path)


@pytest.mark.parametrize("value", [None, 0.1])
def test_a_head_for_collapsed_networks_is_disclosed(value):
  head = {} if value is None else {"collapsed": {"values": [value]}}
  model = types.SimpleNamespace(
    classes=(),
    targets=("accuracy",),
    known=calibration.Calibration(),
    description=head,
  )
  notes = predict.Table(model, 0.9).notes
  said = [note for note in notes if "accuracy is exactly 0.1" in note]
  assert len(said) == len(notes) == len(head)
