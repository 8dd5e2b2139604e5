"""A folder of somebody's networks, of mixed sizes and formats, and a table."""

import csv
import pathlib

import numpy as np
import safetensors.numpy

from sne_jax.networks import families
from tests.zoo.public import torch_files


def write(
  folder: pathlib.Path, count: int, *, snapshots: int = 1, seed: int = 0
) -> pathlib.Path:
  """Writes networks whose property `size` is that of their weights.

  Args:
    folder: gets `networks/` and `labels.csv`.
    count: networks; every third one as safetensors, the others of PyTorch.
    snapshots: networks of one training, in a row, by their names.
    seed: of all that is random.

  Returns:
    The table.
  """
  rng = np.random.default_rng(seed)
  nets = folder / "networks"
  nets.mkdir(parents=True)
  rows = []
  for n in range(count):
    widths = rng.integers(3, 9, size=1 + n % 2).tolist()
    spec = families.mlp((2, *widths, 1))
    size = float(np.round(rng.uniform(0.1, 1), 6))
    weights = size * rng.normal(size=spec.num_weights).astype(np.float32)
    arrays = {
      f"net.{2 * (i // 2)}.{('weight', 'bias')[i % 2]}": array
      for i, array in enumerate(spec.unflatten(weights).values())
    }
    name = f"net{n}"
    if snapshots > 1:
      name = f"run{n // snapshots}_epoch{n % snapshots}"
    if n % 3:
      torch_files.save(nets / f"{name}.pt", torch_files.state_dict(**arrays))
    else:
      safetensors.numpy.save_file(arrays, nets / f"{name}.safetensors")
    end = "pt" if n % 3 else "safetensors"
    rows.append([f"{name}.{end}", size, "big" if size > 0.5 else "small", n])
  return table(folder, rows)


def table(folder: pathlib.Path, rows, *columns: str) -> pathlib.Path:
  """Writes a table of rows; returns its path."""
  path = folder / "labels.csv"
  with open(path, "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(columns or ["file", "size", "kind", "number"])
    writer.writerows(rows)
  return path
