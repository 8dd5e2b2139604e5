"""The encoder that WORKSPACE.md shows, registered from a file of its own."""

import dataclasses
import importlib
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

import sne_jax
from sne_jax.cli import encoder_options
from sne_jax.encoders import interface, table
from sne_jax.networks import families

ROOT = pathlib.Path(__file__).parents[2]
SPECS = (families.inr((1, 4, 4, 1)), families.mlp((2, 3, 1), "tanh"))


@pytest.fixture
def own_file(tmp_path, monkeypatch):
  """The example of the documents as a file; what it registers is taken back."""
  text = (ROOT / "WORKSPACE.md").read_text()
  (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
  path = tmp_path / "mean_encoder.py"
  assert "import sne_jax\n" not in code  # In the package it would be a circle.
  path.write_text(code)
  yield path
  table.ENCODERS.pop("mean", None)
  sys.modules.pop("mean_encoder", None)


def test_the_encoder_of_the_documents_trains_and_predicts(
  own_file, launch, write_zoo, tmp_path
):
  zoo = write_zoo(tmp_path / "zoo", specs=SPECS, count=12)
  given = (f"--encoder_file={own_file}", "--encoder=mean")
  run = tmp_path / "run"
  ended = launch(run, zoo.path, *given, "--encoder_option=mean_width=8")
  assert ended.code == 0, ended.err
  saved = (run / "flags.txt").read_text()
  for item in ("mean_width=8", "mean_power=1"):
    assert f"--encoder_option={item}\n" in saved
  model = sne_jax.Predictor.load(run / "seed0")
  networks = [(s, np.ones(s.num_weights, np.float32)) for s in SPECS]
  assert model.encode(networks).shape == (2, 8)
  line = launch(
    tmp_path / "other", zoo.path, *given, "--encoder_option=mean_widht=8"
  )
  assert "did you mean mean_width?" in line.error
  line = launch(
    tmp_path / "other", zoo.path, *given, "--encoder_option=mean_power=3"
  )
  assert "mean_power is 3; must be at least 1 and at most 2" in line.error
  assert "mean" in interface.any_architecture()
  assert "mean_power=1" in encoder_options.described("mean")


def test_a_file_is_run_once_and_must_be_there(own_file, tmp_path):
  encoder_options.load_files(f"{own_file},{own_file}")
  encoder_options.load_files(str(own_file))
  row = table.row("mean")
  with pytest.raises(ValueError, match="there is an encoder called 'mean'"):
    sne_jax.register_encoder("mean", row)
  with pytest.raises(ValueError, match="there is no file .*other.py"):
    encoder_options.load_files(str(tmp_path / "other.py"))
  with pytest.raises(ValueError, match="No module named 'no_such_module'"):
    encoder_options.load_files("no_such_module")


def test_a_row_that_cannot_be_is_refused(own_file):
  encoder_options.load_files(str(own_file))
  module = importlib.import_module("mean_encoder")
  row = table.row("mlp")
  with pytest.raises(ValueError, match="mlp_width on a command line"):
    sne_jax.register_encoder(
      "other",
      dataclasses.replace(row, options=module.MeanOptions, prefix="mlp_"),
    )
  made = dataclasses.make_dataclass("Listed", [("sizes", tuple, ())])
  with pytest.raises(ValueError, match="Listed.sizes must be an int"):
    sne_jax.register_encoder("other", dataclasses.replace(row, options=made))
  assert "other" not in table.ENCODERS


@pytest.mark.slow
def test_the_common_tests_take_it(own_file):
  done = subprocess.run(
    [sys.executable, "-m", "pytest", "-n", "0", "-q", "-k", "mean"]
    + ["tests/encoders/encoders_test.py"],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env=os.environ | {"ENCODER_FILE": str(own_file), "PYTHONPATH": str(ROOT)},
    check=False,
  )
  assert done.returncode == 0, done.stdout
  assert int(re.search(r"(\d+) passed", done.stdout).group(1)) >= 5  # pyright: ignore
