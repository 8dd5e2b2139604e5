"""The encoders by name: what `--encoder=NAME` chooses from.

An encoder is two things: a packer (host: networks -> arrays) and a linen module
(device: arrays -> codes `[B, D]`). A row of the table builds both.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn

from sne_jax.encoders import packing, sne, sne_options
from sne_jax.networks import chunking
from sne_jax.networks.spec import NetworkSpec


@dataclasses.dataclass(frozen=True)
class Encoder:
  """An encoder that was built: how to pack networks, how to encode them.

  Attributes:
    make_packer: from the specs at hand to an object with
      `pack(numbers, weights) -> batch` and `template(numbers)`.
    module: maps a batch to codes `[B, D]`; called with `deterministic=`.
    stochastic: codes differ from call to call, even without dropout.
  """

  make_packer: Callable[[Sequence[NetworkSpec]], Any]
  module: nn.Module
  stochastic: bool


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of the table of encoders."""

  paper: str
  accepts: str
  symmetry: str
  cost: str
  build: Callable[..., Encoder]


def build_sne(
  sne_opts: sne_options.SNEOptions,
  chunk_opts: chunking.ChunkOptions,
  global_scale: float,
  place_scales: Sequence[float] = (),
) -> Encoder:
  """Builds SNE.

  Args:
    sne_opts: switches of the encoder.
    chunk_opts: how tensors are cut.
    global_scale: root mean square of the training weights.
    place_scales: the same by place; both from `networks.scales.measure`.
  """
  return Encoder(
    make_packer=lambda specs: packing.Packer(
      specs, chunk_opts, skips=sne_opts.skip_tokens
    ),
    module=sne.SNE(sne_opts, global_scale, tuple(place_scales), name="encoder"),
    stochastic=sne_opts.identifiers == "random",
  )


ENCODERS = {
  "sne": Row(
    paper="Andreis et al., NeurIPS 2024, arXiv:2305.16625",
    accepts="any architectures, mixed in one batch",
    symmetry="learned (Logit Invariance), or exact with content identifiers",
    cost="linear in weights per chunk stage; quadratic in chunks per layer",
    build=build_sne,
  ),
}
"""Every encoder that `--encoder` knows."""


def build(name: str, *args, **kwargs) -> Encoder:
  """Builds the encoder of that name.

  Raises:
    ValueError: there is none of that name.
  """
  if name not in ENCODERS:
    raise ValueError(
      f"no encoder {name!r}; known are {', '.join(sorted(ENCODERS))}"
    )
  return ENCODERS[name].build(*args, **kwargs)
