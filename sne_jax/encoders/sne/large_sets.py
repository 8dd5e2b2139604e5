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

from sne_jax.encoders.sets import attention, deepsets, stacks
from sne_jax.encoders.sne import module as sne
from sne_jax.encoders.sne.options import SNEOptions

BLOCK = 2048
"""Members of a block; a larger set is never on the device at once."""

SIZES = (32, 256, BLOCK)
"""What smaller sets are padded to: one compilation each."""


Tell = Callable[[int], None]


def _nobody(count: int) -> None:
  del count


def steps(
  options: SNEOptions, stage: str, count: int, *, block: int = BLOCK
) -> int:
  """Returns the parts that the encoding of a set is made of.

  A part is a block with a block, or by itself; a set that fits one is one part.

  Args:
    options: of SNE.
    stage: `layer` or `network`.
    count: members of the set.
    block: most members at a time.
  """
  if count <= block:
    return 1
  num, function = -(-count // block), getattr(options, f"{stage}_function")
  blocks = 0 if function == "none" else getattr(options, f"{stage}_blocks")
  return blocks * num * (1 + (num if function == "sab" else 1)) + num


def make_set_fn(
  options: SNEOptions, stage: str, *, block: int = BLOCK
) -> Callable[..., np.ndarray]:
  """Returns a jitted `encode(params, members, tell) -> vectors` of a stage.

  The result is that of `sne.SetEncoder` on the whole set `[Q, h]`, `[seeds,
  h]`. Members may be overwritten. `tell`, if it is given, is called with the
  number of `steps` that were done since the last call.

  Args:
    options: of SNE.
    stage: `layer` or `network`: which of the options are meant.
    block: most members at a time.
  """
  module = sne.SetEncoder(options, stage)
  sizes = sorted({min(size, block) for size in SIZES})
  at_once = jax.jit(lambda params, *x: module.apply({"params": params}, *x))
  in_blocks = _make_blocks_fn(options, stage, block)

  def encode(params, members, tell: Tell = _nobody):
    if len(members) > block:
      return in_blocks(params, members, tell)
    size = next(size for size in sizes if size >= len(members))
    code = np.asarray(at_once(params, *_padded(members, size)))
    tell(1)
    return code

  return encode


def _make_blocks_fn(o: SNEOptions, stage: str, block: int):
  """Returns `encode(params, members, tell)` of sets larger than a block."""
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

  def turned(params, members, tell):
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
        tell(1 + -(-len(members) // block))
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
      tell(2)
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

  def encode(params, members, tell):
    for number in range(num_blocks):
      members = turned(params["phi"][f"block_{number}"], members, tell)
    code = pooled(params.get("psi", {}), members)
    tell(-(-len(members) // block))
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
