"""Phases of sine neurons, folded to the half turn around 0.

A sine neuron whose phase is moved by half turns, its readers changing sign
where their number is odd, is the same neuron. People begin training with
biases of many turns (`nn.Linear` does) or of none; folded, they differ no more
than their functions do. What is folded is the same function, up to rounding.

Dimensions: `P` weights of a network, `G` neurons of a group.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from sne_jax.networks import augment
from sne_jax.networks import spec as spec_lib


def fold(spec: spec_lib.NetworkSpec, weights: Any, xp: ModuleType = np) -> Any:
  """Returns the weights `[P]` with every phase within a quarter turn of 0.

  Args:
    spec: of the network; without sine neurons nothing changes.
    weights: of it.
    xp: array module of the weights (numpy or jax.numpy). The result can be
      differentiated, between the folds.
  """
  groups = augment.shift_groups(spec)
  if not groups:
    return weights
  half_turn = math.pi / dict(spec.options).get("w0", 1.0)
  makers = augment.makers_of(spec)
  tensors = spec.unflatten(weights)
  parities = {}
  for group in groups:
    maker = makers[group].name
    biases = [t.name for t in spec.tensors if t.of == maker]
    phase = sum(tensors[name] for name in biases)
    turns = xp.round(phase / half_turn)
    tensors[biases[0]] = tensors[biases[0]] - turns * half_turn
    parities[group] = 1.0 - 2.0 * xp.abs(xp.mod(turns, 2.0))
  moved = spec.flatten(tensors, xp)
  return (moved * augment.factor_of(spec, {}, parities, xp)).astype(xp.float32)


def measure(specs: Iterable[spec_lib.NetworkSpec]) -> dict[str, float]:
  """Returns `w0` of networks whose phases fold, by digest of their anatomy."""
  return {
    spec.anatomy.digest: float(dict(spec.options).get("w0", 1.0))
    for spec in specs
    if augment.shift_groups(spec)
  }


def understood(
  spec: spec_lib.NetworkSpec, known: Mapping[str, float]
) -> spec_lib.NetworkSpec:
  """Returns the spec of a file as a training says that it is run.

  A file says no activation. One of the anatomy of networks of the training is
  taken for one of these: sines, of their `w0`.

  Args:
    spec: of any network; one that says its activations is left as it is.
    known: of `measure`.
  """
  w0 = known.get(spec.anatomy.digest)
  if w0 is None or augment.is_known(spec):
    return spec
  options = dict(spec.options) | {"w0": w0}
  read = dataclasses.replace(spec, options=tuple(sorted(options.items())))
  return augment.assumed(read, "sine")
