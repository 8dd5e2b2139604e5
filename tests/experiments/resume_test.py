"""A run that is killed, and started again, ends as if nothing had happened."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint.experimental import v1 as ocp

ROOT = pathlib.Path(__file__).parents[2]
SEEDS = 2
STEPS = 24
# All that draws while training, so that a run that draws anew is found out.
FLAGS = (
  *(f"--seeds={SEEDS}", f"--num_steps={STEPS}", "--verbosity=-1"),
  *("--zoo_num_networks=24", "--zoo_hidden=4", "--zoo_points=50"),
  *("--zoo_max_steps=20", "--zoo_batch_members=8"),
)
CLOCKS = ("train_seconds", "networks_per_second", "seconds_per_network")


@pytest.fixture(scope="module")
def start(tmp_path_factory, tiny_flags):
  """Returns `start(workdir, zoo) -> Popen` of run.py."""
  cache = tmp_path_factory.mktemp("cache")

  def begin(workdir, zoo):
    command = [sys.executable, str(ROOT / "experiments" / "run.py")]
    command += [
      *tiny_flags,
      *FLAGS,
      f"--workdir={workdir}",
      f"--zoo=sine:{zoo}",
    ]
    return subprocess.Popen(
      [*command, f"--compilation_cache={cache}"],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    )

  return begin


@pytest.fixture(scope="module")
def unbroken(start, tmp_path_factory):
  """A run that was left alone, its zoo, and the seconds that it took."""
  folder = tmp_path_factory.mktemp("unbroken")
  since = time.monotonic()
  finish(start(folder / "run", folder / "zoo"))
  return folder / "run", folder / "zoo", time.monotonic() - since


def finish(process):
  out, err = process.communicate()
  assert process.returncode == 0, err.decode()
  return out.decode()


def count_records(workdir):
  """Returns how many lines of metrics there are, over all seeds."""
  files = pathlib.Path(workdir).glob("seed*/metrics.jsonl")
  return sum(path.read_bytes().count(b"\n") for path in files)


def kill(process):
  """Kills as a machine does; returns whether the process was still there."""
  process.send_signal(signal.SIGKILL)
  process.communicate()
  return process.returncode == -signal.SIGKILL


def plain(leaf):
  """Returns a leaf of a checkpoint as an array, keys too."""
  if isinstance(leaf, jax.Array) and jnp.issubdtype(
    leaf.dtype, jax.dtypes.prng_key
  ):
    leaf = jax.random.key_data(leaf)
  return np.asarray(leaf)


def outcome(workdir, seed):
  """Returns all that must not depend on interruptions: text and arrays."""
  folder = pathlib.Path(workdir) / f"seed{seed}"
  lines = [
    {k: v for k, v in json.loads(line).items() if not k.startswith("time/")}
    for line in (folder / "metrics.jsonl").read_text().splitlines()
  ]
  result = json.loads((folder / "result.json").read_text())
  result = {k: v for k, v in result.items() if k not in CLOCKS}
  text = json.dumps([lines, result], sort_keys=True)  # NaN equals NaN.
  arrays = {}
  for kind in ("latest", "best"):
    for path in sorted((folder / "checkpoints" / kind).iterdir()):
      arrays[f"{kind}/{path.name}"] = jax.tree.map(plain, ocp.load(path))
  return text, arrays


def assert_same(one, other):
  for seed in range(SEEDS):
    text, arrays = outcome(one, seed)
    other_text, other_arrays = outcome(other, seed)
    assert text == other_text
    assert arrays.keys() == other_arrays.keys()
    assert f"latest/{STEPS}" in arrays
    jax.tree.map(np.testing.assert_array_equal, arrays, other_arrays)


def test_the_two_seeds_differ(unbroken):
  """The control: the comparison below sees a difference where there is one."""
  assert outcome(unbroken[0], 0)[0] != outcome(unbroken[0], 1)[0]
  assert count_records(unbroken[0]) == SEEDS * (STEPS + STEPS // 3)


def test_killed_once(start, unbroken, tmp_path):
  """Killed at a random record, and a random moment behind it."""
  rng = np.random.default_rng(0)
  moment = rng.integers(1, count_records(unbroken[0]))
  process = start(tmp_path / "run", unbroken[1])
  while count_records(tmp_path / "run") < moment and process.poll() is None:
    time.sleep(0.005)
  time.sleep(rng.uniform(0, 0.2))
  assert kill(process)
  assert not (tmp_path / "run" / "results.json").exists()
  finish(start(tmp_path / "run", unbroken[1]))
  assert_same(tmp_path / "run", unbroken[0])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again(seed, start, unbroken, tmp_path):
  """Killed at random times, while it makes its own zoo too."""
  rng = np.random.default_rng(seed)
  times = 0
  for _ in range(4):
    process = start(tmp_path / "run", tmp_path / "zoo")
    time.sleep(rng.uniform(0, unbroken[2]))
    times += kill(process)
  assert times
  finish(start(tmp_path / "run", tmp_path / "zoo"))
  assert_same(tmp_path / "run", unbroken[0])
