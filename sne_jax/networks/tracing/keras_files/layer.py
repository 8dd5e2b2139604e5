"""What the layers of Keras do, each written once for both machines.

A layer is known by its class name and settings, as a model's configuration
has them. Its variables are asked for by their names and in the order in which
Keras makes them. What is not in the table is pinned, with all that it touches.

Dimensions: `B` inputs, `C` channels, `T` tokens, `E` features.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sne_jax.networks.tracing.keras_files.machines import Machine
from sne_jax.networks.tracing.player import Mismatch

Play = Callable[..., Any]

TABLE: dict[str, Play] = {}


class Layer:
  """A layer that is called.

  Attributes:
    m: the machine.
    kind: name of its class.
    config: its settings.
    where: finds its variables; see `weights.py`.
    options: what it is called with besides values.
    shapes: of what it gives, where the file says so.
  """

  def __init__(
    self,
    m: Machine,
    kind: str,
    config: Mapping[str, Any],
    where: Any,
    options: Mapping[str, Any],
    shapes: Sequence[Sequence[int]] = (),
  ):
    self.m = m
    self.kind = kind
    self.config = config
    self.where = where
    self.options = options
    self.shapes = shapes

  def __call__(self, *values: Any) -> list[Any]:
    """Runs the layer; returns what it gives."""
    play = TABLE.get(self.kind, pinned)
    outputs = play(self, *values)
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]

  def take(self, *roles: str) -> dict[str, Any]:
    """Returns the variables of these names, which are all that it has."""
    return {
      role.split("|")[0]: self.m.weight(self.where.variable(role, number))
      for number, role in enumerate(roles)
    }

  def inner(self, key: str, kind: str = "", legacy: str = "", **config: Any):
    """Returns a layer inside this one, which holds variables of its own."""
    where = self.where.inner(key, legacy)
    return Layer(self.m, kind, config, where, {})

  def with_bias(self, *roles: str) -> dict[str, Any]:
    """Returns variables, with a bias if there is one."""
    biased = self.config.get("use_bias", True)
    return self.take(*roles, *(["bias"] if biased else []))

  def biased(self, y: Any, bias: Any, place: int = -1) -> Any:
    """Adds a bias along an axis."""
    if bias is None:
      return y
    place %= len(y.shape)
    self.expect(bias.shape == (y.shape[place],), "its bias is of another size")
    shape = (bias.shape[0],) + (1,) * (len(y.shape) - 1 - place)
    return self.m.combine("add", y, self.m.reshape(bias, shape))

  def activated(self, x: Any) -> Any:
    """Applies the layer's own activation."""
    return activate(self.m, x, self.config.get("activation"))

  def tuple(self, key: str, rank: int, default: Any = 1) -> tuple[int, ...]:
    """Returns a setting that is a number for each axis, or one for all."""
    value = self.config.get(key)
    value = default if value is None else value
    value = [value] * rank if isinstance(value, int) else value
    self.expect(len(value) == rank, f"{key} has {len(value)} numbers")
    return tuple(int(n) for n in value)

  @property
  def is_first(self) -> bool:
    """Whether channels come before places."""
    return self.config.get("data_format") == "channels_first"

  def places(self, x: Any) -> list[int]:
    """Returns the axes of `x` that are places."""
    rank = len(x.shape)
    return list(range(2, rank) if self.is_first else range(1, rank - 1))

  def first(self, x: Any) -> Any:
    """Returns `x` with channels before places."""
    last = len(x.shape) - 1
    if self.is_first:
      return x
    return self.m.transpose(x, (0, last, *range(1, last)))

  def back(self, x: Any) -> Any:
    """Inverse of `first`."""
    if self.is_first:
      return x
    return self.m.transpose(x, (0, *range(2, len(x.shape)), 1))

  def expect(self, holds: bool, problem: str) -> None:
    """Raises `Mismatch` if file and settings do not agree."""
    if not holds:
      name = self.config.get("name", self.kind)
      raise Mismatch(f"layer {name!r} ({self.kind}): {problem}")


def is_known(kind: str) -> bool:
  """Whether a class of layers is in the table."""
  return kind in TABLE


def plays(*kinds: str) -> Callable[[Play], Play]:
  """Puts a function into the table, for classes of these names."""

  def note(play: Play) -> Play:
    TABLE.update(dict.fromkeys(kinds, play))
    return play

  return note


