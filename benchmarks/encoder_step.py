"""How fast a training step of the encoder is, and what it costs to grow.

Steps of several shapes (`shapes.py`), each with its speed as a share of the
machine's own matrix product, measured in the same run, before and after.

    python benchmarks/encoder_step.py
    python benchmarks/encoder_step.py --figure=docs/results/cost

The second also measures forward pass and step for networks of 1 K to 1 M
weights, and writes two figures and their numbers.
"""

import argparse
import dataclasses
import math
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import machine, results, shapes
from sne_jax.cli.reports import figures

CURVE_SIZES = (1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000)
"""Weights of a network, along the cost curve."""

COLUMNS = {
  **{"case": ("case", ""), "chunks": ("chunks", "d")},
  **{"params": ("num_params", "d"), "compile s": ("compile_seconds", ".1f")},
  **{"ms": ("seconds_ms", ".1f"), "fastest": ("fastest_ms", ".1f")},
  **{"slowest": ("slowest_ms", ".1f"), "GFLOP": ("gflop", ".3f")},
  "nets/s": ("networks_per_second", ".1f"),
  **{"GFLOP/s": ("gflops_per_second", ".1f"), "of peak": ("share", ".1%")},
  **{"MiB": ("mib", ".1f"), "host ms": ("host_seconds_ms", ".2f")},
}
"""Of the table: title, value and its format."""


def measure(
  case: shapes.Case, *, repeats: int, max_bytes: float = math.inf
) -> dict[str, Any]:
  """Measures a training step of a case; see README.md for the entries."""
  step = shapes.Step(case)
  # What a tiled step computes again for its gradients is not counted.
  whole = dataclasses.replace(case.sne, chunk_tile=0)
  plain = shapes.Step(dataclasses.replace(case, sne=whole))
  flops = machine.dot_flops(plain.update, plain.state, plain.batch)
  timing = step.time_update(repeats, max_bytes)
  start = time.perf_counter()
  for place in range(1, 1 + repeats):
    jax.block_until_ready(step.batch_fn(place))
  host = (time.perf_counter() - start) / repeats
  return {
    "case": case.label,
    "networks": case.batch_size,
    "weights": step.num_weights,
    "chunks": int(np.sum(step.batch.packed.tables["chunks"]["real"])),
    "num_params": step.num_params,
    "compile_seconds": timing.compile_seconds,
    "seconds": timing.seconds,
    "fastest": timing.fastest,
    "slowest": timing.slowest,
    "networks_per_second": case.batch_size / timing.seconds,
    "gflop": flops / 1e9,
    "gflops_per_second": flops / timing.seconds / 1e9,
    "program_bytes": machine.peak_memory(timing.compiled).program,
    "host_seconds": host,
  }


def measure_cost(
  sizes: Sequence[int], *, repeats: int, max_bytes: float, small: bool = False
) -> list[dict[str, Any]]:
  """Measures forward pass and step of both chunk functions, size by size."""
  rows = []
  for size in sizes:
    for name, case in shapes.curve_cases(size).items():
      case = shapes.small(case) if small else case
      step = shapes.Step(case)
      update = step.time_update(repeats, max_bytes)
      row = {
        "chunk_function": name,
        "weights": case.specs[0].num_weights,
        "networks": case.batch_size,
        "layer_function": case.sne.layer_function,
      }
      forward = machine.timed(
        step.forward,
        *(step.state.params, step.packed),
        repeats=repeats,
        max_bytes=max_bytes,
      )
      for label, timing in (("step", update), ("forward", forward)):
        memory = machine.peak_memory(timing.compiled).program
        row[f"{label}_seconds"] = timing.seconds / case.batch_size
        row[f"{label}_bytes"] = (memory or math.nan) / case.batch_size
      rows.append(row)
      print(
        f"{case.label}: step {row['step_seconds']:.4g} s and"
        f" {row['step_bytes'] / 2**20:.1f} MiB, forward"
        f" {row['forward_seconds']:.4g} s and"
        f" {row['forward_bytes'] / 2**20:.1f} MiB per network",
        flush=True,
      )
  return rows


