"""Two programs on one folder: `python tests/broken/pairs.py`.

For every pair of programs the second is started while the first is at work in
the same folder. Each has to be right (exit code 0), or refused in one line that
names the folder; no traceback, and no wait without end. Two of one kind have to
leave what one leaves alone, to the bit but for clocks. Exit code 1 if there was
a fault.

  --programs=run,sweep     some of them; all by default
  --delays=0,2             seconds between the two
  --both_orders            whether each of a pair is started first
"""

import contextlib
import itertools
import pathlib
import shutil
import sys
import tempfile
import time

from absl import flags

FLAGS = flags.FlagValues()  # Not those of the programs.
flags.DEFINE_list(
  "programs", [], "Names of programs; all by default.", flag_values=FLAGS
)
flags.DEFINE_list(
  "delays", ["0", "2"], "Seconds between the two.", flag_values=FLAGS
)
flags.DEFINE_bool("both_orders", False, "Each first.", flag_values=FLAGS)
flags.DEFINE_string(
  "given", "", "Folder of what programs begin with, to keep.", flag_values=FLAGS
)


def commands(given: pathlib.Path, work: pathlib.Path) -> dict[str, list[str]]:
  """Returns programs that all write to `work/run`, or read it."""
  from tests.broken import stages

  cache = f"--compilation_cache={given}/cache"
  at = f"--workdir={work}/run"
  fast = [*stages.SIZES, *stages.FAST, "--seeds=1"]
  return {
    "run": [stages.RUN, f"--zoo={work}/one", at, *fast, cache],
    "make_zoo": [
      *("experiments/make_zoo.py", f"--zoo={work}/run", *stages.IMAGES, cache),
    ],
    "sweep": [
      *("experiments/sweep.py", f"--zoo={work}/one", at, *fast, cache),
      *("--address=none", "--retries=0", "--grid=learning_rate=1e-2,1e-3"),
    ],
    "train": [
      *(stages.COMMAND, "train", f"--networks={given}/own/networks", at),
      *(f"--table={given}/own/labels.csv", "--targets=size"),
      *(f"--zoo_out={work}/own_zoo", *stages.FAST[:3], *stages.FAST[6:]),
    ],
    "convert_zoo": [
      *("experiments/convert_zoo.py", "--zoo=inrs", f"--out={work}/run"),
      f"--source={given}/fmnist_inrs",
    ],
    "predict": [
      *(stages.COMMAND, "predict", f"--workdir={work}/run"),
      *(f"--csv={work}/table.csv", f"{given}/own/networks"),
    ],
    "encode": [
      *(stages.COMMAND, "encode", f"--workdir={work}/run"),
      *(f"--out={work}/codes.npz", f"{given}/own/networks"),
    ],
  }


def fresh(given: pathlib.Path, work: pathlib.Path, names) -> None:
  """Empties the folder; where only readers come, there is a model to read."""
  shutil.rmtree(work, ignore_errors=True)
  work.mkdir()
  shutil.copytree(given / "one", work / "one")
  if set(names) <= {"predict", "encode"}:
    shutil.copytree(given / "run", work / "run")


def faults_of(first, second, ended, work) -> list[str]:
  """Returns what is wrong with how two programs have ended."""
  found = []
  for name, one in zip((first, second), ended, strict=True):
    if one.code == 0:
      continue
    line = one.error
    if not line or str(work) not in line:
      found.append(f"{name}: exit {one.code}: {one.err[-1500:]}")
  writers = [n for n in (first, second) if n not in ("predict", "encode")]
  if all(one.code for one in ended) and len(writers) == 2:
    found.append("both were refused")
  return found


def main():
  """Tries all pairs."""
  from tests.broken import programs, stages

  programs.load()
  faults, count = 0, 0
  with contextlib.ExitStack() as stack:
    top = FLAGS.given or stack.enter_context(tempfile.TemporaryDirectory())
    given = pathlib.Path(top).absolute()
    stages.made(given, programs.done)
    work = given / "pair"
    words = commands(given, work)
    names = FLAGS.programs or list(words)
    alone: dict[str, pathlib.Path] = {}
    drawn = itertools.combinations_with_replacement(names, 2)
    if FLAGS.both_orders:
      drawn = itertools.product(names, names)
    for first, second in drawn:
      if first == second:
        fresh(given, work, [first])
        programs.done(words[first])
        alone[first] = given / "alone" / first
        shutil.rmtree(alone[first], ignore_errors=True)
        shutil.copytree(work, alone[first])
      for delay in map(float, FLAGS.delays):
        fresh(given, work, [first, second])
        one = programs.Program(words[first])
        time.sleep(delay)
        two = programs.Program(words[second])
        ended = one.wait(), two.wait()
        found = faults_of(first, second, ended, work)
        if first == second:
          found += programs.compared(alone[first], work)
        count, faults = count + 1, faults + bool(found)
        said = [f"{e.code} {e.error[7:207]}".strip() for e in ended]
        print(f"{first} + {second}, {delay:g} s: {said}", flush=True)
        for text in found:
          print(f"FAULT: {first} + {second}: {text}", flush=True)
  print(f"{count} pairs, {faults} faults")
  sys.exit(1 if faults else 0)


if __name__ == "__main__":
  import importlib

  importlib.import_module("programs").find_tests()
  FLAGS(sys.argv)
  main()
