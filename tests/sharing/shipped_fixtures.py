"""Test networks of zoos, committed: `python -m tests.sharing.shipped_fixtures`.

It takes them from the zoos that `experiments/ship.py` has made, of their part
`test`, which no model that ships was trained on.
"""

import json
import pathlib

import numpy as np

import sne_jax
from sne_jax.networks.spec import NetworkSpec

FOLDER = pathlib.Path(__file__).parents[1] / "fixtures" / "shipped"
COUNT = 36
SINES = ("zoos/shipped_sine",)
IMAGES = ("zoos/digits_inr",)


def write(name: str, zoos, targets) -> None:
  """Writes networks that lie evenly in the test parts of zoos."""
  each = COUNT // len(zoos)
  held = {"weights": [], "spec": [], **{target: [] for target in targets}}
  specs: list[str] = []
  for path in zoos:
    zoo = sne_jax.Zoo.open(path)
    rows = np.asarray(zoo.split("default")["test"])
    rows = rows[np.linspace(0, len(rows) - 1, each).astype(int)]
    for row, vector in zip(rows, zoo.vectors(rows), strict=True):
      text = json.dumps(zoo.specs[zoo.members["spec"][row]].to_json())
      if text not in specs:
        specs.append(text)
      held["spec"].append(specs.index(text))
      held["weights"].append(np.asarray(vector, np.float32))
      for target in targets:
        held[target].append(zoo.property(target)[row])
  arrays = {key: np.array(value) for key, value in held.items()}
  FOLDER.mkdir(exist_ok=True)
  np.savez_compressed(FOLDER / f"{name}.npz", specs=np.array(specs), **arrays)


def read(name: str, target: str) -> tuple[list, np.ndarray]:
  """Returns networks, and what is true of them."""
  held = np.load(FOLDER / f"{name}.npz")
  specs = [NetworkSpec.from_json(json.loads(text)) for text in held["specs"]]
  pairs = [
    (specs[number], weights.astype(np.float32))
    for number, weights in zip(held["spec"], held["weights"], strict=True)
  ]
  return pairs, held[target]


if __name__ == "__main__":
  write("sines", SINES, ("frequency",))
  write("images", IMAGES, ("label",))
