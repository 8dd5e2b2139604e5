"""Networks per second through learned inputs, beside a PyTorch loop.

Each network runs on the same 128 inputs: forward alone, and a training step,
which is forward and backward, from a scalar loss to the gradients of the
inputs. Ours runs the networks together, PyTorch one after another, in turns in
one process. Before anything is timed, outputs and gradients of both must agree.
INRs are those of the quickstart, CNNs those of the zoo of digits (Arch1, 16 x
16), and of the mixed wild park (8 x 8: drawn depths, widths, kernels, skips).

    python benchmarks/probing.py --out=docs/results/probing.json

Then the training step of SNE that reads answers, over that which does not. The
first part needs PyTorch: `pip install -e '.[torch]'`.
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import machine, results, shapes
from sne_jax.encoders import table
from sne_jax.encoders.responses import running
from sne_jax.learning.training import parallel

AGREE = 1e-5
"""How far outputs may differ, relative to the largest of them where above 1."""


AGREE_GRADIENTS = 1e-3
"""How far gradients may differ, as a share of their norm."""


NETWORKS = {"inr": 480, "arch1": 120, "wild_park": 160}
"""Of each case; fewer INRs would measure the overhead of a call."""

CASES = (*NETWORKS, "sne")

COLUMNS = {
  **{"networks/s": ("part", ""), "compile s": ("compile_seconds", ".1f")},
  **{"sne_jax": ("ours", ".0f"), "fastest": ("our_fastest", ".0f")},
  **{"PyTorch": ("theirs", ".0f"), "its fastest": ("their_fastest", ".0f")},
  **{"ratio": ("ratio", ".1f"), "least": ("least", ".1f")},
  "most": ("most", ".1f"),
}
"""Of the tables: title, value and its format."""

STEP_COLUMNS = {
  **{"responses": ("responses", ""), "compile s": ("compile_seconds", ".1f")},
  **{"s/step": ("seconds", ".3f"), "fastest": ("fastest", ".3f")},
  "over none": ("over_none", ".2f"),
}


class Ours:
  """All networks of a park together, as encoders that read answers run them.

  As in training with `--devices`, each device has an equal part of them.

  Attributes:
    forward: from `(inputs, batch)` to outputs, by program `[D, N, K, O]`.
    step: from the same to the gradients of the inputs.
  """

  def __init__(self, networks: shapes.Park):
    """Packs the networks; nothing is compiled yet."""
    mesh = parallel.make_mesh()
    row = table.ENCODERS["probe_gen"]
    measured = row.measure(row.options(), [(networks.specs[0], None)])
    packer = row.build(row.options(), measured).make_packer(networks.specs)
    # Of each architecture every device has as many.
    order = np.arange(len(networks.numbers)).reshape(-1, mesh.size).T
    parts = [
      packer.pack(networks.numbers[own], [networks.weights[n] for n in own])
      for own in order
    ]
    stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *parts)
    self._order = order
    self._batch = parallel.shard(stacked, mesh)
    self._inputs = parallel.replicate(jnp.asarray(networks.inputs), mesh)
    own, every = jax.P(parallel.AXIS), jax.P()

    def spread(function, out):
      local = lambda x, batch: function(x, jax.tree.map(lambda a: a[0], batch))
      specs = {"in_specs": (every, own), "out_specs": out}
      return jax.jit(jax.shard_map(local, mesh=mesh, check_vma=False, **specs))

    self.forward = spread(_forward, own)
    self._rows = spread(_rows, own)
    self.step = spread(_gradient, every)

  @property
  def arguments(self) -> tuple[Any, Any]:
    """What both are called with."""
    return self._inputs, self._batch

  def outputs(self) -> dict[int, np.ndarray]:
    """Returns the outputs of each network, `[K, O]`."""
    outputs = self.forward(*self.arguments)
    rows = self._rows(*self.arguments)
    found = {}
    for values, (network, real) in zip(outputs, rows, strict=True):
      for device, row in zip(*np.nonzero(np.asarray(real)), strict=True):
        place = self._order[device][int(network[device, row])]
        found[int(place)] = np.asarray(values[device, row])
    return found


def _answers(inputs, batch):
  each = running.each(batch, lambda shape, is_signal: inputs, grid=0)
  return [(columns, answers.outputs) for _, columns, answers in each]


def _forward(inputs, batch):
  return [outputs[None] for _, outputs in _answers(inputs, batch)]


def _rows(inputs, batch):
  """Returns each program's networks, and which are no padding."""
  return [
    (columns["network"][None], columns["real"][None])
    for columns, _ in _answers(inputs, batch)
  ]


