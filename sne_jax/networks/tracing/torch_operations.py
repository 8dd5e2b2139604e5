"""What the operations of PyTorch do to the axes of values.

A table from ATen operations, as `torch.export` names them, to a tape. What is
not in it, and is not marked by torch as acting place by place, is unknown, and
nothing is claimed after it.

Dimensions: `B` inputs, `C` channels, `T` tokens.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from sne_jax.networks.tracing import operations
from sne_jax.networks.tracing.tape import Tape, Value

Shape = tuple[int, ...]
Operation = Callable[..., Any]

_TABLE: dict[str, Operation] = {}


def find(name: str) -> Operation | None:
  """Returns what plays an operation: `f(tape, shapes, *args, **kwargs)`.

  `shapes` are those of its results.
  """
  return _TABLE.get(name.rstrip("_") if name != "_" else name)


def place_by_place(tape: Tape, shapes: list[Shape], name: str, values) -> Value:
  """Plays an operation that treats all places alike."""
  op = {"add": "add", "mul": "scale", "div": "scale", "sub": "scale"}
  return tape.elementwise(*values, op=op.get(name, "map"), shape=shapes[0])


def _plays(*names: str) -> Callable[[Operation], Operation]:
  def note(function: Operation) -> Operation:
    _TABLE.update(dict.fromkeys(names, function))
    return function

  return note


@_plays("linear")
def _linear(tape, shapes, x, weight, bias=None):
  y = tape.contract(x, weight, (), [(len(x.shape) - 1, 1)])
  return _biased(tape, y, bias, -1)


def _biased(tape: Tape, y: Value, bias: Value | None, place: int) -> Value:
  if bias is None:
    return y
  place %= len(y.shape)
  shape = (bias.shape[0],) + (1,) * (len(y.shape) - 1 - place)
  return tape.elementwise(y, tape.reshape(bias, shape), op="add")


@_plays("conv1d", "conv2d", "conv3d")
def _conv(
  tape, shapes, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1
):
  y = operations.convolution(tape, x, weight, shapes[0][2:], groups)
  return _biased(tape, y, bias, 1)


@_plays("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(tape, shapes, x, weight, bias=None, *steps, groups=1, **_):
  # By place they are stride, padding, output_padding, groups, dilation.
  if (*steps[3:4], groups)[0] != 1:
    return None
  rank = len(weight.shape)
  kernel = tape.transpose(weight, (1, 0, *range(2, rank)))
  y = operations.convolution(tape, x, kernel, shapes[0][2:])
  return _biased(tape, y, bias, 1)


@_plays("convolution")
def _convolution(tape, shapes, x, weight, bias, *steps):
  # They are stride, padding, dilation, transposed, output_padding, groups.
  *_, transposed, _, groups = steps
  play = _conv_transpose if transposed else _conv
  return play(tape, shapes, x, weight, bias, groups=groups)


@_plays("batch_norm", "_native_batch_norm_legit_no_training")
def _batch_norm(
  tape, shapes, x, weight, bias, mean, var, training=False, *_, **__
):
  if training is True or mean is None or var is None:
    return None
  vectors = {
    "norm_scale": weight,
    "norm_shift": bias,
    "norm_mean": mean,
    "norm_var": var,
  }
  return operations.batch_norm(tape, x, _given(vectors))


@_plays("layer_norm", "native_layer_norm")
def _layer_norm(tape, shapes, x, size, weight=None, bias=None, *_, **__):
  places = range(len(x.shape) - len(size), len(x.shape))
  vectors = _given({"norm_scale": weight, "norm_shift": bias})
  return operations.norm(tape, x, vectors, tuple(places))


@_plays("rms_norm")
def _rms_norm(tape, shapes, x, size, weight=None, *_, **__):
  return _layer_norm(tape, shapes, x, size, weight)


@_plays("group_norm")
def _group_norm(tape, shapes, x, groups, weight=None, bias=None, *_, **__):
  vectors = _given({"norm_scale": weight, "norm_shift": bias})
  return operations.norm(tape, x, vectors, (1,), groups)


@_plays("instance_norm")
def _instance_norm(tape, shapes, x, weight, bias, mean, var, *_, **__):
  if mean is not None or var is not None:
    return None
  vectors = _given({"norm_scale": weight, "norm_shift": bias})
  return operations.norm(tape, x, vectors, (1,))


def _given(vectors: dict[str, Value | None]) -> dict[str, Value]:
  return {kind: v for kind, v in vectors.items() if v is not None}


@_plays("matmul", "mm", "bmm", "mv")
def _matmul(tape, shapes, x, y):
  if len(x.shape) == 1 or len(y.shape) == 1:
    return None
  lead = max(len(x.shape), len(y.shape)) - 2
  if len(y.shape) == 2:
    return tape.contract(x, y, (), [(len(x.shape) - 1, 0)])
  if len(x.shape) != len(y.shape) or x.shape[:lead] != y.shape[:lead]:
    return None
  batch = [(p, p) for p in range(lead)]
  return tape.contract(x, y, batch, [(lead + 1, lead)])


@_plays("addmm", "baddbmm")
def _addmm(tape, shapes, bias, x, y, *, beta=1, alpha=1):
  product = _matmul(tape, shapes, x, y)
  return tape.elementwise(product, bias, op="add")


@_plays("einsum")
def _einsum(tape, shapes, equation, operands, *_, **__):
  equation = equation.replace(" ", "")
  if len(operands) != 2 or "->" not in equation or "." in equation:
    return None
  heard, output = equation.split("->")
  one, other = heard.split(",")
  if any(len(set(word)) < len(word) for word in (one, other)):
    return None
  x, y = operands
  x, one = _summed(tape, x, one, other + output)
  y, other = _summed(tape, y, other, one + output)
  both = [c for c in one if c in other]
  batch = [(one.index(c), other.index(c)) for c in both if c in output]
  summed = [(one.index(c), other.index(c)) for c in both if c not in output]
  z = tape.contract(x, y, batch, summed)
  order = [c for c in both if c in output]
  order += [c for c in one + other if c not in both]
  return tape.transpose(z, [order.index(c) for c in output])


def _summed(tape: Tape, x: Value, word: str, kept: str):
  places = [p for p, c in enumerate(word) if c not in kept]
  if not places:
    return x, word
  return tape.reduce(x, places), "".join(c for c in word if c in kept)


@_plays("scaled_dot_product_attention")
def _attention(
  tape, shapes, q, k, v, mask=None, dropout_p=0.0, is_causal=False, **kwargs
):
  lead = len(q.shape) - 2
  if kwargs.get("enable_gqa") or k.shape[:lead] != q.shape[:lead]:
    return None
  batch = [(p, p) for p in range(lead)]
  scores = tape.contract(q, k, batch, [(lead + 1, lead + 1)])
  if is_causal:  # Tokens have an order.
    for axis in scores.axes[-2:]:
      tape.axes.pin(axis, "causal attention")
  if mask is not None:
    scores = tape.elementwise(scores, mask, op="add", shape=scores.shape)
  weights = tape.elementwise(scores)
  return tape.contract(weights, v, batch, [(lead + 1, lead)])


@_plays("view", "reshape", "_unsafe_view", "flatten", "unflatten")
@_plays("squeeze", "unsqueeze")
def _reshape(tape, shapes, x, *_, **__):
  return tape.reshape(x, shapes[0])


@_plays("contiguous", "clone", "detach", "alias", "to", "_to_copy", "dropout")
@_plays("feature_dropout", "alpha_dropout", "lift_fresh_copy", "type_as")
@_plays("dropout1d", "dropout2d", "float", "stochastic_depth", "copy")
def _same(tape, shapes, x, *_, **__):
  return x


@_plays("transpose", "swapaxes")
def _transpose(tape, shapes, x, one, other):
  order = list(range(len(x.shape)))
  order[one], order[other] = order[other], order[one]
  return tape.transpose(x, order)


@_plays("t", "numpy_T")
def _t(tape, shapes, x):
  return tape.transpose(x, range(len(x.shape))[::-1])


@_plays("permute")
def _permute(tape, shapes, x, order):
  return tape.transpose(x, [p % len(order) for p in order])


@_plays("movedim")
def _movedim(tape, shapes, x, source, target):
  rank = len(x.shape)
  as_list = lambda p: [p] if isinstance(p, int) else list(p)
  source = [p % rank for p in as_list(source)]
  target = [p % rank for p in as_list(target)]
  left = iter([p for p in range(rank) if p not in source])
  place = dict(zip(target, source, strict=True))
  return tape.transpose(
    x, [place[p] if p in place else next(left) for p in range(rank)]
  )


@_plays("expand", "expand_as", "broadcast_to")
def _expand(tape, shapes, x, *_, **__):
  return tape.expand(x, shapes[0])


@_plays("repeat")
def _repeat(tape, shapes, x, counts):
  rank = len(counts) - len(x.shape)
  long = [n > 1 for n in counts[rank:]]
  if any(many and n > 1 for many, n in zip(long, x.shape, strict=True)):
    return None
  return tape.expand(x, shapes[0])


@_plays("select")
def _select(tape, shapes, x, place, member):
  return tape.select(x, place, member)


@_plays("slice")
def _slice(tape, shapes, x, place=0, start=None, end=None, step=1):
  if step != 1:
    return None
  start = 0 if start is None else start
  place %= len(x.shape)
  start += x.shape[place] if start < 0 else 0
  return tape.slice(x, place, start, start + shapes[0][place])


@_plays("narrow")
def _narrow(tape, shapes, x, place, start, length):
  return tape.slice(x, place % len(x.shape), start, start + length)


@_plays("chunk", "split", "split_with_sizes", "unsafe_chunk", "tensor_split")
def _chunk(tape, shapes, x, _, place=0, **kwargs):
  place = kwargs.get("dim", place) % len(x.shape)
  chunks, start = [], 0
  for shape in shapes:
    chunks.append(tape.slice(x, place, start, start + shape[place]))
    start += shape[place]
  return chunks


@_plays("unbind")
def _unbind(tape, shapes, x, place=0):
  return [tape.select(x, place, i) for i in range(len(shapes))]


@_plays("cat", "concat")
def _cat(tape, shapes, values, place=0, **kwargs):
  return tape.concatenate(values, kwargs.get("dim", place))


@_plays("stack")
def _stack(tape, shapes, values, place=0):
  place %= len(shapes[0])
  cut = lambda v: (*v.shape[:place], 1, *v.shape[place:])
  return tape.concatenate([tape.reshape(v, cut(v)) for v in values], place)


@_plays("softmax", "_softmax", "log_softmax", "_log_softmax")
def _softmax(tape, shapes, x, *_, **__):
  return tape.elementwise(x)


@_plays("mean", "sum", "amax", "amin", "logsumexp", "var", "std", "norm")
@_plays("linalg_vector_norm")
def _reduce(tape, shapes, x, *args, **kwargs):
  places = kwargs.get("dim")
  lists = [a for a in args if isinstance(a, list | tuple)]
  if places is None:
    places = lists[0] if lists else None
  if places is None and args and type(args[0]) is int:
    places = [args[0]]
  if isinstance(places, int):
    places = [places]
  if not places:
    places = range(len(x.shape))
  kept = tape.reduce(x, [p % len(x.shape) for p in places])
  return tape.reshape(kept, shapes[0])


def _pool(rank: int) -> Operation:
  def play(tape, shapes, x, *_, **__):
    for axis in x.axes[len(x.shape) - rank :]:
      tape.axes.pin(axis, "neurons are pooled or padded")
    return tape.spatial(x, shapes[0])

  return play


for _rank in (1, 2, 3):
  for _name in ("avg_pool", "max_pool", "adaptive_avg_pool"):
    _TABLE[f"{_name}{_rank}d"] = _pool(_rank)
  _TABLE[f"adaptive_max_pool{_rank}d"] = _pool(_rank)
  _TABLE[f"max_pool{_rank}d_with_indices"] = _pool(_rank)
for _name in ("upsample_nearest2d", "upsample_bilinear2d"):
  _TABLE[_name] = _pool(2)


@_plays("pad", "constant_pad_nd")
def _pad(tape, shapes, x, counts, *_, **__):
  return _pool(len(counts) // 2)(tape, shapes, x)


@_plays("roll")
def _roll(tape, shapes, x, _, places=()):
  for place in places or range(len(x.shape)):
    tape.axes.pin(x.axes[place], "neurons are rolled")
  return tape.elementwise(x)


@_plays("embedding")
def _embedding(tape, shapes, table, index, *_, **__):
  return tape.look_up(table, index)


@_plays("prelu")
def _prelu(tape, shapes, x, slope):
  if math.prod(slope.shape) > 1:
    slope = tape.reshape(slope, (slope.shape[0],) + (1,) * (len(x.shape) - 2))
  return tape.elementwise(x, slope)


@_plays("zeros", "ones", "full", "zeros_like", "ones_like", "full_like")
@_plays("scalar_tensor", "new_zeros", "new_ones", "new_full")
def _uniform(tape, shapes, *_, **__):
  return tape.constant(shapes[0], uniform=True)


@_plays("arange", "tril", "triu", "empty", "_assert_tensor_metadata")
def _constant(tape, shapes, *args, **__):
  if any(isinstance(a, Value) and a.level is not None for a in args):
    return None
  return tape.constant(shapes[0]) if shapes else None


def values_in(args: Sequence[Any]) -> list[Value]:
  """Returns the values among arguments, lists of them included."""
  values = []
  for item in args:
    if isinstance(item, Value):
      values.append(item)
    elif isinstance(item, list | tuple):
      values.extend(values_in(item))
  return values
