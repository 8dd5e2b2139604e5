"""Reads files of large networks by two revisions in turns: seconds and memory.

    git worktree add ../before REVISION
    python -m benchmarks.reading --before=../before --folder=FILES

Files are those of `large_networks.py`: safetensors of random weights in the
naming of its library. `spec` is the time until the network is known, `weights`
that of reading its numbers on top; memory counts from the moment when all is
imported. What the imports left is collected before: a full collection goes
through the objects of all libraries, takes longer than a file, and falls due at
any moment. Each reading is a process of its own, the revisions take turns, and
the least of the repeats is taken.
"""

import argparse
import gc
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

NETWORKS = ("resnet_18", "vit_b_16", "gpt_2")


def resident(field: str) -> int:
  """Returns bytes of resident memory: `VmRSS` now, `VmHWM` at most."""
  text = pathlib.Path("/proc/self/status").read_text()
  return 1024 * int(text.partition(f"{field}:")[2].split()[0])


def read(path: str) -> dict[str, float]:
  """Reads one file in this process, whatever revision is on the path."""
  from sne_jax import checkpoints

  gc.collect()
  before = resident("VmRSS")
  start, busy = time.perf_counter(), time.process_time()
  network = checkpoints.load(path)
  found = {
    "spec_seconds": time.perf_counter() - start,
    "spec_core_seconds": time.process_time() - busy,
    "spec_mib": (resident("VmHWM") - before) / 2**20,
  }
  count = len(network.weights())
  return found | {
    "seconds": time.perf_counter() - start,
    "core_seconds": time.process_time() - busy,
    "mib": (resident("VmHWM") - before) / 2**20,
    "parameters": count,
  }


def main() -> None:
  """Reads every file by both revisions; prints a table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--before", help="a checkout of the other revision")
  parser.add_argument("--folder", type=pathlib.Path, help="for the files")
  parser.add_argument("--repeats", type=int, default=5)
  parser.add_argument("--out", type=pathlib.Path, help="JSON to write")
  parser.add_argument("--child", help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    print(json.dumps(read(args.child)))
    return
  from benchmarks import large_networks, results

  here = pathlib.Path(__file__).resolve().parents[1]
  roots = {"before": pathlib.Path(args.before).resolve(), "now": here}
  args.folder.mkdir(parents=True, exist_ok=True)
  rows = []
  for name in NETWORKS:
    path = args.folder / f"{name}.safetensors"
    if not path.exists():
      large_networks.write(path, large_networks.shapes_of(name))
    path.read_bytes()  # Both find it in the cache.
    found: dict[str, list] = {which: [] for which in roots}
    for number in range(args.repeats):
      turns = [*roots.items()]
      for which, root in turns[:: (-1) ** number]:  # Each is first as often.
        done = subprocess.run(
          [sys.executable, __file__, f"--child={path.resolve()}"],
          stdout=subprocess.PIPE,
          check=True,
          text=True,
          cwd=root,
          env=os.environ | {"PYTHONPATH": str(root)},
        )
        found[which].append(json.loads(done.stdout))
    for which, runs in found.items():
      row = {key: min(run[key] for run in runs) for key in runs[0]}
      row["median_seconds"] = statistics.median(r["seconds"] for r in runs)
      rows.append({"network": name, "revision": which} | row)
      print(
        f"{name:10} {which:7} spec {row['spec_seconds']:6.3f} s"
        f" ({row['spec_core_seconds']:.3f} of a core), {row['spec_mib']:5.0f}"
        f" MiB; with weights {row['seconds']:6.3f} s"
        f" ({row['core_seconds']:.3f}), {row['mib']:5.0f} MiB",
        flush=True,
      )
  if args.out:
    results.write(args.out, results.head() | {"files": rows})


if __name__ == "__main__":
  main()
