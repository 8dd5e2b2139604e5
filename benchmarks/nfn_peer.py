"""The peer of `time_to_accuracy`: NFN-HNP, in PyTorch, on the same networks.

The layers are those of the PyPI package `nfn` (Zhou et al., Permutation
Equivariant Neural Functionals, NeurIPS 2023, arXiv:2302.14040), untouched:
three hidden-neuron-permutation layers of 32 channels, its invariant pooling
and an MLP, trained with Adam on a one-cycle schedule. PyTorch is imported only
when the peer is built; `sne_jax` never imports it.

Dimensions: `N` networks, `P` weights of each, `B` networks of a batch.
"""

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sne_jax.networks.checked import Checked, option

WIDTHS = (1, 32, 32, 1)
"""Units per layer of the networks that are read: a sine INR of one input."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeerOptions(Checked):
  """How the peer is built and trained."""

  # Passes over the training rows, which the schedule spans.
  epochs: int = option(40, least=1)
  batch_size: int = option(64, least=1)  # Networks per step.
  learning_rate: float = option(1e-3, above=0)  # Peak of the schedule.
  channels: int = option(32, least=1)  # Of each of the equivariant layers.
  depth: int = option(3, least=1)  # Equivariant layers.
  head_dim: int = option(256, least=1)  # Of the MLP after the pooling.
  seed: int = 0  # Of the initial parameters and the order of the batches.


class PeerResult(NamedTuple):
  """What a training of the peer gave.

  Attributes:
    curve: for each epoch, the seconds of training up to its end (validation
      left out) and the validation MSE there.
    test_mse: MSE on the test rows at the end, in squared units of the target.
    num_params: trained parameters of the peer.
    networks_per_second: training networks per second, over all epochs.
  """

  curve: list[tuple[float, float]]
  test_mse: float
  num_params: int
  networks_per_second: float


def train(
  weights: np.ndarray,
  targets: np.ndarray,
  *,
  train_rows: np.ndarray,
  val_rows: np.ndarray,
  test_rows: np.ndarray,
  options: PeerOptions | None = None,
) -> PeerResult:
  """Trains the peer and measures it.

  Inputs are standardised per tensor and targets as a whole, by mean and
  standard deviation of the training rows; errors are in the targets' units.

  Shapes: `N` networks, `P = 1153` weights.

  Args:
    weights: `[N, P]`, each row W1 [32, 1], b1, W2 [32, 32], b2, W3 [1, 32],
      b3, every tensor row-major.
    targets: `[N]`.
    train_rows: integer rows that are learned from.
    val_rows: rows of the curve.
    test_rows: rows of `test_mse`.
    options: the `PeerOptions`; the defaults if None.

  Returns:
    The `PeerResult`.

  Raises:
    ValueError: networks of another architecture, or too few training rows for
      one batch.
    ImportError: PyTorch or `nfn` is missing; the message says what to install.
  """
  options = options or PeerOptions()
  num_weights = sum(map(math.prod, _shapes()))
  if weights.shape[1:] != (num_weights,):
    raise ValueError(
      f"weights of shape {weights.shape} are not [N, {num_weights}]: the peer"
      f" reads INRs of widths {WIDTHS}"
    )
  if len(train_rows) < options.batch_size:
    raise ValueError(
      f"{len(train_rows)} training rows make no batch of {options.batch_size}"
    )
  torch = import_torch()
  torch.manual_seed(options.seed)

  mean, std = _tensor_moments(weights[train_rows])
  inputs = torch.as_tensor((weights - mean) / std, dtype=torch.float32)
  center = float(targets[train_rows].mean())
  scale = float(targets[train_rows].std()) or 1.0
  outputs = torch.as_tensor((targets - center) / scale, dtype=torch.float32)
  train_set, val_set, test_set = (
    (inputs[rows], outputs[rows])
    for rows in map(torch.as_tensor, (train_rows, val_rows, test_rows))
  )

  model = build(options)
  steps = len(train_rows) // options.batch_size
  optimizer = torch.optim.Adam(model.parameters(), lr=options.learning_rate)
  schedule = torch.optim.lr_scheduler.OneCycleLR(
    optimizer,
    max_lr=options.learning_rate,
    total_steps=steps * options.epochs,
  )

  curve, seconds = [], 0.0
  for epoch in range(options.epochs):
    start = time.perf_counter()
    _train_epoch(model, optimizer, schedule, train_set, options.batch_size)
    seconds += time.perf_counter() - start
    val_mse = _mse(model, *val_set) * scale**2
    if not math.isfinite(val_mse):
      raise FloatingPointError(
        f"validation MSE is {val_mse} after epoch {epoch + 1}; lower"
        f" learning_rate, now {options.learning_rate}"
      )
    curve.append((seconds, val_mse))
  return PeerResult(
    curve=curve,
    test_mse=_mse(model, *test_set) * scale**2,
    num_params=sum(p.numel() for p in model.parameters()),
    networks_per_second=steps
    * options.batch_size
    * options.epochs
    / max(seconds, 1e-9),
  )


def build(
  options: PeerOptions, widths: Sequence[int] = WIDTHS, kind: str = "hnp"
) -> Any:
  """Returns the peer, a `torch.nn.Module` that maps `[B, P]` to `[B]`.

  Args:
    options: of its layers.
    widths: of the networks that it reads.
    kind: of its layers: np, or hnp.
  """
  torch = import_torch()
  from nfn import common, layers

  nn = torch.nn
  shapes = _shapes(widths)
  spec = common.NetworkSpec(
    *(
      [common.ArraySpec(s) for s in some]
      for some in (shapes[::2], shapes[1::2])
    )
  )

  class Unflatten(nn.Module):
    """Cuts `[B, P]` into weights `[B, 1, out, in]` and biases `[B, 1, out]`."""

    def forward(self, flat):
      parts = flat.split([math.prod(shape) for shape in shapes], dim=1)
      tensors = [
        part.reshape(-1, 1, *shape)
        for part, shape in zip(parts, shapes, strict=True)
      ]
      return common.WeightSpaceFeatures(tensors[0::2], tensors[1::2])

  layer = {"np": layers.NPLinear, "hnp": layers.HNPLinear}[kind]
  equivariant = []
  for place in range(options.depth):
    in_channels = options.channels if place else 1
    equivariant += [
      layer(spec, in_channels, options.channels),
      layers.TupleOp(nn.ReLU()),
    ]
  return nn.Sequential(
    Unflatten(),
    *equivariant,
    layers.HNPPool(spec),
    nn.Flatten(),
    nn.Linear(
      options.channels * layers.HNPPool.get_num_outs(spec), options.head_dim
    ),
    nn.ReLU(),
    nn.Linear(options.head_dim, 1),
    nn.Flatten(0),
  )


def _train_epoch(model, optimizer, schedule, data, batch_size) -> None:
  """One pass over the data in random order; the last, short batch is left."""
  torch = import_torch()
  inputs, outputs = data
  order = torch.randperm(len(inputs))
  model.train()
  for first in range(0, len(order) - batch_size + 1, batch_size):
    rows = order[first : first + batch_size]
    loss = torch.nn.functional.mse_loss(model(inputs[rows]), outputs[rows])
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    schedule.step()


def _mse(model, inputs, outputs) -> float:
  """Mean squared error over a whole split."""
  torch = import_torch()
  model.eval()
  with torch.no_grad():
    parts = [model(part) for part in inputs.split(256)]
    return torch.nn.functional.mse_loss(torch.cat(parts), outputs).item()


def _shapes(widths: Sequence[int] = WIDTHS) -> list[tuple[int, ...]]:
  """Shape of each tensor in the order of the vector: weight, bias, ..."""
  pairs = zip(widths[:-1], widths[1:], strict=True)
  return [shape for into, out in pairs for shape in ((out, into), (out,))]


def _tensor_moments(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation of each tensor, spread over its entries."""
  means, stds, start = [], [], 0
  for shape in _shapes():
    size = math.prod(shape)
    part = weights[:, start : start + size]
    means.append(np.full(size, part.mean()))
    stds.append(np.full(size, part.std() or 1.0))
    start += size
  return np.concatenate(means), np.concatenate(stds)


def import_torch() -> Any:
  """Returns PyTorch, or says in one line what to install."""
  try:
    import nfn  # noqa: F401
    import torch
  except ImportError as error:
    raise ImportError(
      f"the NFN peer needs {error.name}; install it with"
      " `pip install -e '.[torch]'`"
    ) from error
  return torch