def _gradient(inputs, batch):
  return jax.lax.psum(jax.grad(_loss)(inputs, batch), parallel.AXIS)


def _loss(inputs, batch):
  """The sum over networks of the mean square of their outputs."""
  total = 0.0
  for columns, outputs in _answers(inputs, batch):
    square = jnp.mean(outputs**2, axis=(1, 2))
    total += jnp.sum(jnp.where(columns["real"], square, 0))
  return total


class Theirs:
  """The networks of a park in PyTorch, one after another.

  Tensors are made beforehand, so that only the running is timed.
  """

  def __init__(self, networks: shapes.Park):
    """Copies weights and inputs.

    Raises:
      ImportError: PyTorch is not there.
    """
    import torch

    self._torch = torch
    self._inputs = torch.from_numpy(networks.inputs.copy())
    self._networks = []
    for number, vector in zip(networks.numbers, networks.weights, strict=True):
      spec = networks.specs[number]
      tensors = {
        name: torch.from_numpy(np.array(value))
        for name, value in spec.unflatten(vector).items()
      }
      run = self._signal if spec.family == "inr" else self._classifier
      self._networks.append(run(spec, tensors))

  def forward(self) -> list[Any]:
    """Runs all networks; returns the outputs of each, `[K, O]`."""
    with self._torch.inference_mode():
      return [run(self._inputs) for run in self._networks]

  def step(self) -> Any:
    """Returns the gradients of the inputs, summed over networks."""
    x = self._inputs.clone().requires_grad_()
    for run in self._networks:
      run(x).square().mean().backward()
    return x.grad

  def _signal(self, spec, tensors):
    options = dict(spec.options)
    layers = [
      (tensors[f"layer{level}.weight"], tensors[f"layer{level}.bias"])
      for level in range(spec.num_levels)
    ]
    torch, linear = self._torch, self._torch.nn.functional.linear
    w0, offset = options["w0"], options["output_offset"]

    def run(x):
      for weight, bias in layers[:-1]:
        x = torch.sin(w0 * linear(x, weight, bias))
      return linear(x, *layers[-1]) + offset

    return run

  def _classifier(self, spec, tensors):
    options = dict(spec.options)
    functional = self._torch.nn.functional
    activations = {
      "relu": functional.relu,
      "gelu": functional.gelu,
      "tanh": self._torch.tanh,
      "sigmoid": self._torch.sigmoid,
      "leaky_relu": functional.leaky_relu,
      "none": lambda x: x,
    }
    sources = {target: source for source, target in spec.skips}
    layers = [
      (
        tensors[f"conv{level}.weight"],
        tensors[f"conv{level}.bias"],
        *(options["strides"][level], options["paddings"][level]),
        activations[spec.activations[level]],
        sources.get(level),
      )
      for level in range(len(options["strides"]))
    ]
    dense = tensors["dense0.weight"], tensors["dense0.bias"]

    def run(x):
      kept = []
      for weight, bias, stride, padding, activate, source in layers:
        x = functional.conv2d(x, weight, bias, stride, padding)
        if source is not None:
          more = kept[source][:, : x.shape[1]]
          missing = x.shape[1] - more.shape[1]
          x = x + functional.pad(more, (0, 0, 0, 0, 0, missing))
        x = activate(x)
        kept.append(x)
      return functional.linear(x.mean(dim=(2, 3)), *dense)

    return run


def check(ours: Ours, theirs: Theirs) -> float:
  """Returns how far outputs of both differ at most.

  Raises:
    ValueError: by more than `AGREE`, or the gradients do by more than 1e-3 of
      their largest.
  """
  mine, worst = ours.outputs(), 0.0
  for number, values in enumerate(theirs.forward()):
    values = values.numpy()
    size = max(1.0, float(np.abs(values).max()))
    worst = max(worst, float(np.abs(mine[number] - values).max()) / size)
  if not worst <= AGREE:
    raise ValueError(
      f"outputs differ by {worst:.2g}, more than {AGREE:g}: not the same"
      " networks"
    )
  wanted = theirs.step().numpy()
  found = np.asarray(ours.step(*ours.arguments))
  # A kink that rounding passes changes one number by much: the norm is asked.
  off = float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
  if not off <= AGREE_GRADIENTS:
    raise ValueError(
      f"gradients differ by {off:.2g} of their norm, more than"
      f" {AGREE_GRADIENTS:g}"
    )
  return worst


