"""How SANE, hyper-representations and SNE are trained without labels.

A `Method` is what a training loop needs of one: first parameters, a loss of
plain batches of networks, and codes. Views are drawn inside the loss, from the
key of the step, so a training is a function of its seed and nothing is stored.

Networks go in standardised (`networks/standardise.py`, measured on training
networks); views act on them so, and reconstructions come out so.

SANE and hyper-representations reconstruct, and contrast two views of a
network; SNE has no decoder and only contrasts. Its codes do not change when
neurons are permuted: its views have to differ by noise or erasing, or the
contrast has nothing to teach.

Dimensions: `B` networks of `P` weights, `D` width of a code.

References:
  Schuerholt et al., NeurIPS 2021, arXiv:2110.15288, and ICML 2024,
  arXiv:2406.09997; Chen et al., ICML 2020, arXiv:2002.05709.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from sne_jax.encoders import table
from sne_jax.encoders.tokens import (
  hyper_representation,
  sane,
  sane_networks,
  token_layers,
)
from sne_jax.learning.objectives import model
from sne_jax.learning.selfsup import autoencoding, contrast, views
from sne_jax.networks import checked, standardise, tokens, windows
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.spec import NetworkSpec

AT_ONCE = 64
"""Networks that are encoded, or decoded, at once; for memory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainOptions(Checked):
  """What the methods are told beyond their encoders, views and losses.

  Attributes:
    standardise: how weights are standardised: pooled (mean and deviation of
      each layer over the training networks), within, minmax or none (see
      networks/standardise.py).
    align: networks are first brought into the order of neurons of one training
      network, by weight matching.
    canonical_first: the first view is not permuted, as SANE intends on aligned
      networks; else both are.
    window: SANE: tokens of a training window; 0: a whole network.
    whole: SANE: train on whole networks, padded to the window, and refuse those
      of more tokens; else windows are drawn from them.
    table_tokens: SANE: entries of the position table of tokens; 0: as many as
      the networks need.
    table_layers: of layers, likewise.
    table_rows: of rows, likewise.
    projection: width of what is contrasted.
    head_layers: hidden layers of the projection head of hyper-representations.
    head_width: of its hidden layers, and of SNE's.
    components: of the baseline pca: width of its codes.
    resplit: every seed draws its own split, of sizes as the zoo's, whole
      networks with all their snapshots; else all have the zoo's.
  """

  standardise: str = option("pooled", choices=standardise.MODES)
  align: bool = False
  canonical_first: bool = False
  window: int = option(0, least=0)
  whole: bool = False
  table_tokens: int = option(0, least=0)
  table_layers: int = option(0, least=0)
  table_rows: int = option(0, least=0)
  projection: int = option(30, least=1)
  head_layers: int = option(3, least=0)
  head_width: int = option(50, least=1)
  components: int = option(64, least=1)
  resplit: bool = False

  def __post_init__(self):
    super().__post_init__()
    if self.whole and not self.window:
      raise ValueError(
        "whole pads networks to the window, but window is 0; name its size"
      )


class Batch(NamedTuple):
  """Networks of one step.

  Attributes:
    weights: standardised, float [B, P].
    template: what else the method wants, of `Method.template`; constant.
  """

  weights: Any
  template: Any


class Method(NamedTuple):
  """One way of learning without labels, for networks of one layout.

  Attributes:
    init: `init(seed) -> params`; may be compiled.
    template: `template(count)`: constant arrays of a batch of so many networks.
    loss: `loss(params, batch, key, train) -> (loss, parts)`, scalars; views
      come from the key, dropout only where `train` is True.
    encode: `encode(params, weights [N, P]) -> codes [N, D]`.
    reconstruct: `reconstruct(params, weights) -> [N, P]`; None: no decoder.
    module: the linen module.
    layout: SANE: the tokens of a network.
    tiling: SANE: the windows in which whole networks are encoded.
  """

  init: Callable[[Any], Any]
  template: Callable[[int], Any]
  loss: Callable[..., tuple[Float[Array, ""], dict[str, Any]]]
  encode: Callable[[Any, Any], np.ndarray]
  reconstruct: Callable[[Any, Any], np.ndarray] | None
  module: Any
  layout: tokens.TokenLayout | None = None
  tiling: windows.Windows | None = None


