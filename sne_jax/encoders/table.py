"""The encoders by name: what `--encoder=NAME` chooses from.

An encoder is two things: a packer (host: networks -> arrays) and a linen module
(device: arrays -> codes `[B, D]`). A row of the table says which options it
has, what it measures on the training networks, and how both become the two. A
further encoder, in this package or outside, is a row that is registered.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sne_jax.encoders.baselines import flat_sets, mlp, stat_nn
from sne_jax.encoders.batches import tied
from sne_jax.encoders.functionals import dws, nfn, nft
from sne_jax.encoders.graphs import featuriser, message_passing, transformer
from sne_jax.encoders.interface import (
  ENCODERS,
  Encoder,
  Network,
  Row,
  register,
)
from sne_jax.encoders.sne import module, slots, streaming
from sne_jax.encoders.sne import options as sne_options
from sne_jax.encoders.tokens import hyper_representation, sane_coder
from sne_jax.networks import checked, chunking, scales


def measure_sne(
  options: sne_options.SNEOptions, networks: Sequence[Network]
) -> dict[str, Any]:
  """Measures the size of weights, of all and by place."""
  return scales.described(networks, fan_in=options.fan_in_scale)


def build_sne(
  options: sne_options.SNEOptions, measured: Mapping[str, Any]
) -> Encoder:
  """Builds SNE."""
  chunk_options = checked.rebuilt(
    chunking.ChunkOptions, measured["chunk_options"]
  )
  return Encoder(
    make_packer=lambda specs: slots.packer(specs, options, chunk_options),
    module=module.SNE(
      options,
      measured["global_scale"],
      tuple(measured["place_scales"]),
      name="encoder",
    ),
    stochastic=options.identifiers == "random",
    make_large_fn=lambda memory_limit: streaming.make_encode_fn(
      options,
      chunk_options,
      measured["global_scale"],
      tuple(measured["place_scales"]),
      memory_limit=memory_limit,
    ),
  )


_ROWS = {
  "sne": Row(
    paper="Andreis et al., NeurIPS 2024, arXiv:2305.16625",
    accepts="any",
    symmetry="learned (Logit Invariance), or exact with content identifiers",
    cost="linear in weights per chunk stage; quadratic in chunks per layer",
    options=sne_options.SNEOptions,
    prefix="",
    measure=measure_sne,
    build=build_sne,
  ),
  "mlp": tied.row(
    *("mlp", mlp.MLP),
    paper="a baseline of Navon et al., ICML 2023, arXiv:2301.12780",
    symmetry="none",
    cost="linear in weights, with a matrix of weights times width",
    options=mlp.MLPOptions,
    prefix="mlp_",
  ),
  "stat_nn": Row(
    paper="Unterthiner et al., 2020, arXiv:2002.11448",
    accepts="one",
    symmetry="exact, and blind to shuffles within a tensor",
    cost="sorting the weights of each tensor",
    options=stat_nn.StatOptions,
    prefix="stat_",
    measure=stat_nn.measure,
    build=stat_nn.build,
  ),
  "stat_pool": Row(
    paper="ours: statistics of arXiv:2002.11448 pooled over tensors",
    accepts="any",
    symmetry="exact, and blind to shuffles within a tensor",
    cost="sorting the weights",
    options=stat_nn.StatOptions,
    prefix="stat_",
    measure=stat_nn.measure_pooled,
    build=stat_nn.build_pooled,
  ),
  "deep_sets": flat_sets.row(
    "deep_sets",
    paper="Zaheer et al., NeurIPS 2017, arXiv:1703.06114",
    symmetry="exact, and blind to every shuffle of the weights",
    cost="linear in weights",
  ),
  "set_transformer": flat_sets.row(
    "set_transformer",
    paper="Lee et al., ICML 2019, arXiv:1810.00825",
    symmetry="exact, and blind to every shuffle of the weights",
    cost="weights times inducing points",
  ),
  "nfn_np": nfn.row(
    "nfn_np",
    needs="a chain of dense and conv layers with biases",
    symmetry="exact; of inputs and outputs too without io_embed and hnp pool",
    cost="weights times channels squared",
  ),
  "nfn_hnp": nfn.row(
    "nfn_hnp",
    needs="a chain of dense and conv layers with biases and a hidden layer",
    symmetry="exact, hidden neurons",
    cost="weights times channels squared, times inputs and outputs squared",
  ),
  "nft": tied.row(
    *("nft", nft.NFT),
    check=lambda options, spec: nft.layout_of(spec),
    paper="Zhou et al., NeurIPS 2023, arXiv:2305.13546",
    needs="a chain of dense and conv layers with biases",
    symmetry="exact, hidden neurons",
    cost="quadratic in the rows and columns at a layer, times its width",
    options=nft.NFTOptions,
    prefix="nft_",
  ),
  "dws": tied.row(
    *("dws", dws.DWS),
    check=lambda options, spec: dws.layout_of(spec),
    paper="Navon et al., ICML 2023, arXiv:2301.12780",
    needs="dense layers with biases, three or more",
    symmetry="exact, hidden neurons",
    cost="blocks of tensors squared; weights times channels squared",
    options=dws.DWSOptions,
    prefix="dws_",
  ),
  "neural_graph": featuriser.row(
    message_passing.NeuralGraph,
    dense=False,
    paper="Kofinas et al., ICLR 2024, arXiv:2403.12143 (NG-GNN)",
    symmetry="exact, hidden neurons",
    cost="linear in weights",
    options=message_passing.NeuralGraphOptions,
    prefix="graph_",
  ),
  "neural_graph_transformer": featuriser.row(
    transformer.GraphTransformer,
    dense=True,
    paper="Kofinas et al., ICLR 2024, arXiv:2403.12143 (NG-T)",
    symmetry="exact, hidden neurons",
    cost="quadratic in neurons",
    options=transformer.GraphTransformerOptions,
    prefix="graph_transformer_",
  ),
  "hyper_representation": tied.row(
    *("hyper_representation", hyper_representation.Coder),
    paper="Schuerholt et al., NeurIPS 2021, arXiv:2110.15288",
    symmetry="none",
    cost="quadratic in neurons, with a matrix of a width for each layer",
    options=hyper_representation.HyperRepresentationOptions,
    prefix="hyper_",
  ),
  "sane": Row(
    paper="Schuerholt et al., ICML 2024, arXiv:2406.09997",
    accepts="any",
    symmetry="none",
    cost="linear in weights; quadratic in the tokens of a window",
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
  if not getattr(options, "activations", False):
    networks = [(spec.layout, weights) for spec, weights in networks]
  return row(name).measure(options, networks)


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
