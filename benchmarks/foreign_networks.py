"""Ranks networks that somebody else has trained, from their files alone.

Small conv nets are trained on MNIST in plain PyTorch, the way a course would:
a `Sequential` of its own, `state_dict` saved as .pt and as .safetensors. None
of this library's code has a part in it; learning rate, optimiser, activation
and length differ from network to network, so that accuracies do. Then a
predictor of ours, trained on MNIST networks made here, reads the files, and its
ranking is compared with the accuracies that PyTorch measured.

    python benchmarks/foreign_networks.py --images=mnist.npz --workdir=RUN

`RUN` is a finished run, such as runs/cross_dataset/sne__mnist_arch1. PyTorch
is needed: `pip install -e '.[torch]'`. Networks that were made are kept in
`--folder`, and made anew where the folder is not there.
"""

import argparse
import json
import pathlib
import sys
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks import results
from sne_jax import checkpoints
from sne_jax import predictor as predictor_lib
from sne_jax.learning.evaluation import metrics

TEST_IMAGES = 2000
BATCH = 64


def conv_net(activation: Any) -> Any:
  """Returns the small CNN zoo's architecture as a plain `Sequential`."""
  from torch import nn

  layers = []
  for into in (1, 16, 16):
    layers += [nn.Conv2d(into, 16, 3, stride=2), activation()]
  layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
  return nn.Sequential(*layers, nn.Linear(16, 10))


def make(folder: pathlib.Path, images: str, count: int, seed: int) -> None:
  """Trains the networks, and writes them with their accuracies."""
  import torch

  torch.manual_seed(seed)
  rng = np.random.default_rng(seed)
  with np.load(images) as archive:
    parts = [archive[k] for k in ("x_train", "y_train", "x_test", "y_test")]
  x_train, y_train, x_test, y_test = map(torch.from_numpy, parts)

  def normalised(x):
    return (x[:, None].float() / 255 - 0.1307) / 0.3081

  x_test, y_test = normalised(x_test[:TEST_IMAGES]), y_test[:TEST_IMAGES].long()
  folder.mkdir(parents=True)
  accuracies = {}
  for number in range(count):
    is_relu = rng.choice(["relu", "tanh"]) == "relu"
    net = conv_net(torch.nn.ReLU if is_relu else torch.nn.Tanh)
    rate = 10 ** rng.uniform(-3.5, -1.5)
    if rng.random() < 0.5:
      optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    else:
      optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9)
    for _ in range(int(rng.integers(5, 500))):
      rows = torch.randint(len(x_train), (BATCH,))
      loss = torch.nn.functional.cross_entropy(
        net(normalised(x_train[rows])), y_train[rows].long()
      )
      optimizer.zero_grad()
      loss.backward()
      optimizer.step()
    with torch.no_grad():
      right = (net(x_test).argmax(1) == y_test).double().mean()
    name = f"net{number:03d}"
    accuracies[name] = float(right)
    state = net.state_dict()
    torch.save(state, folder / f"{name}.pt")
    save_file(
      {k: v.numpy() for k, v in state.items()}, folder / f"{name}.safetensors"
    )
    print(f"{name}: {accuracies[name]:.3f}", file=sys.stderr)
  results.write(folder / "accuracies.json", accuracies)


def judge(
  folder: pathlib.Path, predictor: Any, suffix: str
) -> dict[str, float]:
  """Returns what a predictor of ours says of every file with a suffix."""
  paths = sorted(folder.glob(f"*{suffix}"))
  networks = [checkpoints.load(path) for path in paths]
  scores = predictor.predict([(n.spec, n.weights()) for n in networks])[:, 0]
  return {path.stem: float(s) for path, s in zip(paths, scores, strict=True)}


def main() -> None:
  """Makes the networks if need be, and compares the rankings."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--images", default="mnist.npz", help="of Keras form")
  parser.add_argument("--workdir", required=True, help="a finished run")
  parser.add_argument("--folder", default="foreign_networks", help="of files")
  parser.add_argument("--count", type=int, default=60, help="networks to make")
  parser.add_argument("--seed", type=int, default=0, help="of the networks")
  parser.add_argument("--out", default="", help="JSON file for the results")
  args = parser.parse_args()
  folder = pathlib.Path(args.folder)
  if not (folder / "accuracies.json").exists():
    make(folder, args.images, args.count, args.seed)
  truth = json.loads((folder / "accuracies.json").read_text())
  predictor = predictor_lib.Predictor.load(args.workdir)
  by_format = {s: judge(folder, predictor, s) for s in (".pt", ".safetensors")}
  one, other = by_format.values()
  apart = max(abs(one[name] - other[name]) for name in truth)
  y = np.array([truth[name] for name in sorted(truth)])
  predicted = np.array([one[name] for name in sorted(truth)])
  scores = metrics.evaluate(y, predicted, ("kendall_tau", "r_squared", "mae"))
  print(f"{len(y)} networks, accuracy {y.min():.3f} to {y.max():.3f}")
  for name, row in scores.items():
    low, high = row["low"], row["high"]
    print(f"{name}: {row['value']:.3f} [{low:.3f}, {high:.3f}]")
  print(f".pt and .safetensors differ by at most {apart:.2g}")
  if args.out:
    content = {"networks": len(y), "metrics": scores, "apart": apart}
    content |= {"truth": truth, "predicted": one}
    results.write(args.out, content)


if __name__ == "__main__":
  main()
