"""Zoo generation against a plain PyTorch loop, network-steps per second.

Both train the same networks of the small CNN zoo's architecture (16 channels,
3 x 3, stride 2, three times; average; linear) by Adam, on the same random
images, at the same batch sizes: ours as one population, PyTorch's one after
another. A network-step is one step of one network: taking a batch, forward,
backward, update. In one process, in turns; the medians count.

    python benchmarks/zoo_generation.py
    python benchmarks/zoo_generation.py --batches=128 --side=16 --out=zoo.json

PyTorch is needed: `pip install -e '.[torch]'`.
"""

import argparse
import os
from collections.abc import Callable, Sequence

import jax
import numpy as np

from benchmarks import foreign_networks, machine, results
from sne_jax.networks import families
from sne_jax.zoo.classifiers import fit
from sne_jax.zoo.store import partial

RATE = 1e-3


def ours(
  x: np.ndarray, y: np.ndarray, batch: int, networks: int
) -> Callable[[int], float]:
  """Returns what trains a population; it gives the network-steps taken.

  It is given the number of epochs of `x` `[N, side, side]` uint8.
  """
  side = x.shape[1]
  spec = families.architecture("arch1", (1, side, side))
  devices = tuple(jax.local_devices())
  epoch = fit.make_epoch_fn(
    spec,
    "adam",
    num_train=len(x),
    num_classes=10,
    batch_size=batch,
    dropout=False,
    devices=devices,
  )
  keys = fit.member_keys(0, np.arange(networks))
  hyper = fit.same_hyper(keys, len(x), learning_rate=RATE, init_std=1.0)
  view = fit.make_view_fn(len(x), 10)(hyper, y)
  state = fit.begin("adam", fit.draw(spec, "he_normal", hyper))
  state, hyper, view = partial.place((state, hyper, view), devices)
  data = fit.Data(jax.numpy.asarray(x.reshape(len(x), -1)), y)
  held = [epoch(state, hyper, view, data, np.int32(0))]  # compiles
  jax.block_until_ready(held)

  def run(epochs: int) -> float:
    for number in range(epochs):
      held[0] = epoch(held[0], hyper, view, data, np.int32(number))
    jax.block_until_ready(held)
    return epochs * networks * -(-len(x) // batch)

  return run


def theirs(x: np.ndarray, y: np.ndarray, batch: int) -> Callable[[int], float]:
  """Returns what trains one network in PyTorch, for a number of steps."""
  import torch

  images = torch.from_numpy(x.astype(np.float32) / 127.5 - 1.0)[:, None]
  labels = torch.from_numpy(y.astype(np.int64))
  model = foreign_networks.conv_net(torch.nn.ReLU)
  optimizer = torch.optim.Adam(model.parameters(), lr=RATE)

  def run(steps: int) -> float:
    order = torch.randperm(len(images))
    for step in range(steps):
      first = step * batch % (len(images) - batch)
      places = order[first : first + batch]
      loss = torch.nn.functional.cross_entropy(
        model(images[places]), labels[places]
      )
      optimizer.zero_grad()
      loss.backward()
      optimizer.step()
    return steps

  run(5)  # Warm.
  return run


def main(arguments: Sequence[str] | None = None) -> None:
  """Measures what the command line asks for, and prints it."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--batches", default="128,32", help="sizes of a batch")
  parser.add_argument("--side", type=int, default=28, help="of the images")
  parser.add_argument("--networks", type=int, default=16, help="together")
  parser.add_argument("--images", type=int, default=2560, help="to train on")
  parser.add_argument("--epochs", type=int, default=1, help="of each turn")
  parser.add_argument("--torch_steps", type=int, default=200, help="of a turn")
  parser.add_argument("--turns", type=int, default=3, help="of each side")
  parser.add_argument(
    "--cpu_devices", type=int, default=0, help="0: one for each core"
  )
  parser.add_argument("--out", help="JSON file")
  given = parser.parse_args(arguments)
  jax.config.update(
    "jax_num_cpu_devices", given.cpu_devices or os.cpu_count() or 1
  )
  rng = np.random.default_rng(0)
  x = rng.integers(0, 256, (given.images, given.side, given.side), np.uint8)
  y = rng.integers(0, 10, given.images).astype(np.int32)
  print(f"device: {machine.device_name()}", flush=True)
  rows = []
  for batch in map(int, given.batches.split(",")):
    our_run, their_run = ours(x, y, batch, given.networks), theirs(x, y, batch)
    turns = results.in_turns(
      lambda run=our_run: run(given.epochs),
      lambda run=their_run: run(given.torch_steps),
      given.turns,
    )
    mine, other = turns.medians
    rows.append(
      {
        "batch": batch,
        "found": {"sne_jax": turns.ours, "torch": turns.theirs},
        "ratio": mine / other,
      }
    )
    print(
      f"batch {batch}: sne_jax {mine:.0f} network-steps/s"
      f" ({min(turns.ours):.0f} to {max(turns.ours):.0f}), PyTorch"
      f" {other:.0f} ({min(turns.theirs):.0f} to {max(turns.theirs):.0f}):"
      f" {mine / other:.2f} times",
      flush=True,
    )
  if given.out:
    content = results.head() | {"options": vars(given), "rows": rows}
    results.write(given.out, content)


if __name__ == "__main__":
  main()