def draw_cost(stem: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
  """Draws seconds and memory per network over weights per network."""
  for quantity, unit, scale in (
    ("seconds", "seconds per network", 1.0),
    ("bytes", "MiB per network", 2.0**-20),
  ):
    series = {
      f"{name}, {label}": {
        row["weights"]: row[f"{key}_{quantity}"] * scale
        for row in rows
        if row["chunk_function"] == name
      }
      for name in ("product", "attention")
      for key, label in (("step", "training step"), ("forward", "forward"))
    }
    figures.lines(
      stem.with_name(
        f"{stem.name}_{'memory' if quantity == 'bytes' else quantity}"
      ),
      series,
      xlabel="weights of the encoded network",
      ylabel=unit,
      title="Cost of encoding a larger network",
      x_log=True,
      y_log=True,
    )


def table(rows: Sequence[dict[str, Any]], peak: float) -> str:
  """Returns the rows as text; `peak` is in GFLOP/s."""
  printed = []
  for row in rows:
    memory = (row["program_bytes"] or math.nan) / 2**20
    more = {"share": row["gflops_per_second"] / peak, "mib": memory}
    for name in ("seconds", "fastest", "slowest", "host_seconds"):
      more[f"{name}_ms"] = 1e3 * row[name]
    printed.append(row | more)
  return results.table(printed, COLUMNS)


def main(arguments: Sequence[str] | None = None) -> None:
  """Measures what the command line asks for, and prints it."""
  parser = argparse.ArgumentParser(description="Times the training step.")
  parser.add_argument("--only", default="", help="text in the cases' names")
  parser.add_argument("--repeats", type=int, default=10, help="timed calls")
  parser.add_argument("--out", help="JSON file of all cases")
  parser.add_argument(
    "--figure",
    help="measure the cost curve too: PATH_seconds.png, PATH_memory.png and"
    " PATH.json",
  )
  parser.add_argument(
    "--max_gigabytes",
    type=float,
    default=8.0,
    help="programs of the cost curve that need more are compiled, not run",
  )
  parser.add_argument(
    "--cpu_devices",
    type=int,
    default=1,
    help="devices that the processor is divided into; they share each batch",
  )
  parser.add_argument(
    "--quick", action="store_true", help="tiny shapes: does it run?"
  )
  given = parser.parse_args(arguments)
  if given.repeats < 1:
    parser.error(f"--repeats must be at least 1, got {given.repeats}")
  chosen = [c for c in shapes.cases(quick=given.quick) if given.only in c.label]
  if not chosen:
    names = "; ".join(c.label for c in shapes.cases(quick=given.quick))
    parser.error(f"no case has {given.only!r} in its name; there are: {names}")
  repeats = 1 if given.quick else given.repeats
  side = 128 if given.quick else 2048
  if given.cpu_devices > 1:
    jax.config.update("jax_num_cpu_devices", given.cpu_devices)
  print(f"device: {machine.device_name()}", flush=True)
  before = machine.matmul_peak(side)
  rows = []
  for case in chosen:
    rows.append(measure(case, repeats=repeats))
    print(f"measured: {case.label}", flush=True)
  after = machine.matmul_peak(side)
  peak = max(before, after)
  print(table(rows, peak))
  print(
    f"matrix product of {side}: {before:.1f} GFLOP/s before, {after:.1f} after;"
    " shares are of the larger one. GFLOP: matrix products only."
  )
  process = machine.peak_memory().process / 2**20
  print(f"peak memory of the process so far: {process:.0f} MiB")
  head = results.head() | {
    "num_devices": jax.local_device_count(),
    "peak_gflops_before": before,
    "peak_gflops_after": after,
    "peak_size": side,
    "process_bytes": machine.peak_memory().process,
    "quick": given.quick,
  }
  for row in rows:
    row["share_of_peak"] = row["gflops_per_second"] / peak
  if given.out:
    results.write(given.out, head | {"cases": rows})
  if given.figure:
    stem = pathlib.Path(given.figure).with_suffix("")
    costs = measure_cost(
      (300, 600) if given.quick else CURVE_SIZES,
      repeats=min(repeats, 3),
      max_bytes=given.max_gigabytes * 1e9,
      small=given.quick,
    )
    draw_cost(stem, costs)
    results.write(stem.with_suffix(".json"), head | {"cost": costs})


if __name__ == "__main__":
  main()
