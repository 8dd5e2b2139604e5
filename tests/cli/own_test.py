"""Networks of one's own: `sne-jax train`, `run.py --networks`, and Python."""

import contextlib
import io
import json
import pathlib
import re
import shutil
from typing import NamedTuple

import numpy as np
import pytest
from absl import flags

import sne_jax
from experiments import run
from experiments.cli import options as options_lib
from sne_jax.cli import config, main
from sne_jax.cli.commands import explore, predict, train
from sne_jax.encoders.baselines import stat_nn
from sne_jax.learning.evaluation import references
from tests.cli.atlas import reading as atlas_reading
from tests.learning.data import own_networks

QUICK = (
  *("--encoder=stat_pool", "--encoder_option=stat_width=8", "--devices=1"),
  *("--batch_size=4", "--num_steps=8", "--log_every=2", "--eval_every=2"),
  "--save_every=2",
)
"""The encoder that compiles fastest."""


class Ended(NamedTuple):
  """How a program has ended, as a shell would see it."""

  code: int
  out: str
  err: str

  @property
  def error(self) -> str:
    """The one line of an error."""
    assert self.code == 2, self
    line = [l for l in self.err.splitlines() if l.startswith("error: ")]
    assert len(line) == 1 and "Traceback" not in self.err, self.err
    return line[0]


def launched(define, program, *arguments) -> Ended:
  values = flags.FlagValues()
  define(values)
  out, err, code = io.StringIO(), io.StringIO(), 0
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    try:
      rest = config.parse(["program", *arguments], values, positional=True)
      code = config.guarded(lambda argv: program(argv, values), rest, values)
    except SystemExit as ended:
      code = ended.code
  return Ended(int(code or 0), out.getvalue(), err.getvalue())


def by_command(*arguments) -> Ended:
  return launched(
    lambda values: main.define_flags(train, values), train.main, *arguments
  )


def by_script(*arguments) -> Ended:
  return launched(options_lib.define_flags, run.main, *arguments)


@pytest.fixture(scope="module", autouse=True)
def few_references():
  """Only the references that take no time."""

  def few(parts, *, classes=False, **_):
    found = {"constant": references.constant(parts, classes=classes)}
    return found | ({} if classes else {"ridge": references.ridge(parts)})

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(references, "all_references", few)
    yield


@pytest.fixture(scope="module")
def own(tmp_path_factory):
  """24 networks, and their table."""
  folder = tmp_path_factory.mktemp("own")
  own_networks.write(folder, 24)
  return folder


def named(own, workdir, *targets):
  return (
    *(f"--networks={own / 'networks'}", f"--table={own / 'labels.csv'}"),
    *(f"--targets={','.join(targets or ['size'])}", f"--workdir={workdir}"),
  )


