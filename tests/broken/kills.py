"""Kills programs at random moments: `python tests/broken/kills.py --kills=100`.

A stage (`stages.py`) is drawn, started, and killed by SIGKILL at a random
moment of the time it takes; it may be killed again when it is started again.
Then it runs to its end, which has to be that of an unbroken run, to the bit but
for clocks, with no stray file. Exit code 1 if there was a fault.

  --kills=100 --seed=0     how many, and which
  --folder=kill_faults     what is at fault is kept here, and how far this is:
                           the same command continues
"""

import json
import pathlib
import random
import shutil
import sys
import time

from absl import flags

NAMES = (
  *("zoo", "training", "contest", "matrix", "pretraining", "sampling"),
  *("conversion", "own"),
)
AGAIN = 0.3
"""Share of kills that are followed by another before the end."""

FLAGS = flags.FlagValues()  # Not those of the programs.
flags.DEFINE_integer("kills", 100, "How many.", flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Of all draws.", flag_values=FLAGS)
flags.DEFINE_string(
  "folder", "kill_faults", "For inputs, faults and counts.", flag_values=FLAGS
)
flags.DEFINE_list("stages", list(NAMES), "Names of stages.", flag_values=FLAGS)


class Stage:
  """A stage that is killed again and again in one folder."""

  def __init__(self, name: str, given: pathlib.Path):
    """Runs it unbroken, and keeps what it has left, and how long it took."""
    from tests.broken import programs, stages

    self.name, self.given, self.work = name, given, given / "work" / name
    self.words = stages.command(name, given, self.work)
    self.expected = given / "expected" / name
    if self.expected.exists():
      shutil.rmtree(self.expected)
    for _ in range(2):  # Once more, with programs that are compiled.
      self.fresh()
      begun = time.monotonic()
      programs.done(self.words)
      self.seconds = time.monotonic() - begun
    shutil.copytree(self.work, self.expected)

  def fresh(self) -> None:
    """Empties the folder, and puts there what the stage changes."""
    from tests.broken import stages

    shutil.rmtree(self.work, ignore_errors=True)
    stages.prepare(self.name, self.given, self.work)

  def kill(self, rng: random.Random) -> tuple[int, list[str]]:
    """Kills it, once or more; returns how often, and what is wrong then."""
    from tests.broken import programs

    self.fresh()
    kills, moments = 0, []
    while not kills or rng.random() < AGAIN:
      moments.append(rng.uniform(0.02, 1) * self.seconds)
      program = programs.Program(self.words)
      until = time.monotonic() + moments[-1]
      while time.monotonic() < until and program.runs():
        time.sleep(0.01)
      ended = program.kill()
      if ended.code >= 0:  # It was faster.
        if ended.code:
          return kills, [f"exit {ended.code} after {moments}: {ended.err}"]
        break
      kills += 1
    ended = programs.run(self.words)
    if ended.code:
      return kills, [f"exit {ended.code} after {moments}: {ended.err}"]
    found = programs.compared(self.expected, self.work)
    return kills, [f"killed after {moments}", *found] if found else []


def main():
  """Kills until there were enough."""
  from tests.broken import programs, stages

  programs.load()
  folder = pathlib.Path(FLAGS.folder).absolute()
  folder.mkdir(parents=True, exist_ok=True)
  stages.made(folder, programs.done)
  state = folder / f"kills-{FLAGS.seed}.json"
  known = {"round": 0, "kills": {}, "faults": []}
  if state.exists():
    known = json.loads(state.read_text())
  made: dict[str, Stage] = {}
  while sum(known["kills"].values()) < FLAGS.kills:
    rng = random.Random(f"{FLAGS.seed} {known['round']}")
    name = FLAGS.stages[known["round"] % len(FLAGS.stages)]
    if name not in made:
      made[name] = Stage(name, folder)
    kills, fault = made[name].kill(rng)
    known["kills"][name] = known["kills"].get(name, 0) + kills
    if fault:
      kept = folder / f"fault-{FLAGS.seed}-{known['round']}"
      shutil.copytree(made[name].work, kept, dirs_exist_ok=True)
      known["faults"].append([name, kept.name, *fault])
      print(f"FAULT: {name}, {kept}:", *fault, sep="\n  ", flush=True)
    known["round"] += 1
    state.write_text(json.dumps(known, indent=1))
    total = sum(known["kills"].values())
    print(f"{total} kills, {len(known['faults'])} faults", flush=True)
  for name, count in sorted(known["kills"].items()):
    print(f"{count:6d}  {name}")
  print(f"{len(known['faults'])} faults")
  sys.exit(1 if known["faults"] else 0)


if __name__ == "__main__":
  import importlib

  importlib.import_module("programs").find_tests()
  FLAGS(sys.argv)
  main()