def each(name: str) -> list[str]:
  """Returns the names of a class for one, two and three axes of places."""
  return [name.format(n) for n in (1, 2, 3)]


def pinned(at: Layer, *values: Any) -> list[Any]:
  """A layer of which nothing is known but what it touches."""
  shapes = at.shapes or [v.shape for v in values[:1]]
  weights = [at.m.weight(name) for name in at.where.all_variables()]
  name = at.config.get("name", "")
  what = f"{at.kind} ({name!r})" if name else at.kind
  return at.m.unknown([*values, *weights], shapes, what)


# Activations: what computes them, and our name ("" if we have none).
_softmax = lambda x: jax.nn.softmax(x, -1)
_ACTIVATIONS: dict[str, tuple[Callable[[Any], Any], str]] = {
  **{n: (getattr(jax.nn, n), n) for n in ("relu", "selu", "silu", "sigmoid")},
  "swish": (jax.nn.silu, "silu"),
  "tanh": (jnp.tanh, "tanh"),
  "gelu": (lambda x: jax.nn.gelu(x, approximate=False), "gelu"),
  "leaky_relu": (lambda x: jax.nn.leaky_relu(x, 0.2), "leaky_relu"),
  **{
    n: (getattr(jax.nn, n), "")
    for n in ("relu6", "elu", "celu", "softplus", "hard_sigmoid", "mish")
  },
  **{n: (jax.nn.hard_silu, "") for n in ("hard_silu", "hard_swish")},
  "softsign": (jax.nn.soft_sign, ""),
  "exponential": (jnp.exp, ""),
  "log_sigmoid": (jax.nn.log_sigmoid, ""),
  "softmax": (_softmax, ""),
  "log_softmax": (lambda x: jax.nn.log_softmax(x, -1), ""),
  "tanh_shrink": (lambda x: x - jnp.tanh(x), ""),
}


def activate(m: Machine, x: Any, activation: Any) -> Any:
  """Applies an activation, as a configuration names it."""
  if activation in (None, "linear"):
    return x
  if isinstance(activation, str) and activation in _ACTIVATIONS:
    return m.apply(x, *_ACTIVATIONS[activation])
  if isinstance(activation, Mapping):
    kind = activation.get("class_name")
    module = str(activation.get("module", "keras")).split(".")[0]
    if kind in _PLAIN and module == "keras":
      config = activation.get("config", {})
      return _PLAIN[kind](Layer(m, str(kind), config, None, {}), x)
    activation = activation.get("config", kind)
  (y,) = m.unknown([x], [x.shape], f"activation {str(activation)[:50]!r}")
  return y


@plays("Activation")
def _activation(at, x):
  return at.activated(x)


@plays("ReLU")
def _relu(at, x):
  most, least = at.config.get("max_value"), at.config.get("threshold", 0.0)
  slope = at.config.get("negative_slope", 0.0) or 0.0
  least = least or 0.0

  def run(x):
    above = x if most is None else jnp.minimum(x, most)
    return jnp.where(x >= least, above, slope * (x - least))

  plain = most is None and not least
  name = ("leaky_relu" if slope > 0 else "relu" if not slope else "") * plain
  return at.m.apply(x, run, name)


@plays("LeakyReLU")
def _leaky_relu(at, x):
  slope = at.config.get("negative_slope", at.config.get("alpha", 0.3))
  slope = float(np.asarray(slope).reshape(-1)[0])
  run = lambda x: jnp.where(x >= 0, x, slope * x)
  return at.m.apply(x, run, "leaky_relu" if slope > 0 else "")


@plays("ELU")
def _elu(at, x):
  alpha = float(np.asarray(at.config.get("alpha", 1.0)).reshape(-1)[0])
  return at.m.apply(x, lambda x: jax.nn.elu(x, alpha), "")


@plays("Softmax")
def _softmax_layer(at, x):
  axis = at.config.get("axis", -1)
  axis = tuple(axis) if isinstance(axis, list) else axis
  return at.m.apply(x, lambda x: jax.nn.softmax(x, axis), "")


_PLAIN = {k: TABLE[k] for k in ("ReLU", "LeakyReLU", "ELU", "Softmax")}


@plays("PReLU")
def _prelu(at, x):
  alpha = at.take("alpha")["alpha"]
  at.expect(
    len(alpha.shape) == len(x.shape) - 1, "its slopes are of another rank"
  )
  return at.m.combine("prelu", x, alpha)