@pytest.fixture(scope="module")
def trained(own, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("trained") / "run"
  ended = by_command(*named(own, workdir), *QUICK)
  assert ended.code == 0, ended
  return workdir, ended


def result_of(workdir):
  return json.loads((workdir / "seed0" / "result.json").read_text())


def test_a_training_leaves_a_model_and_a_report(trained, own):
  workdir, ended = trained
  names = {path.name for path in workdir.iterdir()}
  assert names == {
    *("report.md", "figures", "results.json", "flags.txt", "fit.json"),
    *("report.html", "calibration.json", "strangers.npz", "seed0"),
    *("sha256.json", "tensorboard"),
  }
  assert {path.name for path in workdir.parent.iterdir()} == {"run", "run_zoo"}
  title, sentence, *_ = (workdir / "report.md").read_text().split("\n\n")
  assert title.startswith("# ") and sentence in ended.out
  assert sentence.startswith("On 4 test networks that took no part in training")
  assert "the best simple reference, ridge regression" in sentence
  assert (workdir / "figures" / "predicted_size.png").exists()
  found = launched(
    lambda values: main.define_flags(predict, values),
    predict.main,
    *(f"--workdir={workdir}", str(own / "networks" / "net1.pt")),
  )
  assert found.code == 0 and "net1.pt" in found.out, found


def test_the_page_of_a_report_has_a_map_and_explore_finds_the_zoo(
  trained, tmp_path
):
  workdir, _ = trained
  text = (workdir / "report.html").read_text()
  header, arrays = atlas_reading.data_of(text)
  zoo = sne_jax.Zoo.open(workdir.parent / "run_zoo")
  test = sne_jax.Networks.from_zoo(zoo, "size", part="test")
  assert tuple(header["names"]) == test.names
  names = [column["name"] for column in header["columns"]]
  assert names == ["predicted size", "error of size", "novelty", "size"]
  np.testing.assert_allclose(arrays["column/3"], test.targets[:, 0], 1e-6)
  predicted = result_of(workdir)["predictions"]["test"]
  np.testing.assert_allclose(arrays["column/0"], np.ravel(predicted), rtol=1e-6)
  out = tmp_path / "atlas.html"
  ended = launched(
    lambda values: main.define_flags(explore, values),
    explore.main,
    *(str(workdir), f"--out={out}", "--layouts=pca"),
  )
  assert ended.code == 0, ended
  header, arrays = atlas_reading.data_of(out.read_text())
  rows = [header["names"].index(name) for name in test.names]
  np.testing.assert_allclose(
    arrays["column/0"][rows], np.ravel(predicted), rtol=1e-4, atol=1e-5
  )


def test_a_finished_training_is_not_done_again(trained, own, monkeypatch):
  workdir, before = trained
  monkeypatch.setattr("sne_jax.learning.training.loop.fit", None)
  ended = by_command(f"--flagfile={workdir / 'flags.txt'}")
  assert ended.code == 0 and ended.out == before.out, ended


def test_script_command_and_python_are_one(trained, own, tmp_path):
  """The same networks, split and numbers, whoever asks."""
  workdir = tmp_path / "script"
  ended = by_script(*named(own, workdir), "--seeds=1", *QUICK)
  assert ended.code == 0, ended
  zoo = sne_jax.zoo_of_files(
    own / "networks", own / "labels.csv", tmp_path / "zoo"
  )
  parts = {
    part: sne_jax.Networks.from_zoo(zoo, "size", part=part)
    for part in ("train", "val", "test")
  }
  predictor = sne_jax.fit(
    parts["train"],
    parts["val"],
    tests={"test": parts["test"]},
    encoder="stat_pool",
    options=stat_nn.StatOptions(width=8),
    data=sne_jax.DataOptions(batch_size=4),
    training=sne_jax.TrainOptions(
      num_steps=8, log_every=2, eval_every=2, save_every=2
    ),
    devices=1,
    workdir=tmp_path / "python",
  )
  digests = [
    json.loads((folder / "fit.json").read_text())["networks"]
    for folder in (trained[0], workdir, tmp_path / "python")
  ]
  assert digests[0] == digests[1] == digests[2]
  metrics = result_of(trained[0])["metrics"]
  assert result_of(workdir)["metrics"] == metrics
  assert predictor.results[0]["metrics"] == metrics
  report = (workdir / "report.md").read_text()
  first = (trained[0] / "report.md").read_text().split("\n\n")[1]
  assert report.split("\n\n")[1] == first
  assert "no column `group`" in report


@pytest.mark.slow
def test_the_script_names_the_zoo_and_repeats(own, tmp_path, monkeypatch):
  workdir, out = tmp_path / "run", tmp_path / "mine"
  given = (*named(own, workdir), f"--zoo_out={out}", "--seeds=1", *QUICK)
  given += ("--noreferences",)
  assert by_script(*given).code == 0
  saved = (workdir / "flags.txt").read_text()
  assert f"--zoo={out}\n" in saved and "--networks" not in saved
  monkeypatch.setattr("sne_jax.learning.training.loop.fit", None)
  for again in (given, (f"--flagfile={workdir / 'flags.txt'}",)):
    ended = by_script(*again)
    assert ended.code == 0, ended
  other = (f"--workdir={tmp_path / 'other'}", "--split_seed=1")
  line = by_script(*given, *other).error
  assert "split 'default'" in line and "name another with --split" in line


def test_classes_and_several_targets(own, tmp_path):
  ended = by_command(
    *(*named(own, tmp_path / "a", "kind"), *QUICK, "--loss=classes"),
  )
  assert ended.code == 0, ended
  assert "the predicted kind is right for" in ended.out
  assert "always saying the same" in ended.out
  assert (tmp_path / "a" / "figures" / "confusion_kind.png").exists()
  ended = by_command(
    *(*named(own, tmp_path / "b", "size", "number"), *QUICK),
    f"--zoo_out={tmp_path / 'a_zoo'}",
  )
  assert ended.code == 0, ended
  assert "true size have" in ended.out and "true number have" in ended.out


@pytest.mark.parametrize("program", [by_command, by_script])
@pytest.mark.parametrize(
  ("change", "given", "words"),
  [
    ("net5.pt,", (), "net5.pt"),
    ("", ("--targets=kind",), "target 'kind' is text"),
    ("", ("--targets=accuracy",), "no column 'accuracy' to predict; it has"),
    ("", ("--table=",), "networks is .*, but table is empty"),
    ("", ("--table=none.csv",), "none.csv is no CSV file that can be read"),
    ("", ("--networks=nowhere",), "nowhere: no folder; check the path"),
    ("", ("--group_column=run",), "no column 'run'"),
    ("", ("--num_steps=0",), "num_steps is 0"),
    ("", ("--encoder=snr",), "snr"),
  ],
)
def test_faults_take_one_line_and_leave_nothing(
  program, change, given, words, own, tmp_path
):

  copy = pathlib.Path(shutil.copytree(own, tmp_path / "own"))
  table = copy / "labels.csv"
  if change:
    table.write_text(table.read_text().replace(change, "gone.pt,"))
    words = "the table names 'gone.pt'"
  before = sorted(tmp_path.rglob("*"))
  ended = program(*named(copy, tmp_path / "runs" / "run"), *QUICK, *given)
  assert re.search(words, ended.error), ended
  left = {path.name for path in set(tmp_path.rglob("*")) - set(before)}
  assert not left, left


def test_a_sweep_is_of_the_same_zoo(own, tmp_path):
  pytest.importorskip("optuna")
  from experiments.sweeping import runs
  from sne_jax.cli.sweeping import plan

  values = flags.FlagValues()
  runs.define_flags(values)
  given = named(own, tmp_path / "sweep")
  config.parse(["sweep.py", *given, "--grid=learning_rate=1e-3,3e-3"], values)
  made = plan.make(runs.SUBJECT, values)
  assert made.base.run.zoo == str(tmp_path / "sweep_zoo")
  assert made.options(1, made.planned[1]).run.zoo == made.base.run.zoo
  assert len(sne_jax.Zoo.open(made.base.run.zoo)) == 24


def test_networks_and_zoo_are_not_both(own, tmp_path):
  ended = by_script(*named(own, tmp_path / "run"), "--zoo=somewhere")
  assert "zoo is somewhere, and networks is" in ended.error
  assert not list(tmp_path.iterdir())


def test_unreadable_files_are_listed(own, tmp_path, caplog):
  copy = pathlib.Path(shutil.copytree(own, tmp_path / "own"))
  (copy / "networks" / "net4.pt").write_bytes(b"PK\x03\x04")
  given = (*named(copy, tmp_path / "run"), *QUICK, "--noreferences")
  line = by_command(*given).error
  assert "net4.pt" in line and "--skip_unreadable" in line
  assert not (tmp_path / "run").exists()
  ended = by_command(*given, "--skip_unreadable")
  assert ended.code == 0, ended
  assert "left out" in caplog.text and "net4.pt" in caplog.text
  report = (tmp_path / "run" / "report.md").read_text()
  assert "**1 left out**: net4.pt" in report
  assert "no simple reference was fitted" in report


def test_a_training_of_others_is_not_written_over(trained, own, tmp_path):
  copy = pathlib.Path(shutil.copytree(trained[0], tmp_path / "run"))
  before = (copy / "report.md").read_bytes()
  ended = by_command(*named(own, copy), *QUICK, "--learning_rate=0.1")
  assert "learning_rate" in ended.error
  assert (copy / "report.md").read_bytes() == before
