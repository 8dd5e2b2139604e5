"""Fuzzes the readers: `python tests/checkpoints/fuzz.py --minutes=10`.

Damaged files of every format are read in a process of its own, so that a
crash, a hang or a hunger for memory ends that process alone and is counted.
The file at fault is kept in `--keep`. Exit code 1 if there was any fault.
"""

import collections
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types

from absl import app, flags

ROOT = str(pathlib.Path(__file__).resolve().parents[2])
sys.path.insert(0, ROOT)
# Some distributions install a package called `tests`; ours is this folder.
sys.modules["tests"] = types.ModuleType("tests")
sys.modules["tests"].__path__ = [f"{ROOT}/tests"]

flags.DEFINE_float("minutes", 10.0, "How long.")
flags.DEFINE_integer("seed", 0, "Of the first batch; the next takes the next.")
flags.DEFINE_integer("batch", 500, "Files per process.")
flags.DEFINE_integer("limit", 30, "Seconds that one file may take.")
flags.DEFINE_integer("memory", 3 << 30, "Bytes beyond those at the start.")
flags.DEFINE_string("keep", "fuzz_faults", "Folder for files at fault.")
flags.DEFINE_integer("networks", 4, "Random ones of every container.")
flags.DEFINE_list("formats", [], "Names of samples; all of them by default.")
flags.DEFINE_string("worker", "", "Folder of a worker; not for users.")
FLAGS = flags.FLAGS

ORBAX = "orbax"


def corpus():
  """Samples by name: bytes, and for Orbax a table of the folder's files."""
  import jax

  jax.config.update("jax_platforms", "cpu")
  import numpy as np
  import orbax.checkpoint as ocp

  from tests.checkpoints import hostile_test, samples

  made = dict(samples.all_formats())
  made.update(hostile_test.evil_files("./canary"))
  made["odd.pt"] = samples.torch_bytes(samples.state_dict(samples.odd()))
  made["forms.pt"] = samples.torch_bytes(samples.forms())
  made["computed.pt"] = samples.torch_bytes(
    samples.state_dict(samples.computed())
  )
  made["computed.safetensors"] = samples.safetensors_bytes(samples.computed())
  made["shards"] = samples.shards()
  made["odd.safetensors"] = samples.safetensors_bytes(samples.odd())
  made["odd.msgpack"] = samples.flax_bytes({"params": samples.odd()})
  made |= random_samples()
  folder = tempfile.mkdtemp()
  tree = {"params": {"a": np.ones((2, 3)), "b": np.ones(3, np.float32)}}
  for ocdbt in (True, False):
    name = f"{ORBAX}_{'ocdbt' if ocdbt else 'zarr'}"
    path = pathlib.Path(folder) / name
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt)
    ocp.Checkpointer(handler).save(path, tree)
    made[name] = files_of(path)
  shutil.rmtree(folder)
  chosen = FLAGS.formats or sorted(made)
  return {name: made[name] for name in chosen}


def random_samples():
  """Random networks in every container: graphs, configs, shared layers."""
  from tests.checkpoints import random_files
  from tests.checkpoints.drawn import graphs, plans

  made = {}
  folder = pathlib.Path(tempfile.mkdtemp())
  for container in random_files.CONTAINERS:
    for seed in range(FLAGS.networks):
      network = graphs.build(plans.draw(seed))
      written = random_files.write(network, container, folder)
      if written is None:
        continue
      path = written.path
      name = f"{container}{seed}{path.suffix}"
      made[name] = path.read_bytes() if path.is_file() else files_of(path)
  shutil.rmtree(folder)
  return made


def files_of(folder):
  """A table of a folder's files."""
  return {
    str(file.relative_to(folder)): file.read_bytes()
    for file in sorted(folder.rglob("*"))
    if file.is_file()
  }


def damage(sample, rng, other):
  """Returns a damaged sample."""
  from tests.checkpoints import mutations

  draw = lambda: (rng.random(), rng.random(), rng.random())
  edits = [draw() for _ in range(rng.choice((1, 1, 2, 3, 6)))]
  if isinstance(sample, dict):
    sample = dict(sample)
    name = rng.choice(sorted(sample))
    sample[name] = mutations.edit_bytes(sample[name], edits, other)
    return sample
  return mutations.mutate(sample, edits, other)


def put(path, sample):
  """Writes a sample; returns what to read."""
  shutil.rmtree(path, ignore_errors=True)
  path.mkdir()
  if not isinstance(sample, dict):
    (path / "input").write_bytes(sample)
    return path / "input"
  for name, data in sample.items():
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(data)
  return path


def work(folder):
  """Reads one batch; writes what it is at, and in the end the counts."""
  from tests.checkpoints import fuzz_test

  folder = pathlib.Path(folder)
  os.chdir(folder)
  made, rng = corpus(), random.Random(FLAGS.seed)
  plain = [data for data in made.values() if isinstance(data, bytes)]
  counts = collections.Counter()
  with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
  limit = used + FLAGS.memory
  resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
  signal.signal(signal.SIGALRM, signal.SIG_DFL)  # Ends C code that hangs, too.
  for _ in range(FLAGS.batch):
    name = rng.choice(sorted(made))
    target = put(folder / "at", damage(made[name], rng, rng.choice(plain)))
    (folder / "name").write_text(name)
    start = time.monotonic()
    signal.alarm(FLAGS.limit)
    read = fuzz_test.try_file(target)
    signal.alarm(0)
    slowest = time.monotonic() - start
    counts["slowest ms"] = max(counts["slowest ms"], int(1000 * slowest))
    counts[f"{name}: {'read' if read else 'refused'}"] += 1
    if any(folder.rglob("canary*")):
      raise AssertionError("code was run: there is a canary")
  (folder / "counts").write_text(json.dumps(counts))


def main(argv):
  """Runs batches until the time is over."""
  del argv
  if FLAGS.worker:
    work(FLAGS.worker)
    return
  end = time.monotonic() + 60 * FLAGS.minutes
  total, faults, seed = collections.Counter(), 0, FLAGS.seed
  slowest = 0
  while time.monotonic() < end:
    with tempfile.TemporaryDirectory() as folder:
      own = [
        f"--{n}={FLAGS[n].value}"
        for n in ("batch", "limit", "memory", "networks")
      ]
      own += [f"--formats={','.join(FLAGS.formats)}"] if FLAGS.formats else []
      done = subprocess.run(
        [
          sys.executable,
          __file__,
          f"--worker={folder}",
          f"--seed={seed}",
          *own,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=FLAGS.limit * FLAGS.batch,
      )
      at = pathlib.Path(folder)
      if (at / "counts").exists() and done.returncode == 0:
        counts = json.loads((at / "counts").read_text())
        slowest = max(slowest, counts.pop("slowest ms"))
        total.update(counts)
      else:
        faults += 1
        kept = pathlib.Path(FLAGS.keep) / str(seed)
        shutil.copytree(at, kept, dirs_exist_ok=True)
        (kept / "stderr").write_text(done.stderr)
        last = done.stderr.strip().splitlines()[-1:]
        print(f"FAULT in batch {seed}: exit {done.returncode}, {last}, {kept}")
    seed += 1
    print(f"batch {seed}: {total.total()} files, {faults} faults", flush=True)
  for name in sorted(total):
    print(f"{total[name]:8d}  {name}")
  print(f"{total.total()} files, {faults} faults, slowest {slowest} ms")
  sys.exit(1 if faults else 0)


if __name__ == "__main__":
  app.run(main)