def build(description: Mapping[str, Any]) -> Method:
  """Builds the method of a description.

  Raises:
    ValueError: the networks do not fit its position tables or its window.
  """
  options = checked.rebuilt(PretrainOptions, description["options"])
  spec = NetworkSpec.from_json(description["spec"])
  losses = checked.rebuilt(contrast.ContrastOptions, description["losses"])
  return _MAKERS[description["method"]](
    description, options, spec, view_pair(description), losses
  )


def view_pair(
  description: Mapping[str, Any],
) -> tuple[views.ViewOptions, views.ViewOptions]:
  """Returns how the first and the second view of a network are drawn."""
  first = second = checked.rebuilt(views.ViewOptions, description["view"])
  if description["options"]["canonical_first"]:
    first = dataclasses.replace(first, permute=False)
  return first, second


def _sane(description, options, spec, pair, losses) -> Method:
  """SANE: windows of tokens, encoded, projected and reconstructed."""
  cls = table.row("sane").options
  encoder = checked.rebuilt(cls, description["encoder_options"])
  layout = tokens.layout(spec, encoder.token_size)
  size = options.window or len(layout)
  tables = (options.table_tokens, options.table_layers, options.table_rows)
  tables = [a or b for a, b in zip(tables, layout.tables, strict=True)]
  inner = encoder.sane(
    token_size=layout.token_size,
    window=size,
    table_tokens=tables[0],
    table_layers=tables[1],
    table_rows=tables[2],
    projection=options.projection,
  )
  inner.check(layout)
  tiling = windows.tile(len(layout), encoder.window, encoder.halo)
  if options.whole:
    tokens.pad(layout, size)  # Raises where a network does not fit.
    tiling = windows.tile(len(layout), len(layout))
  module = sane.SANE(inner)
  sample = autoencoding.make_window_sampler(layout, size, *pair)

  def init(seed):
    shape = (1, size)
    zeros = jnp.zeros((*shape, layout.token_size), jnp.float32)
    places = jnp.zeros((*shape, 3), jnp.int32)
    return module.init(jax.random.key(seed), zeros, places)["params"]

  def loss(params, batch: Batch, key: PRNGKeyArray, train: bool = True):
    del train
    key_views, _ = jax.random.split(key)
    keys = jax.random.split(key_views, batch.weights.shape[0])
    drawn = jax.vmap(sample)(keys, batch.weights)
    return autoencoding.sane_loss(module, params, losses, drawn)

  def encode(params, weights):
    latents = sane_networks.encode(module, params, layout, tiling, weights)
    return sane_networks.embed(latents)

  def reconstruct(params, weights):
    latents = sane_networks.encode(module, params, layout, tiling, weights)
    return sane_networks.decode(module, params, layout, tiling, latents)

  return Method(
    init,
    lambda count: None,
    loss,
    by_parts(encode),
    by_parts(reconstruct),
    module,
    layout,
    tiling,
  )


