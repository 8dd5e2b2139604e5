"""Fits networks in plain PyTorch, as strangers that no zoo of ours has made.

Layers, initialisation, optimisers and `state_dict` files are PyTorch's own;
none of this library's code has a part in the networks. Makers:

- `sines`: INRs 1-32-32-1 of `sin(30 x)` layers whose weights are drawn as
  implementations of SIREN in PyTorch draw them, and whose biases are those of
  `nn.Linear`: uniform, not zero.
- `sines_first`: the same, with the first weights of Sitzmann et al., U(-1, 1).
- `sines_default`: everything as `nn.Linear` draws it. At `w0 = 30` such a
  network is chaotic, and learns its points rather than the wave between them.
- `digits`: convolutional classifiers of the architecture arch1 on digits.

    python -m benchmarks.strangers.pytorch --maker=sines --out=strangers/sines

`--out` gets a file .pt for each network and labels.csv. PyTorch is needed:
`pip install -e '.[torch]'`.
"""

import argparse
import csv
import math
import pathlib
from typing import Any

import numpy as np

W0 = 30.0
HIDDEN = 32
STEPS = 1000
RATE = 1e-3
BATCH = 64
MAKERS = ("sines", "sines_first", "sines_default", "digits")


def inr(maker: str) -> Any:
  """Returns a fresh sine network of one of the three makers."""
  import torch
  from torch import nn

  class Inr(nn.Module):
    """Two layers of sines and a linear one."""

    def __init__(self):
      super().__init__()
      self.layer0 = nn.Linear(1, HIDDEN)
      self.layer1 = nn.Linear(HIDDEN, HIDDEN)
      self.layer2 = nn.Linear(HIDDEN, 1)
      if maker == "sines_default":
        return
      hidden = math.sqrt(6 / HIDDEN) / W0
      first = 1.0 if maker == "sines_first" else math.sqrt(6) / W0
      nn.init.uniform_(self.layer0.weight, -first, first)
      nn.init.uniform_(self.layer1.weight, -hidden, hidden)

    def forward(self, x):
      x = torch.sin(W0 * self.layer0(x))
      return self.layer2(torch.sin(W0 * self.layer1(x)))

  return Inr()


def fit_sines(maker: str, count: int, points: int) -> tuple[list, np.ndarray]:
  """Returns the state_dicts of networks, and the frequency of each."""
  import torch
  from torch.func import functional_call, vmap

  models = [inr(maker) for _ in range(count)]
  params = {
    name: torch.stack([dict(m.named_parameters())[name] for m in models])
    for name, _ in models[0].named_parameters()
  }
  params = {k: v.detach().requires_grad_() for k, v in params.items()}
  x = torch.linspace(-math.pi, math.pi, points + 1)[:-1, None]
  frequency = torch.empty(count).uniform_(0.5, 10)
  wanted = torch.sin(frequency[:, None] * x[None, :, 0])
  run = vmap(lambda one: functional_call(models[0], one, (x,))[:, 0])
  optimizer = torch.optim.Adam(params.values(), RATE)
  for _ in range(STEPS):
    optimizer.zero_grad()
    ((run(params) - wanted) ** 2).mean(dim=1).sum().backward()
    optimizer.step()
  error = ((run(params) - wanted) ** 2).mean(dim=1).detach()
  print(f"{maker}: median error {error.median():.2g}")  # noqa: T201
  states = [
    {name: value[n].detach().clone() for name, value in params.items()}
    for n in range(count)
  ]
  return states, frequency.numpy()


def conv_net() -> Any:
  """Returns the architecture arch1, as PyTorch initialises it."""
  from torch import nn

  layers = []
  for into in (1, 16, 16):
    layers += [nn.Conv2d(into, 16, 3, stride=2), nn.ReLU()]
  pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
  return nn.Sequential(*layers, *pool, nn.Linear(16, 10))


def fit_digits(count: int, seed: int) -> tuple[list, np.ndarray]:
  """Returns the state_dicts of classifiers, and the test accuracy of each."""
  import torch
  from torch import nn

  from sne_jax.zoo.classifiers import images

  data = images.load_images(
    images.ImageOptions(image_size=16, train_images=1000)
  )
  x, tested = (
    torch.tensor(part, dtype=torch.float32) / 127.5 - 1
    for part in (data.x_train, data.x_test)
  )
  y = torch.tensor(data.y_train, dtype=torch.int64)
  rng = np.random.default_rng(seed)
  states, accuracy = [], []
  for _ in range(count):
    model = conv_net()
    rate = math.exp(rng.uniform(math.log(3e-4), math.log(2e-2)))
    kind = ("Adam", "AdamW", "SGD")[rng.integers(3)]
    if kind == "SGD":
      options: dict[str, Any] = {"lr": 5 * rate, "momentum": 0.9}
    else:
      options = {"lr": rate}
    optimizer = getattr(torch.optim, kind)(model.parameters(), **options)
    for _ in range(int(rng.integers(1, 16))):
      for rows in torch.randperm(len(x)).split(BATCH):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    with torch.no_grad():
      guess = model(tested).argmax(dim=1).numpy()
    accuracy.append(float((guess == data.y_test).mean()))
    states.append(model.state_dict())
  return states, np.array(accuracy)


def main() -> None:
  """Fits the networks of a maker and writes their files."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--maker", choices=MAKERS, required=True)
  parser.add_argument("--out", type=pathlib.Path, required=True)
  parser.add_argument("--count", type=int, default=300)
  parser.add_argument("--points", type=int, default=256)
  parser.add_argument("--seed", type=int, default=0)
  args = parser.parse_args()
  import torch

  torch.manual_seed(args.seed)
  if args.maker == "digits":
    name, (states, labels) = "test_accuracy", fit_digits(args.count, args.seed)
  else:
    name = "frequency"
    states, labels = fit_sines(args.maker, args.count, args.points)
  args.out.mkdir(parents=True, exist_ok=True)
  with (args.out / "labels.csv").open("w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["file", name])
    for n, (state, label) in enumerate(zip(states, labels, strict=True)):
      torch.save(state, args.out / f"{n:04d}.pt")
      rows.writerow([f"{n:04d}.pt", f"{label:.8g}"])


if __name__ == "__main__":
  main()
