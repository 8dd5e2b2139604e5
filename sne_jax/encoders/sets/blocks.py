"""Set Transformer blocks: attention between sets, and what follows it.

Every module sees one set and maps over leading axes by itself; see `sets`.

Dimensions: `...` leading axes, `N` elements (queries), `M` keys, `D` and `E`
widths of inputs, `W` width of the output, `K` seeds or inducing points.

References:
  Lee et al., Set Transformer, ICML 2019, arXiv:1810.00825, and the authors'
  code, whose attention block differs from the paper's (`SetOptions.form`).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sne_jax.encoders.sets import attention, layers
from sne_jax.encoders.sets.layers import Mask, SetOptions, dense

PARTS = ("part", "part_of_own")
"""Stages of modules that can work on a set part by part: with `stage="part"`
they return what a part adds to the whole, to be joined by `merge`; with that as
`whole`, what becomes of the elements of a part. Without dropout."""


class MAB(nn.Module):
  """Multihead attention block: a set of queries attends to a set of keys."""

  options: SetOptions

  @nn.compact
  def __call__(
    self,
    queries: Float[Array, "... N D"],
    keys: Float[Array, "... M E"] | None = None,
    key_mask: Bool[Array, "... M"] | None = None,
    query_mask: Mask | None = None,
    deterministic: bool = True,
    *,
    stage: str = "all",
    whole: attention.Attended | None = None,
  ) -> Any:
    """Returns what the queries become, `[..., N, W]`.

    Args:
      queries: with the leading axes of `keys`, or, if all sets share them,
        none.
      keys: None where the queries attend to one another.
      key_mask: real keys; the others get exactly no attention. Not used where
        `keys` is None: there `query_mask` says which keys are real.
      query_mask: real queries; the others come out as zeros.
      deterministic: False to apply dropout (rng `dropout`).
      stage: see `PARTS`. part: returns only what the queries read from these
        keys; part_of_own: the same where keys and queries are of one set.
      whole: what the queries have read from all keys, part by part, instead of
        keys.

    Raises:
      ValueError: a mask does not have the shape of its set.
    """
    o = self.options
    is_published = o.form == "published"
    queries = layers.clean("queries", queries, query_mask, o)
    if is_published and queries.shape[-1] != o.width:
      queries = dense(o, "query_input")(queries)
    if keys is not None:
      keys = layers.clean("keys", keys, key_mask, o)
      if is_published and keys.shape[-1] != o.width:
        keys = dense(o, "key_input")(keys)
    residual = queries
    if o.norm == "pre":
      norm = self._pre_norm("norm_query")
      queries = norm(queries)
      if keys is not None:
        own_keys = stage == "part_of_own"
        keys = (norm if own_keys else self._pre_norm("norm_key"))(keys)
    if whole is not None:
      projected, attended = self._settle(queries, whole)
    elif keys is None:
      projected, attended = self._attend(queries, queries, query_mask)
    else:
      projected, attended = self._attend(queries, keys, key_mask, stage)
    if stage in PARTS:
      return attended
    if is_published:
      attended = dense(o, "output")(attended)
    else:
      residual = projected
    drop = nn.Dropout(o.dropout, deterministic=deterministic)
    hidden = jnp.broadcast_to(residual, attended.shape) + drop(attended)
    if o.norm == "post":
      hidden = layers.layer_norm(o, "norm_0")(hidden)
    inner = hidden
    if o.norm == "pre":
      inner = layers.layer_norm(o, "norm_1")(inner)
    if is_published:
      inner = layers.feed_forward(o, inner)
    else:
      inner = nn.relu(dense(o, "feed_forward")(inner))
    hidden = hidden + drop(inner)
    if o.norm == "post":
      hidden = layers.layer_norm(o, "norm_1")(hidden)
    return layers.zero(hidden, query_mask)

  def _pre_norm(self, name):
    """Returns a norm of inputs that leaves alone what by its width is raw."""
    norm = layers.layer_norm(self.options, name)
    return lambda x: norm(x) if x.shape[-1] == self.options.width else x

  def _project(self, **inputs):
    """Returns kernels and biases of the projections of some inputs, by name."""
    kernel, bias, width = {}, {}, self.options.width
    for name, x in inputs.items():
      kernel[name] = self.param(
        f"{name}_kernel",
        nn.initializers.lecun_normal(),
        (x.shape[-1], width),
      )
      bias[name] = self.param(f"{name}_bias", nn.initializers.zeros, (width,))
    return kernel, bias

  def _settle(self, queries, whole: attention.Attended):
    """Returns the projected queries, and what they attended to in parts."""
    kernel, bias = self._project(query=queries)
    projected = layers.affine(queries, kernel["query"], bias["query"])
    return projected, attention.settled(whole).astype(queries.dtype)

  def _attend(self, queries, keys, mask, stage="all") -> tuple[Any, Any]:
    """Returns the projected queries, and what they attended to."""
    o = self.options
    kernel, bias = self._project(query=queries, key=keys, value=keys)

    def project(x, *names):
      """One matrix product for all projections of an input."""
      kernels = jnp.concatenate([kernel[name] for name in names], axis=1)
      biases = jnp.concatenate([bias[name] for name in names])
      y = layers.affine(x, kernels, biases)
      return jnp.split(y, len(names), axis=-1)

    shared = {"heads": o.heads, "scale": o.score_scale}
    if stage in PARTS:
      (q,), (k, v) = project(queries, "query"), project(keys, "key", "value")
      return q, attention.attend_part(q, k, v, mask, **shared)
    if attention.is_absorbed_cheaper(
      queries.shape[-2],
      keys.shape[-2],
      keys.shape[-1],
      o.heads,
      o.width // o.heads,
    ):
      (q,) = project(queries, "query")
      return q, attention.absorbed_attention(
        q,
        keys,
        kernel["key"].astype(keys.dtype),
        kernel["value"].astype(keys.dtype),
        bias["value"].astype(keys.dtype),
        mask,
        **shared,
      )
    if queries is keys:
      q, k, v = project(queries, "query", "key", "value")
    else:
      (q,), (k, v) = project(queries, "query"), project(keys, "key", "value")
    return q, attention.attention(q, k, v, mask, **shared)


class SAB(nn.Module):
  """Set attention block: the elements of a set attend to one another."""

  options: SetOptions

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "... N D"],
    mask: Mask | None = None,
    deterministic: bool = True,
    *,
    stage: str = "all",
    whole: attention.Attended | None = None,
    others: Float[Array, "... M D"] | None = None,
    others_mask: Mask | None = None,
  ) -> Any:
    """Returns the new elements; permutation-equivariant, `O(N^2)`.

    In parts (`PARTS`), `others` are a part of the set that `x` is of.
    """
    if stage == "part":
      stage = "part_of_own"
    return MAB(self.options, name="mab")(
      x, others, others_mask, mask, deterministic, stage=stage, whole=whole
    )


class ISAB(nn.Module):
  """Set attention by way of `K` trained inducing points, `O(N K)`."""

  options: SetOptions
  num_inducing: int = 16

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "... N D"],
    mask: Mask | None = None,
    deterministic: bool = True,
    *,
    stage: str = "all",
    whole: attention.Attended | None = None,
  ) -> Any:
    """Returns the new elements; permutation-equivariant."""
    points = _points(self, "inducing", self.num_inducing, self.options)
    gather = MAB(self.options, name="mab_0")
    if stage == "part":
      return gather(points, x, mask, stage=stage)
    if whole is None:
      summary = gather(points, x, mask, deterministic=deterministic)
    else:
      summary = gather(points, whole=whole)
    return MAB(self.options, name="mab_1")(
      x, summary, query_mask=mask, deterministic=deterministic
    )


class PMA(nn.Module):
  """Pooling by attention: `K` trained seeds attend to the set."""

  options: SetOptions
  num_seeds: int = 1

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "... N D"] | None = None,
    mask: Mask | None = None,
    deterministic: bool = True,
    *,
    stage: str = "all",
    whole: attention.Attended | None = None,
  ) -> Any:
    """Returns `K` vectors, permutation-invariant; zeros for an empty set.

    Where a whole is given, gathered in parts (`PARTS`), `x` is not used.
    """
    o = self.options
    seeds = _points(self, "seeds", self.num_seeds, o)
    mab = MAB(o, name="mab")
    if whole is not None:
      return mab(seeds, whole=whole)
    if x is None:
      raise ValueError("PMA needs a set, or a whole that was gathered in parts")
    x = layers.clean("x", x, mask, o)
    if o.form == "published":
      if x.shape[-1] != o.width:
        x = dense(o, "input")(x)
      x = layers.feed_forward(o, x)
    pooled = mab(seeds, x, mask, deterministic=deterministic, stage=stage)
    if mask is None or stage == "part":
      return pooled
    return layers.zero(pooled, mask.any(-1, keepdims=True))


def _points(module, name, count, options):
  """Declares trained points `[count, W]`, Xavier-uniform as the authors do."""
  points = module.param(
    name, nn.initializers.xavier_uniform(), (count, options.width)
  )
  return points.astype(options.dtype)
