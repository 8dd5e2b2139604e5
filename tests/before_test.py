"""Runs and zoos that were written before are read, and say what they said.

`fixtures/before` holds a zoo of 30 sine INRs, a run of SNE of two seeds and a
run of StatNN of one, as revision e581458 wrote them (without figures, report
and the checkpoint to resume from), and in `expected.json` what that revision
read and predicted. These files are never written anew: a reader that cannot
read them cannot read those of others.

An option that is gone since is still named in these files. Readers drop it
where it has the only value that is left of it, and refuse it otherwise.
"""

import contextlib
import io
import json
import pathlib
import shutil

import numpy as np
import pytest
import safetensors.numpy
from absl import flags

from sne_jax import Predictor, Zoo
from sne_jax.cli import config
from sne_jax.cli.commands import predict

BEFORE = pathlib.Path(__file__).parent / "fixtures" / "before"
EXPECTED = json.loads((BEFORE / "expected.json").read_text())
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def zoo():
  return Zoo.open(BEFORE / "zoo")


@pytest.fixture(scope="module")
def networks(zoo):
  """The networks of `EXPECTED["members"]`."""
  ids = zoo.members["id"].tolist()
  members = [ids.index(name) for name in EXPECTED["members"]]
  specs = [zoo.specs[n] for n in zoo.members["spec"][members]]
  return list(zip(specs, zoo.vectors(members), strict=True))


def test_the_zoo_has_its_splits_and_properties(zoo):
  assert len(zoo) == 30
  assert zoo.splits == ("default",)
  split = {part: n.tolist() for part, n in zoo.split("default").items()}
  assert split == EXPECTED["split"]
  assert list(zoo.properties) == EXPECTED["properties"]
  test = zoo.split("default")["test"][: len(EXPECTED["members"])]
  assert zoo.members["id"][test].tolist() == EXPECTED["members"]
  np.testing.assert_allclose(
    zoo.property("frequency")[test], EXPECTED["frequency"], atol=1e-6
  )
  (spec,) = zoo.specs
  assert spec.describe() == EXPECTED["spec"]
  assert zoo.provenance["options"]["hidden"] == 4


@pytest.mark.parametrize("run", list(EXPECTED["predictions"]))
def test_a_run_predicts_as_it_did(networks, run):
  model = Predictor.load(BEFORE / run)
  assert model.targets == ("frequency",)
  predictions, codes = model.predict_and_encode(networks)
  np.testing.assert_allclose(predictions, EXPECTED["predictions"][run], **CLOSE)
  np.testing.assert_allclose(codes, EXPECTED["codes"][run], **CLOSE)


def predicted(workdir, networks, folder):
  """Returns the rows that `predict.py` writes, by name of the file."""
  files = folder / "files"
  files.mkdir()
  for number, (spec, weights) in enumerate(networks):
    tensors = zip(
      ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
      + ("fc3.weight", "fc3.bias"),
      spec.unflatten(np.array(weights)).values(),
      strict=True,
    )
    safetensors.numpy.save_file(
      {name: np.ascontiguousarray(x) for name, x in tensors},
      files / f"net{number}.safetensors",
    )
  values = flags.FlagValues()
  config.define_flags(*predict.CLASSES, flag_values=values)
  arguments = ["predict.py", f"--workdir={workdir}", "--coverage=0.8"]
  arguments += [f"--json={folder / 'out.json'}", str(files)]
  with contextlib.redirect_stdout(io.StringIO()):
    rest = config.parse(arguments, values, positional=True)
    assert not predict.main(rest, values)
  rows = json.loads((folder / "out.json").read_text())["networks"]
  return {pathlib.Path(row["file"]).stem: row for row in rows}


def test_files_are_predicted_with_the_intervals_of_before(networks, tmp_path):
  workdir = shutil.copytree(BEFORE / "sne", tmp_path / "sne")
  rows = predicted(workdir, networks, tmp_path)
  assert len(rows) == len(EXPECTED["rows"])
  for name, expected in EXPECTED["rows"].items():
    for column, value in expected.items():
      # Sums of squares of codes, in `unlike`, have their error twice.
      assert rows[name][column] == pytest.approx(value, rel=1e-4), column