def _hyper(description, options, spec, pair, losses) -> Method:
  """Hyper-representations: whole networks."""
  row = table.row("hyper_representation")
  module = hyper_representation.Autoencoder(
    checked.rebuilt(row.options, description["encoder_options"]),
    spec,
    token_layers.ProjectionOptions(
      layers=options.head_layers,
      width=options.head_width,
      outputs=options.projection,
    ),
  )
  draw = _pair_sampler(spec, pair)

  def init(seed):
    zeros = jnp.zeros((2, spec.num_weights), jnp.float32)
    return module.init(jax.random.key(seed), zeros)["params"]

  def loss(params, batch: Batch, key: PRNGKeyArray, train: bool = True):
    key_views, key_drop = jax.random.split(key)
    first, second = draw(key_views, batch.weights)
    return autoencoding.hyper_loss(
      module,
      params,
      losses,
      first,
      second,
      key_drop if train else None,
    )

  def apply(method):
    return lambda params, x: module.apply({"params": params}, x, method=method)

  def reconstruct(params, weights):
    return apply("decode")(params, apply("encode")(params, weights))

  return Method(
    init,
    lambda count: None,
    loss,
    by_parts(apply("encode")),
    by_parts(reconstruct),
    module,
  )


def _sne(description, options, spec, pair, losses) -> Method:
  """SNE: two views, encoded and contrasted after the head."""
  measured = description["encoder_measured"]
  encoder = table.build(
    "sne",
    description["encoder_options"],
    description["chunk_options"],
    measured,
  )
  packer = encoder.make_packer((spec,))
  net = model.PropertyModel(
    encoder.module, options.projection, hidden_width=options.head_width
  )
  draw = _pair_sampler(spec, pair)
  shift, scale = standardise.per_weight(spec, description["measured"], ndim=2)

  def template(count: int):
    return packer.templates([[0] * count])[0]

  def apply(params, weights, template, train: bool, key):
    flat = (weights * scale + shift).reshape(-1)
    key_ids, key_drop = jax.random.split(key)
    return net.apply(
      params,
      template._replace(weights=flat),
      not train,
      rngs={"identifiers": key_ids, "dropout": key_drop},
    )

  def init(seed):
    zeros = [np.zeros(spec.num_weights, np.float32)]
    key_params, key_ids = jax.random.split(jax.random.key(seed))
    rngs = {"params": key_params, "identifiers": key_ids}
    return net.init(rngs, packer.pack((0,), zeros))

  def loss(params, batch: Batch, key: PRNGKeyArray, train: bool = True):
    key_views, key_apply = jax.random.split(key)
    both = jnp.concatenate(draw(key_views, batch.weights))
    projected, _ = apply(params, both, batch.template, train, key_apply)
    first, second = jnp.split(projected, 2)
    value = contrast.contrast(losses, first, second)
    return value, {"contrast": value}

  def encode(params, weights, template):
    return apply(params, weights, template, False, jax.random.key(0))[1]

  return Method(
    init,
    lambda count: template(2 * count),
    loss,
    by_parts(encode, template),
    None,
    net,
  )


_MAKERS = {"sane": _sane, "hyper_representation": _hyper, "sne": _sne}

METHODS = tuple(_MAKERS)


def _pair_sampler(spec: NetworkSpec, pair):
  """Returns `draw(key, weights [B, P])`, two views of each network."""
  samplers = [views.make_view_sampler(spec, options) for options in pair]

  def draw(key: PRNGKeyArray, weights: Float[Array, "B P"]):
    keys = jax.random.split(key, (2, weights.shape[0]))
    return tuple(
      jax.vmap(sample)(each, weights)
      for sample, each in zip(samplers, keys, strict=True)
    )

  return draw


def by_parts(function, template=None):
  """Maps many networks in parts of one size, compiled once.

  Args:
    function: `(params, rows, *constants) -> rows`.
    template: from a count of rows to a constant; None: there is none.
  """
  compiled = jax.jit(function)

  @functools.cache
  def constants(count):
    return () if template is None else (jax.device_put(template(count)),)

  def mapped(params, rows) -> np.ndarray:
    results = []
    for start in range(0, len(rows), AT_ONCE):
      part = np.asarray(rows[start : start + AT_ONCE])
      filled = part[np.arange(AT_ONCE) % len(part)]
      values = compiled(params, filled, *constants(AT_ONCE))
      results.append(np.asarray(values)[: len(part)])
    return np.concatenate(results)

  return mapped
