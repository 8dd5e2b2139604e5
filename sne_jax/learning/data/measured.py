"""Networks that a model is measured by: with the targets that it predicts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from sne_jax.learning.data.dataset import Networks


def with_targets(
  networks: Any, targets: Sequence[str], classes: Sequence[str]
) -> Networks:
  """Returns networks with the targets of a model, to measure it by them.

  Args:
    networks: `Networks`.
    targets: names of what the model predicts.
    classes: names of its classes; empty: it predicts numbers.

  Raises:
    ValueError: there are no targets, or others.
  """
  if not isinstance(networks, Networks) or not networks.targets.shape[1]:
    raise ValueError(
      "evaluate compares predictions with targets, and got"
      f" {type(networks).__name__} without any; give Networks with the"
      f" targets {', '.join(targets)} (Networks.of, Networks.from_files)"
    )
  if networks.targets.shape[1] != len(targets):
    raise ValueError(
      f"the networks have {networks.targets.shape[1]} targets, and this model"
      f" predicts {len(targets)}: {', '.join(targets)}; give these"
    )
  if networks.target_names and networks.target_names != tuple(targets):
    raise ValueError(
      f"the targets of the networks are {', '.join(networks.target_names)},"
      f" and this model predicts {', '.join(targets)}; choose these"
      " columns, in this order"
    )
  if classes:
    networks = networks.classified(classes)
  elif networks.targets.dtype.kind == "U":
    raise ValueError(
      f"the target {networks.labels[0]!r} is text, and this model predicts"
      " numbers"
    )
  return dataclasses.replace(networks, target_names=tuple(targets))