def compare(
  networks: shapes.Park, turns: int, seconds: float
) -> dict[str, Any]:
  """Measures both, in turns.

  Args:
    networks: what is run.
    turns: of each, at least 1.
    seconds: that a turn takes about.

  Returns:
    How far outputs differ, and for `forward` and `step`: compile seconds, both
    speeds of each turn, in networks per second, and the ratios.
  """
  ours, theirs = Ours(networks), Theirs(networks)
  timings = {  # Before anything else compiles them.
    part: machine.timed(getattr(ours, part), *ours.arguments, repeats=1)
    for part in ("forward", "step")
  }
  row: dict[str, Any] = {"difference": check(ours, theirs)}
  count = len(networks.numbers)
  for part in ("forward", "step"):
    timing = timings[part]
    mine = lambda run=timing.compiled: jax.block_until_ready(
      run(*ours.arguments)
    )
    other = getattr(theirs, part)
    found = results.in_turns(
      results.block(mine, count, seconds),
      results.block(other, count, seconds),
      turns,
    )
    row[part] = {
      "part": part,
      "compile_seconds": timing.compile_seconds,
      "networks_per_second": {"sne_jax": found.ours, "torch": found.theirs},
      "ours": found.medians[0],
      "theirs": found.medians[1],
      "our_fastest": max(found.ours),
      "their_fastest": max(found.theirs),
      "ratio": statistics.median(found.ratios),
      "least": found.ratios[0],
      "most": found.ratios[-1],
    }
  return row


def sne_steps(turns: int, batch: int = 32) -> list[dict[str, Any]]:
  """Measures SNE's training step by what it reads of answers, in turns.

  As in experiments/flags/shared/cnn_accuracy.flags, on Arch1 CNNs, with the
  default number of inputs.

  Args:
    turns: of each, at least 1.
    batch: networks of a step.

  Returns:
    A row for each of `shapes.READS`, the first of which reads none.
  """
  steps, compiled, seconds, compile_seconds = [], [], [], []
  for case in shapes.reading_cases(batch):
    step = shapes.Step(case)
    start = time.perf_counter()
    lowered = step.update.lower(step.state, step.batch)
    compiled.append(lowered.compile())
    compile_seconds.append(time.perf_counter() - start)
    steps.append(step)
    seconds.append([])
  for _ in range(turns + 1):
    for step, run, found in zip(steps, compiled, seconds, strict=True):
      start = time.perf_counter()
      step.state, _ = jax.block_until_ready(run(step.state, step.batch))
      found.append(time.perf_counter() - start)
  seconds = [found[1:] for found in seconds]  # The first one warms up.
  return [
    {
      "responses": reads,
      "seconds": statistics.median(found),
      "fastest": min(found),
      "compile_seconds": compiling,
      "over_none": statistics.median(
        a / b for a, b in zip(found, seconds[0], strict=True)
      ),
    }
    for reads, found, compiling in zip(
      shapes.READS, seconds, compile_seconds, strict=True
    )
  ]


def main(arguments: Sequence[str] | None = None) -> None:
  """Measures what the command line asks for, and prints it."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--only", default=",".join(CASES), help="cases, sne too")
  parser.add_argument("--networks", type=int, default=0, help="of each case")
  parser.add_argument("--inputs", type=int, default=128, help="of each")
  parser.add_argument("--turns", type=int, default=7, help="of each side")
  parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
  parser.add_argument(
    "--cpu_devices", type=int, default=0, help="0: one for each core"
  )
  parser.add_argument("--out", help="JSON file")
  given = parser.parse_args(arguments)
  chosen = given.only.split(",")
  if unknown := set(chosen) - set(CASES):
    parser.error(
      f"--only has {', '.join(sorted(unknown))}; there are {', '.join(CASES)}"
    )
  jax.config.update(
    "jax_num_cpu_devices", given.cpu_devices or os.cpu_count() or 1
  )
  print(f"device: {machine.device_name()}", flush=True)
  content = results.head() | {"options": vars(given)}
  content["load"] = os.getloadavg()[0]
  content["peak_gflops"] = machine.matmul_peak()
  content["cases"] = {}
  for name in chosen:
    if name == "sne":
      content["sne_steps"] = sne_steps(given.turns)
      print(results.table(content["sne_steps"], STEP_COLUMNS), flush=True)
      continue
    count = given.networks or NETWORKS[name]
    networks = shapes.park(name, count, given.inputs)
    row = compare(networks, given.turns, given.seconds)
    content["cases"][name] = row
    print(f"{name}: outputs differ by {row['difference']:.1g} at most")
    print(results.table([row["forward"], row["step"]], COLUMNS), flush=True)
  if given.out:
    results.write(given.out, content)


if __name__ == "__main__":
  main()
