"""Runs of `run.py` that take seconds: a tiny zoo, a tiny encoder."""

import contextlib
import io
import os
import pathlib
import shutil
from typing import NamedTuple

import jax
import numpy as np
import pytest
from absl import flags
from jax.experimental.compilation_cache import compilation_cache

from experiments import run
from experiments.cli import options as options_lib
from sne_jax import room
from sne_jax.cli import config
from sne_jax.networks import families
from sne_jax.zoo.store import store, writing

SPEC = families.inr((1, 4, 4, 1))
TINY = (
  *("--train_members=14", "--validation_members=5", "--test_members=5"),
  *("--seeds=1", "--noreferences", "--devices=1", "--width=8", "--heads=2"),
  *("--chunk_function=linear", "--identifiers=none", "--index_features=none"),
  *("--layer_function=deepsets", "--layer_blocks=0"),
  *("--network_function=deepsets", "--network_blocks=0"),
  *("--chunk_size=6", "--linear_rule=neuron", "--conv_rule=neuron"),
  *("--head_width=4", "--head_dropout=0.2", "--ema_decay=0.9"),
  *("--augment_signs", "--augment_permutation", "--batch_size=4"),
  *("--num_steps=12", "--log_every=1", "--eval_every=3", "--save_every=4"),
)
"""Flags of a run that compiles and trains fast, and draws at every step."""


class Ended(NamedTuple):
  """How a run has ended, as a shell would see it."""

  code: int
  out: str
  err: str

  @property
  def error(self) -> str:
    """The one line of an error."""
    lines = [l for l in self.err.splitlines() if l.startswith("error: ")]
    assert self.code in (2, room.EXIT_CODE), self
    assert len(lines) == 1, self.err
    assert self.err.endswith(lines[0] + "\n")
    assert "Traceback" not in self.err
    return lines[0]


def _parsed(*arguments: str) -> flags.FlagValues:
  """Returns the flags of a command line."""
  values = flags.FlagValues()
  options_lib.define_flags(values)
  config.parse(["run.py", *arguments], values)
  return values


def _resolve(*arguments: str) -> options_lib.Options:
  """Returns the options of a command line."""
  return options_lib.from_flags(_parsed(*arguments))


def _write_zoo(
  path, *, specs=(SPEC,), count=24, seed=0, **changes
) -> store.Zoo:
  """Writes random networks whose property can be read off their weights."""
  rng = np.random.default_rng(seed)
  weights = [
    rng.normal(size=(count, spec.num_weights)) * rng.uniform(0.1, 1, (count, 1))
    for spec in specs
  ]
  weights = [w.astype(np.float32) for w in weights]
  total = np.concatenate([np.abs(w).mean(axis=1) for w in weights])
  given = {
    "specs": specs,
    "weights": weights,
    "ids": [f"n{i:03d}" for i in range(count * len(specs))],
    "spec_numbers": np.repeat(np.arange(len(specs)), count),
    "rows": np.tile(np.arange(count), len(specs)),
    "properties": {
      "frequency": writing.Property(10 * total, "grows with the weights"),
      "dataset": writing.Property(["x"] * len(total), "a text"),
    },
    "provenance": {"generator": "a test"},
  }
  return writing.write_zoo(path, **(given | changes))


@pytest.fixture(scope="session")
def tiny_flags() -> tuple[str, ...]:
  """Flags of a tiny run."""
  return TINY


@pytest.fixture(scope="session")
def resolve():
  """Returns `resolve(*flags) -> Options`."""
  return _resolve


@pytest.fixture(scope="session")
def write_zoo():
  """Returns `write_zoo(path, **changes) -> Zoo`."""
  return _write_zoo


@pytest.fixture(scope="session")
def tiny_zoo(tmp_path_factory) -> pathlib.Path:
  """A zoo that tests may read; runs add their split to it."""
  path = tmp_path_factory.mktemp("zoo") / "zoo"
  _write_zoo(path)
  return path


@pytest.fixture
def own_zoo(tiny_zoo, tmp_path) -> pathlib.Path:
  """A copy of the tiny zoo that a test may damage."""
  return pathlib.Path(shutil.copytree(tiny_zoo, tmp_path / "zoo"))


@pytest.fixture(scope="session")
def launch(tmp_path_factory):
  """Returns `launch(workdir, zoo, *flags) -> Ended`, in this process."""
  before = (
    jax.config.jax_compilation_cache_dir,
    jax.config.jax_persistent_cache_min_compile_time_secs,
  )
  cache = tmp_path_factory.mktemp("cache")

  def start(workdir: os.PathLike, zoo: os.PathLike, *arguments: str) -> Ended:
    out, err, code = io.StringIO(), io.StringIO(), 0
    given = [f"--workdir={workdir}", f"--zoo={zoo}"]
    given += [f"--compilation_cache={cache}", *TINY, *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
      try:
        values = _parsed(*given)
        config.guarded(lambda argv: run.main(argv, values), ["run.py"], values)
      except SystemExit as ended:
        code = ended.code
    return Ended(code, out.getvalue(), err.getvalue())

  yield start
  jax.config.update("jax_compilation_cache_dir", before[0])
  jax.config.update("jax_persistent_cache_min_compile_time_secs", before[1])
  compilation_cache.reset_cache()
