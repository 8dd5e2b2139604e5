"""Set functions of sets of any size: small ones at once, large ones in blocks.

A set that fits one block is padded to one of a few sizes and encoded by the
stage's own module. A larger one stays on the host, in one array; every block
of the stack, and the pooling, goes over its members a block at a time: once to
gather what the whole set says (`sets.PARTS`), once to change the members by it.
Attention among the members themselves (`sab`) meets every block with every
block, so its time is quadratic; its memory is not.

Dimensions: `Q` members, `h` width of a member, `B` members of a block.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from sne_jax.encoders.sets import attention, deepsets, stacks
from sne_jax.encoders.sne import module as sne
from sne_jax.encoders.sne.options import SNEOptions

BLOCK = 2048
"""Members of a block; a larger set is never on the device at once."""

SIZES = (32, 256, BLOCK)
"""What smaller sets are padded to: one compilation each."""


def make_set_fn(
  options: SNEOptions, stage: str, *, block: int = BLOCK
) -> Callable[[Any, Shaped[np.ndarray, "Q h"]], np.ndarray]:
  """Returns a jitted `encode(params, members) -> vectors` of a stage of SNE.

  The result is that of `sne.SetEncoder` on the whole set, `[seeds, h]`. Members
  may be overwritten.

  Args:
    options: of SNE.
    stage: `layer` or `network`: which of the options are meant.
    block: most members at a time.
  """
  module = sne.SetEncoder(options, stage)
  sizes = sorted({min(size, block) for size in SIZES})
  at_once = jax.jit(lambda params, *x: module.apply({"params": params}, *x))
  in_blocks = _make_blocks_fn(options, stage, block)

  def encode(params, members):
    if len(members) > block:
      return in_blocks(params, members)
    size = next(size for size in sizes if size >= len(members))
    return np.asarray(at_once(params, *_padded(members, size)))

  return encode


def _make_blocks_fn(o: SNEOptions, stage: str, block: int):
  """Returns `encode(params, members)` of sets larger than a block."""
  function = getattr(o, f"{stage}_function")
  num_blocks = getattr(o, f"{stage}_blocks")
  seeds = o.layer_seeds if stage == "layer" else 1
  if function == "none":
    num_blocks, function = 0, "sab"
  by_mean = function == "deepsets"
  turn_block = stacks.make_block(function, o.set_options, o.inducing_points)
  pma = stacks.PMA(o.set_options, seeds)
  merge = jax.jit(deepsets.merge if by_mean else attention.merge)
  apply = lambda module: jax.jit(
    lambda params, *args, **kwargs: module.apply(
      {"params": params}, *args, **kwargs
    ),
    static_argnames="stage",
  )
  run_block, run_pma = apply(turn_block), apply(pma)
  mean_part = jax.jit(deepsets.mean_part)

  def turned(params, members):
    """Returns the members after one block of the stack."""
    if function == "sab":
      changed = np.empty_like(members)
      for place, x, mask in _cut(members, block):
        whole = functools.reduce(
          merge,
          (
            run_block(params, x, others=others, others_mask=real, stage="part")
            for _, others, real in _cut(members, block)
          ),
        )
        changed[place] = _real(run_block(params, x, mask, whole=whole), mask)
      return changed
    whole = functools.reduce(
      merge,
      (
        run_block(params, x, mask, stage="part")
        for _, x, mask in _cut(members, block)
      ),
    )
    for place, x, mask in _cut(members, block):
      members[place] = _real(run_block(params, x, mask, whole=whole), mask)
    return members

  def pooled(params, members):
    """Returns the vectors of a set, `[seeds, h]`."""
    if by_mean:
      parts = (mean_part(x, mask) for _, x, mask in _cut(members, block))
      return functools.reduce(merge, parts).mean[None, :]
    params = params["pma"]
    parts = (
      run_pma(params, x, mask, stage="part")
      for _, x, mask in _cut(members, block)
    )
    whole = functools.reduce(merge, parts)
    return run_pma(params, whole=whole)

  def encode(params, members):
    for number in range(num_blocks):
      members = turned(params["phi"][f"block_{number}"], members)
    code = pooled(params.get("psi", {}), members)
    if stage == "network" and o.norm == "pre":
      code = nn.LayerNorm().apply({"params": params["norm"]}, code)
    return np.asarray(code)

  return encode


def _cut(members, block: int) -> Iterator[tuple[slice, Any, Any]]:
  """Yields blocks of members: which they are, padded, and their masks."""
  for start in range(0, len(members), block):
    place = slice(start, min(start + block, len(members)))
    yield place, *_padded(members[place], block)


def _padded(members, size: int):
  """Returns members padded to a size, and which of them are real."""
  pad = ((0, size - len(members)), (0, 0))
  return jnp.asarray(np.pad(members, pad)), np.arange(size) < len(members)


def _real(members, mask):
  """Returns the real members, on the host."""
  return np.asarray(members)[mask]
