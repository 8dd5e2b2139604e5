"""Dense layers, merges, reshapes, attention and recurrence of Keras.

Dimensions: `B` inputs, `T` tokens, `E` features.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sne_jax.networks.tracing.keras_files.layer import (
  TABLE,
  Layer,
  Play,
  each,
  pinned,
  plays,
)


@plays("Identity", "InputLayer", "ActivityRegularization", "Dropout")
@plays("GaussianDropout", "GaussianNoise", "AlphaDropout")
@plays(*each("SpatialDropout{}D"))
def _identity(at, x, *_):
  return x


@plays("Dense")
def _dense(at, x):
  w = at.with_bias("kernel")
  at.expect(len(w["kernel"].shape) == 2, "its kernel is no matrix")
  at.expect(w["kernel"].shape[1] == at.config["units"], "it has other units")
  y = at.m.contract(x, w["kernel"], [(len(x.shape) - 1, 0)])
  return at.activated(at.biased(y, w.get("bias")))


@plays("EinsumDense")
def _einsum_dense(at, x):
  axes, equation = at.config.get("bias_axes"), at.config["equation"]
  if "." in equation:
    return pinned(at, x)
  w = at.take("kernel", *(["bias"] if axes else []))
  y = at.m.einsum(equation.replace(" ", ""), x, w["kernel"])
  if axes:
    y = at.m.combine("add", y, w["bias"])
  return at.activated(y)


@plays("Embedding")
def _embedding(at, index):
  table = at.take("embeddings")["embeddings"]
  if at.config.get("mask_zero"):
    at.m.only_played("a mask of tokens")
  return at.m.look_up(table, index)


@plays("Rescaling")
def _rescaling(at, x):
  scale, offset = (np.asarray(at.config[k]) for k in ("scale", "offset"))
  run = lambda x: x * scale + offset
  if scale.size == offset.size == 1:
    return at.m.apply(x, run, "")
  return at.m.spatial(x, [len(x.shape) - 1], run)


@plays("Flatten")
def _flatten(at, x):
  if at.is_first and len(x.shape) > 2:
    x = at.m.transpose(x, (0, *range(2, len(x.shape)), 1))
  return at.m.reshape(x, (x.shape[0], math.prod(x.shape[1:])))


@plays("Reshape")
def _reshape(at, x):
  return at.m.reshape(x, _filled(x, (x.shape[0], *at.config["target_shape"])))


def _filled(x: Any, shape: Sequence[int]) -> tuple[int, ...]:
  """Returns a shape whose -1 is worked out."""
  known = math.prod(n for n in shape if n != -1)
  rest = math.prod(x.shape) // max(known, 1)
  return tuple(rest if n == -1 else int(n) for n in shape)


@plays("Permute")
def _permute(at, x):
  return at.m.transpose(x, (0, *at.config["dims"]))


@plays("RepeatVector")
def _repeat_vector(at, x):
  x = at.m.reshape(x, (x.shape[0], 1, x.shape[1]))
  return at.m.expand(x, (x.shape[0], at.config["n"], x.shape[2]))


def _merge(op: str) -> Play:
  def play(at: Layer, *values):
    if len({len(v.shape) for v in values}) > 1:
      return pinned(at, *values)
    return at.m.combine(op, *values)

  return play


for _name in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"):
  TABLE[_name] = _merge(_name.lower())


@plays("Concatenate")
def _concatenate(at, *values):
  place = at.config.get("axis", -1) % len(values[0].shape)
  return at.m.concatenate(values, place)


@plays("Attention")
def _attention(at, q, v, k=None):
  k = v if k is None else k
  plain = not at.config.get("use_scale") and len(q.shape) == 3
  plain &= at.config.get("score_mode", "dot") == "dot"
  if not plain or at.options.get("return_attention_scores"):
    return pinned(at, q, v, k)
  causal = bool(at.options.get("use_causal_mask"))
  return at.m.attend(q, k, v, 1.0, causal)


@plays("MultiHeadAttention")
def _multi_head_attention(at, q, v, k=None, *masks):
  odd = at.config.get("use_gate") or at.config.get("sliding_window")
  odd = odd or masks or at.config.get("attention_axes") not in (None, 1, [1])
  k = v if k is None else k
  if odd or any(len(x.shape) != 3 for x in (q, v, k)):
    return pinned(at, q, v, k, *masks)
  bias = at.config.get("use_bias", True)
  known = (("query", q), ("key", k), ("value", v))
  heard = []
  for name, x in known:
    inner = at.inner(f"{name}_dense", legacy=name, use_bias=bias)
    w = inner.with_bias("kernel")
    y = at.m.contract(x, w["kernel"], [(2, 0)])
    if bias:
      y = at.m.combine("add", y, w["bias"])
    heard.append(at.m.transpose(y, (0, 2, 1, 3)))
  scale = 1 / math.sqrt(at.config["key_dim"])
  causal = bool(at.options.get("use_causal_mask"))
  y = at.m.attend(*heard, scale, causal)
  y = at.m.transpose(y, (0, 2, 1, 3))
  inner = at.inner("output_dense", legacy="attention_output", use_bias=bias)
  w = inner.with_bias("kernel")
  at.expect(len(w["kernel"].shape) == 3, "its output is of another rank")
  y = at.m.contract(y, w["kernel"], [(2, 0), (3, 1)])
  y = inner.biased(y, w.get("bias"))
  if not at.options.get("return_attention_scores"):
    return y
  shape = (q.shape[0], heard[0].shape[1], q.shape[1], k.shape[1])
  return [y, *at.m.unknown(heard[:2], [shape], "attention scores")]


@plays("LSTM", "GRU", "SimpleRNN", "Bidirectional")
def _recurrent(at, x, *states):
  """Pinned: gates of one matrix would be groups of their own."""
  config, width = at.config, 1
  if at.kind == "Bidirectional":
    config = at.config["layer"]["config"]
    width = 2 if at.config.get("merge_mode", "concat") == "concat" else 1
    at.expect(at.config.get("merge_mode", "concat") is not None, "two outputs")
  units = config["units"]
  shape = (x.shape[0], units * width)
  if config.get("return_sequences"):
    shape = (x.shape[0], x.shape[1], units * width)
  at.shapes = [shape]
  if config.get("return_state"):
    at.shapes += [(x.shape[0], units)] * 4
  return pinned(at, x, *states)
