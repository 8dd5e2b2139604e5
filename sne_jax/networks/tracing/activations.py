"""Which activation comes after each level, as far as that is known.

Signs and scales of neurons (`networks/augment.py`) may move only where all
that stands between a weight and its readers is known. So an operation is one
of: linear in every neuron, and of no account; an activation by name; the
maximum over places; or not known, and then nothing is claimed for its level.

References:
  Names of operations: ATen, as `torch.export` gives them, and the primitives
  of JAX.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sne_jax.networks import augment
from sne_jax.networks.tracing.tape import MAXIMUM, Value

TORCH = {
  **{name: name for name in ("relu", "leaky_relu", "gelu", "silu", "selu")},
  **{"tanh": "tanh", "sigmoid": "sigmoid", "sin": "sine"},
}
"""Activations among the operations of PyTorch, and our names of them."""

JAX = {"tanh": "tanh", "sin": "sine", "logistic": "sigmoid"}
"""Activations among the primitives of JAX; the others are calls."""

JAX_CALLS = {
  "leaky_relu": {"ge", "gt", "mul", "select_n"},
  "silu": None,
  "selu": None,
}
"""Activations among named calls; gelu is none. Where a wrong name would do
harm, all primitives that they may consist of."""

_PRODUCTS = frozenset(
  """
  linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d
  conv_transpose3d convolution matmul mm bmm mv addmm baddbmm einsum
  dot_general conv_general_dilated mul div neg
  """.split()  # noqa: SIM905
)
_MOVES = frozenset(
  """
  view reshape _unsafe_view flatten unflatten squeeze unsqueeze contiguous
  clone detach alias to _to_copy dropout feature_dropout alpha_dropout
  lift_fresh_copy type_as dropout1d dropout2d float stochastic_depth copy
  transpose swapaxes t numpy_T permute movedim expand expand_as broadcast_to
  repeat select slice narrow chunk split split_with_sizes unsafe_chunk
  tensor_split unbind cat concat stack mean sum avg_pool1d avg_pool2d
  avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
  convert_element_type stop_gradient reduce_precision broadcast_in_dim
  expand_dims concatenate reduce_sum reduce_window_sum add add_any sub
  """.split()  # noqa: SIM905
)
_NORMS = frozenset(
  """
  batch_norm _native_batch_norm_legit_no_training layer_norm native_layer_norm
  rms_norm group_norm instance_norm
  """.split()  # noqa: SIM905
)
_MAXIMA = frozenset(
  """
  amax max_pool1d max_pool2d max_pool3d max_pool1d_with_indices
  max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool1d
  adaptive_max_pool2d adaptive_max_pool3d reduce_max reduce_window_max
  """.split()  # noqa: SIM905
)


def of_operation(
  name: str, values: Sequence[Value], numbers: bool = False
) -> str | None:
  """Returns what an operation is to the neurons that it is applied to.

  Args:
    name: of the operation.
    values: what it is applied to.
    numbers: whether it adds a number besides.

  Returns:
    The name of an activation, `MAXIMUM`, "" where nothing is known, or None
    for an operation that is linear in every neuron.
  """
  active = [v for v in values if v.level is not None]
  weights = [v for v in values if v.level is None and v.parts]
  constants = len(values) - len(active) - len(weights)
  if name in _PRODUCTS:
    inverse = name == "div" and any(v.level is None for v in values[:1])
    return "" if len(active) > 1 or inverse else None
  if name in _MOVES:
    return "" if constants or numbers else None
  if name in _NORMS:
    return None if weights else ""  # What has no vectors leaves no trace.
  if name in _MAXIMA:
    return MAXIMUM
  return ""


def by_level(
  noted: Mapping[int, Collection[str]], num_levels: int
) -> tuple[str, ...]:
  """Returns the activations of a spec from what was noted at its levels.

  Returns:
    A name for each level, "none" where there was nothing and
    `augment.UNKNOWN` where it is not known; empty if none is known.
  """
  names = []
  for level in range(num_levels):
    functions = set(noted.get(level, ()))
    most = functions - {MAXIMUM}
    if MAXIMUM in functions and most - augment.HOMOGENEOUS:
      most = {""}
    name = most.pop() if len(most) == 1 else "" if most else "none"
    names.append(name or augment.UNKNOWN)
  known = set(names) - {"none", augment.UNKNOWN}
  return tuple(names) if known or augment.UNKNOWN not in names else ()


def stated(framework: str, metadata: Mapping[str, str]) -> str:
  """Returns the one activation of all hidden layers that a file states.

  Keras configurations say how a network is run. Where that is a plain network
  with one kind of activation, this is its name; else "".
  """
  if framework != "keras" or "config" not in metadata:
    return ""
  try:
    functions = _keras(json.loads(metadata["config"]))
  except (ValueError, TypeError, KeyError, AttributeError, IndexError):
    return ""  # Written by whoever made the file.
  return functions.pop() if len(functions) == 1 else ""


_KERAS_PLAIN = frozenset(
  """
  InputLayer Dense Conv1D Conv2D Conv3D Flatten Dropout Reshape ReLU
  Activation BatchNormalization MaxPooling1D MaxPooling2D MaxPooling3D
  AveragePooling1D AveragePooling2D AveragePooling3D GlobalAveragePooling1D
  GlobalAveragePooling2D
  """.split()  # noqa: SIM905
)


def _keras(config: Any) -> set[str]:
  """The activations of a model's layers but the last; "" is of other kinds."""
  layers = config["config"]["layers"]
  functions = set()
  for layer in layers[:-1]:
    kind, settings = layer["class_name"], layer["config"]
    name = "relu" if kind == "ReLU" else settings.get("activation", "linear")
    if kind not in _KERAS_PLAIN:
      functions.add("")
    elif name not in (None, "linear"):
      functions.add(name if name in TORCH.values() else "")
  last = layers[-1]["class_name"]
  return functions if last in _KERAS_PLAIN else functions | {""}
