"""NP and HNP training steps: ours, compiled, beside the authors' PyTorch code.

Both run the same network at the same sizes in one process, one after the
other: three equivariant layers, pooling and a perceptron; a step is forward,
backward and Adam. The authors' layers are those of the PyPI package `nfn`,
untouched. Ours takes a batch in micro-batches, as `--micro_batches` of an
experiment does: the same gradient, in arrays that stay in the cache. Times are
the medians of several blocks of steps, taken in turns.

    python benchmarks/encoders.py --steps 10 --blocks 5 --out encoders.json

Dimensions: `B` networks of a batch, `P` weights of each.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import nfn_peer, results
from sne_jax.encoders.functionals import feature_layers, features, nfn_linear
from sne_jax.learning.training import parallel
from sne_jax.networks import families

KINDS = ("np", "hnp")


def our_step(
  kind: str,
  widths: tuple[int, ...],
  batch: int,
  channels: int,
  head: int,
  micro_batches: int = 1,
) -> tuple[Callable[[], Any], int]:
  """Returns a compiled training step of ours, and its number of parameters."""
  import flax.linen as nn

  spec = families.inr(widths)
  layout = features.layout_of(spec, kind, least=2)

  class Model(nn.Module):
    @nn.compact
    def __call__(self, rows):
      x = layout.features(rows)
      for number in range(3):
        if kind == "np":
          layer = nfn_linear.NPLinear(layout, channels, name=f"layer_{number}")
        else:
          layer = nfn_linear.HNPLinear(
            layout, channels, complete=False, name=f"layer_{number}"
          )
        x = jax.tree.map(nn.relu, layer(x))
      code = feature_layers.hnp_pool(layout, x).reshape(len(rows), -1)
      hidden = nn.relu(nn.Dense(head, name="hidden")(code))
      return nn.Dense(1, name="out")(hidden)[:, 0]

  rng = np.random.default_rng(0)
  rows = jnp.asarray(rng.standard_normal((batch, spec.num_weights)), "float32")
  targets = jnp.asarray(rng.standard_normal(batch), "float32")
  model, tx = Model(), optax.adam(1e-3)
  params = jax.jit(model.init)(jax.random.key(0), rows)
  state = [params, jax.jit(tx.init)(params)]
  given = [x.reshape(micro_batches, -1, *x.shape[1:]) for x in (rows, targets)]

  def loss_fn(params, given, key):
    del key
    rows, targets = given
    return jnp.mean((model.apply(params, rows) - targets) ** 2), {}

  grad_fn = parallel.value_and_grad(loss_fn, parallel.make_mesh(1))

  @jax.jit
  def update(params, opt_state, given):
    (value, _), slopes = grad_fn(params, given, jax.random.key(0))
    updates, opt_state = tx.update(slopes, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, value

  def step():
    *state[:], value = update(*state, given)
    return jax.block_until_ready(value)

  return step, sum(x.size for x in jax.tree.leaves(params))


def their_step(
  kind: str, widths: tuple[int, ...], batch: int, channels: int, head: int
) -> tuple[Callable[[], Any], int]:
  """Returns a training step of the authors' code, and its parameters."""
  torch = nfn_peer.import_torch()
  options = nfn_peer.PeerOptions(channels=channels, head_dim=head)
  model = nfn_peer.build(options, widths, kind)
  size = families.inr(widths).num_weights
  x, targets = torch.randn(batch, size), torch.randn(batch)
  optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

  def step():
    loss = torch.nn.functional.mse_loss(model(x), targets)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()

  return step, sum(p.numel() for p in model.parameters())


def compare(options: argparse.Namespace) -> list[dict[str, Any]]:
  """Measures both codes on every kind of layer, block by block in turns."""
  rows = []
  for kind in options.kinds.split(","):
    widths = tuple(int(n) for n in options.widths.split(","))
    sizes = (widths, options.batch, options.channels, options.head)
    ours, our_params = our_step(kind, *sizes, options.micro_batches)
    theirs, their_params = their_step(kind, *sizes)
    if our_params != their_params:
      raise ValueError(
        f"{kind}: {our_params} parameters of ours, {their_params} of theirs"
      )

    def block(step):
      for _ in range(options.steps):
        step()
      return options.batch * options.steps

    for step in (ours, theirs):  # Compiles; fills caches.
      step()
      step()
    turns = results.in_turns(
      lambda step=ours: block(step),
      lambda step=theirs: block(step),
      options.blocks,
    )
    our_speed, their_speed = turns.medians
    rows.append(
      {
        "kind": kind,
        "widths": widths,
        "batch": options.batch,
        "micro_batches": options.micro_batches,
        "channels": options.channels,
        "params": our_params,
        "our_ms": 1e3 * options.batch / our_speed,
        "their_ms": 1e3 * options.batch / their_speed,
        "our_networks_per_second": our_speed,
        "their_networks_per_second": their_speed,
        "ratio": statistics.median(turns.ratios),
        "ratio_low": turns.ratios[0],
        "ratio_high": turns.ratios[-1],
      }
    )
  return rows


def main() -> None:
  """Prints a table, and writes it with `--out`."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--kinds", default=",".join(KINDS))
  parser.add_argument("--widths", default="1,32,32,1", help="of the INRs")
  parser.add_argument("--batch", type=int, default=64)
  parser.add_argument("--channels", type=int, default=32)
  parser.add_argument("--head", type=int, default=256)
  parser.add_argument(
    "--micro_batches", type=int, default=4, help="of ours; 1: the whole batch"
  )
  parser.add_argument("--steps", type=int, default=10, help="of a block")
  parser.add_argument("--blocks", type=int, default=7)
  parser.add_argument("--out", default="", help="JSON file")
  options = parser.parse_args()
  try:
    rows = compare(options)
  except ImportError as error:
    sys.exit(str(error))
  for row in rows:
    low, high = row["ratio_low"], row["ratio_high"]
    print(
      f"{row['kind']:4s} {row['params']} parameters: ours"
      f" {row['our_ms']:.1f} ms, theirs {row['their_ms']:.1f} ms a step;"
      f" {row['ratio']:.2f} times as fast [{low:.2f}, {high:.2f}]"
    )
  if options.out:
    load = os.getloadavg()[0]
    results.write(options.out, results.head() | {"rows": rows, "load": load})


if __name__ == "__main__":
  main()
