"""Random networks, and what is said of their files: is a claim ever false?

    python -m tests.checkpoints.random_networks --count=2000 --seed=0

A `Plan` (`drawn/plans.py`) says what a network is like, in few words;
`graphs.build` makes modules and the graph that joins them, `running.run` is the
one forward function, in plain numpy. `random_files.py` writes a network in
every container; `judging.judge` reads a file and holds what the reader claims
against `run`. A plan whose file is read wrongly is made smaller while it stays
wrong.
"""

import argparse
import collections
import pathlib
import tempfile
import time

from absl import logging

from tests.checkpoints import random_files
from tests.checkpoints.drawn import graphs, judging, plans


def try_plan(
  plan: plans.Plan, container: str, folder
) -> judging.Verdict | None:
  """Writes and judges one file; None if the container cannot hold it."""
  network = graphs.build(plan)
  written = random_files.write(network, container, pathlib.Path(folder))
  if written is None:
    return None
  override = {"flatten": written.settled} if written.settled else None
  return judging.judge(
    network, written.path, written.rows, written.last, override=override
  )


def main() -> None:
  """Prints what came of random networks, by container."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--count", type=int, default=200, help="networks")
  parser.add_argument("--seed", type=int, default=0, help="of the first")
  parser.add_argument(
    "--containers", default=",".join(random_files.CONTAINERS), help="by comma"
  )
  parser.add_argument("--shrink", type=int, default=3, help="wrong ones each")
  parser.add_argument("--why", default="", help="list files of this verdict")
  args = parser.parse_args()
  logging.set_verbosity(logging.ERROR)
  names = args.containers.split(",")
  counts = {name: collections.Counter() for name in names}
  wrong = {name: [] for name in names}
  start = time.monotonic()
  with tempfile.TemporaryDirectory() as folder:
    for seed in range(args.seed, args.seed + args.count):
      plan = plans.draw(seed)
      for name in names:
        verdict = try_plan(plan, name, folder)
        if verdict is None:
          continue
        counts[name][verdict.kind] += 1
        if verdict.kind in ("WRONG", "CRASH"):
          wrong[name].append(seed)
          print(f"{name} {seed}: {verdict}", flush=True)  # If it is stopped.
        if verdict.kind == args.why:
          print(
            f"{name} {seed}: {verdict.why}\n  {plans.said(plans.draw(seed))}"
          )
    columns = ("full", "less", "refused", "WRONG", "CRASH")
    print("container      files " + " ".join(f"{c:>8}" for c in columns))
    for name in names:
      row = " ".join(f"{counts[name][c]:8d}" for c in columns)
      share = counts[name]["full"] / max(1, counts[name].total())
      print(f"{name:12s} {counts[name].total():7d} {row}  {share:.1%} in full")
    print(f"{args.count} networks, {time.monotonic() - start:.0f} s")
    for name in names:
      if wrong[name]:
        print(f"{name} wrong, seeds: {wrong[name][:40]}")
      for seed in wrong[name][: args.shrink]:
        bad = lambda p, name=name: (
          getattr(try_plan(p, name, folder), "kind", "") in ("WRONG", "CRASH")
        )
        least = plans.shrink(plans.draw(seed), bad)
        print(f"  {plans.said(least)}\n    {try_plan(least, name, folder)}")


if __name__ == "__main__":
  main()
