"""The encoders by name: what `--encoder=NAME` chooses from.

An encoder is two things: a packer (host: networks -> arrays) and a linen module
(device: arrays -> codes `[B, D]`). A row of the table says which options it
has, what it measures on the training networks, and how both become the two. A
further encoder, in this package or outside, is a row that is registered.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sne_jax.encoders.baselines import architecture, flat_sets, mlp, stat_nn
from sne_jax.encoders.batches import tied
from sne_jax.encoders.functionals import dws, nfn, nft
from sne_jax.encoders.graphs import (
  featuriser,
  gmn,
  message_passing,
  scale_gmn,
  transformer,
)
from sne_jax.encoders.graphs import per_weight as graph_per_weight
from sne_jax.encoders.interface import (
  ENCODERS,
  Encoder,
  Network,
  Row,
  register,
)
from sne_jax.encoders.responses import probing
from sne_jax.encoders.responses import seen as seen_lib
from sne_jax.encoders.sne import options as sne_options
from sne_jax.encoders.sne import per_weight as sne_per_weight
from sne_jax.encoders.sne import slots, streaming
from sne_jax.encoders.tokens import hyper_representation, sane_coder
from sne_jax.networks import checked, chunking, scales
from sne_jax.networks.spec import NetworkSpec


def measure_sne(
  options: sne_options.SNEOptions, networks: Sequence[Network]
) -> dict[str, Any]:
  """Measures the size of weights; and what networks take, to be run."""
  measured = scales.described(networks, fan_in=options.fan_in_scale)
  if options.responses != "none":
    measured["seen"] = seen_lib.measure(networks)
  return measured


def build_sne(
  options: sne_options.SNEOptions, measured: Mapping[str, Any]
) -> Encoder:
  """Builds SNE."""
  chunk_options = checked.rebuilt(
    chunking.ChunkOptions, measured["chunk_options"]
  )
  is_read = options.responses != "none"
  make_large_fn = lambda memory_limit: streaming.make_encode_fn(
    options,
    chunk_options,
    measured["global_scale"],
    tuple(measured["place_scales"]),
    memory_limit=memory_limit,
  )
  # In parts only weights are read; what was trained with answers must know it.
  knows_weights = not is_read or options.knows_weights
  is_streamed = knows_weights and not options.reads_tensors
  return Encoder(
    make_packer=lambda specs: slots.packer(specs, options, chunk_options),
    module=sne_per_weight.encoder(options, measured),
    stochastic=options.identifiers == "random",
    make_large_fn=make_large_fn if is_streamed else None,
  )


def remark_of_sne(
  options: sne_options.SNEOptions,
  measured: Mapping[str, Any],
  spec: NetworkSpec,
  in_parts: bool,
) -> str:
  """Says of a network whose answers are not read that they are not."""
  if options.responses == "none":
    return ""
  seen = seen_lib.seen_of(measured["seen"])
  knows_weights = options.knows_weights or seen.unread
  return seen_lib.remark(spec, in_parts, knows_weights=knows_weights)


_ROWS = {
  "sne": Row(
    accepts="any",
    symmetry="learned (Logit Invariance), or exact with content identifiers",
    options=sne_options.SNEOptions,
    prefix="",
    measure=measure_sne,
    build=build_sne,
    has_probes=lambda options: options.responses != "none",
    remark=remark_of_sne,
    per_weight=sne_per_weight.build,
  ),
  "mlp": tied.row(
    *("mlp", mlp.MLP),
    symmetry="none",
    options=mlp.MLPOptions,
    prefix="mlp_",
  ),
  "stat_nn": Row(
    accepts="one",
    symmetry="exact, and blind to shuffles within a tensor",
    options=stat_nn.StatOptions,
    prefix="stat_",
    measure=stat_nn.measure,
    build=stat_nn.build,
  ),
  "stat_pool": Row(
    accepts="any",
    symmetry="exact, and blind to shuffles within a tensor",
    options=stat_nn.StatOptions,
    prefix="stat_",
    measure=stat_nn.measure_pooled,
    build=stat_nn.build_pooled,
  ),
  "architecture": architecture.ROW,
  "deep_sets": flat_sets.row(
    "deep_sets",
    symmetry="exact, and blind to every shuffle of the weights",
  ),
  "set_transformer": flat_sets.row(
    "set_transformer",
    symmetry="exact, and blind to every shuffle of the weights",
  ),
  "nfn_np": nfn.row(
    "nfn_np",
    needs="a chain of dense and conv layers with biases",
    symmetry="exact; of inputs and outputs too without io_embed and hnp pool",
  ),
  "nfn_hnp": nfn.row(
    "nfn_hnp",
    needs="a chain of dense and conv layers with biases and a hidden layer",
    symmetry="exact, hidden neurons",
  ),
  "nft": tied.row(
    *("nft", nft.NFT),
    per_weight=nft.per_weight,
    check=lambda options, spec: nft.layout_of(spec),
    needs="a chain of dense and conv layers with biases",
    symmetry="exact, hidden neurons",
    options=nft.NFTOptions,
    prefix="nft_",
  ),
  "dws": tied.row(
    *("dws", dws.DWS),
    per_weight=dws.per_weight,
    check=lambda options, spec: dws.layout_of(spec),
    needs="dense layers with biases, three or more",
    symmetry="exact, hidden neurons",
    options=dws.DWSOptions,
    prefix="dws_",
  ),
  "neural_graph": featuriser.row(
    message_passing.NeuralGraph,
    per_weight=graph_per_weight.build,
    dense=False,
    symmetry="exact, hidden neurons",
    options=message_passing.NeuralGraphOptions,
    prefix="graph_",
  ),
  "neural_graph_transformer": featuriser.row(
    transformer.GraphTransformer,
    dense=True,
    symmetry="exact, hidden neurons",
    options=transformer.GraphTransformerOptions,
    prefix="graph_transformer_",
  ),
  "gmn": gmn.ROW,
  "scale_gmn": scale_gmn.ROW,
  "probe_gen": probing.row(probing.ProbeGenOptions, "probe_gen_"),
  "hidden_probe": probing.row(probing.HiddenProbeOptions, "hidden_probe_"),
  "hyper_representation": tied.row(
    *("hyper_representation", hyper_representation.Coder),
    symmetry="none",
    options=hyper_representation.HyperRepresentationOptions,
    prefix="hyper_",
  ),
  "sane": Row(
    accepts="any",
    symmetry="none",
    options=sane_coder.SANECoderOptions,
    prefix="sane_",
    measure=sane_coder.measure,
    build=sane_coder.build,
  ),
}
for _name, _row in _ROWS.items():
  register(_name, _row)


def row(name: str) -> Row:
  """Returns the row of that name.

  Raises:
    ValueError: there is none.
  """
  if name not in ENCODERS:
    raise ValueError(
      f"no encoder {name!r}; known are {', '.join(sorted(ENCODERS))}"
    )
  return ENCODERS[name]


def options_for(
  name: str, given: Any, *, field: str = "options", whose: str = "encoder"
) -> Any:
  """Returns the options of an encoder: those given, or its defaults for None.

  Args:
    name: of the encoder.
    given: its options, or None.
    field: what an error calls them.
    whose: what an error calls `name`.

  Raises:
    ValueError: they are options of another encoder.
  """
  wanted = row(name).options
  given = wanted() if given is None else given
  if type(given) is not wanted:
    article = "are" if field.endswith("s") else "is"
    raise ValueError(
      f"{field} {article} {type(given).__name__}, but the {whose} {name} takes"
      f" {wanted.__name__}; give these, or none"
    )
  return given


def measure(
  name: str, options: Any, networks: Sequence[Network]
) -> dict[str, Any]:
  """Measures what an encoder must know of the training networks.

  Args:
    name: of the encoder.
    options: its own, of the class that its row names.
    networks: `(spec, weights [P])` of the training networks, and no others.

  Returns:
    Plain values, kept in `model.json`.

  Raises:
    ValueError: there are no networks, or the weights of one are not finite;
      or the encoder does not accept the networks: two specs are named, and
      the encoders that would work.
  """
  if not networks:
    raise ValueError(
      f"{name} has no training networks to measure; give at least one"
    )
  for number, (spec, weights) in enumerate(networks):
    if not np.isfinite(weights).all():
      raise ValueError(
        f"training network {number} ({spec.describe()}) has weights that are"
        " not finite; leave it out"
      )
  entry = row(name)
  is_run = entry.has_probes(options)
  if not is_run and not getattr(options, "activations", False):
    networks = [(spec.layout, weights) for spec, weights in networks]
  return entry.measure(options, networks)


def build(
  name: str,
  options: Mapping[str, Any],
  chunk_options: Mapping[str, Any],
  measured: Mapping[str, Any],
) -> Encoder:
  """Builds the encoder of that name.

  Args:
    name: of the encoder.
    options: the fields of its options.
    chunk_options: the fields of `chunking.ChunkOptions`.
    measured: what `measure` has given; may hold more.

  Raises:
    ValueError: there is no encoder of that name, or an option is wrong.
  """
  entry = row(name)
  return entry.build(
    checked.rebuilt(entry.options, options),
    {**measured, "chunk_options": chunk_options},
  )
