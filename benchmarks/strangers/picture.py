"""Draws how far predictions are off, by how unlike networks are.

    python -m benchmarks.strangers.picture --folder=runs/strangers \
      --torch=strangers/sines --out=docs/trust.png

`--folder` is that of `benchmarks.strangers.table --kind=sines`.
"""

import argparse
import pathlib

import numpy as np

from benchmarks.strangers import kinds, table
from sne_jax.cli.reports import drawing
from sne_jax.predictor import Predictor

LEAST, MOST = 0.05, 30.0
"""How unlike networks are, at the ends of the picture."""


def main() -> None:
  """Predicts networks of several kinds, and draws."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--folder", type=pathlib.Path, required=True)
  parser.add_argument("--encoder", default="stat_pool")
  parser.add_argument("--torch", type=pathlib.Path, required=True)
  parser.add_argument("--seed", type=int, default=0, help="as of the table")
  parser.add_argument("--out", type=pathlib.Path, required=True)
  args = parser.parse_args()
  predictor = Predictor.load(args.folder / f"sines_{args.encoder}_all")
  parts = table.parts_of(kinds.sines_zoo(args.folder, args.seed), "sines", "")
  others = kinds.sines(args.folder, args.seed)
  rows = {
    "in distribution": parts["test"],
    "PyTorch itself": kinds.from_files(args.torch, predictor),
    **{n: others[n] for n in list(others)[:3]},
    "weights lost (30 %)": kinds.damaged(parts["test"], args.seed),
  }
  with drawing.drawing(args.out, (6.4, 4.0)) as axes:
    for place, (name, networks) in enumerate(rows.items()):
      judged = predictor.judge(networks, coverage=table.COVERAGE)
      error = np.abs(judged.predictions - networks.targets)[:, 0]
      axes.scatter(
        np.clip(judged.unlike, LEAST, MOST),
        np.maximum(error, 1e-3),
        s=9,
        alpha=0.6,
        linewidths=0,
        color=drawing.PALETTE[place],
        marker=drawing.MARKERS[place],
        label=name,
      )
    unlike = np.geomspace(LEAST, MOST, 200)
    ones = np.ones(len(unlike))
    width = predictor.known.widths(
      predictor.targets, table.COVERAGE, unlike, ones
    )[:, 0]
    axes.plot(unlike, width, color=drawing.INK, label="half the interval")
    axes.axvline(1, color=drawing.PALE, linewidth=0.8)
    axes.set(
      xscale="log",
      yscale="log",
      xlabel="how unlike the training (above 1: said so)",
      ylabel="error of the predicted frequency",
    )
    drawing.legend(axes)


if __name__ == "__main__":
  main()
