"""Tensor descriptions that the families' specs are made of."""

from collections.abc import Sequence

from sne_jax.networks import spec as spec_lib
from sne_jax.networks.families import layers

Axis = spec_lib.Axis
TensorSpec = spec_lib.TensorSpec


def linear(
  name: str,
  out: Axis,
  into: Axis,
  level: int,
  *,
  bias: bool = True,
  branch: int = 0,
  kinds: tuple[str, str] = ("linear_weight", "linear_bias"),
) -> list[TensorSpec]:
  """Returns `name.weight` and, if asked for, `name.bias`."""
  shape = (places(out), places(into))
  weight = TensorSpec(
    f"{name}.weight", kinds[0], shape, level, (out, into), branch=branch
  )
  return _with_bias(weight, f"{name}.bias", kinds[1], bias)


def convolution(
  name: str,
  out: Axis,
  into: Axis,
  kernel: int,
  level: int,
  *,
  bias: bool = True,
  branch: int = 0,
) -> list[TensorSpec]:
  """Returns `name.weight` of a square kernel and, if asked for, its bias."""
  axes = (out, into, spec_lib.plain_axis(kernel), spec_lib.plain_axis(kernel))
  shape = (places(out), places(into), kernel, kernel)
  weight = TensorSpec(
    f"{name}.weight", "conv_weight", shape, level, axes, branch=branch
  )
  return _with_bias(weight, f"{name}.bias", "conv_bias", bias)


def batch_norm(weight: TensorSpec) -> list[TensorSpec]:
  """Returns the four vectors of a batch norm right after a weight."""
  name = f"{weight.name.removesuffix('.weight')}.norm"
  return [
    vector(
      f"{name}.{part}", f"norm_{part}", weight.axes[0], weight.level, weight
    )
    for part in ("scale", "shift", "mean", "var")
  ]


def layer_norm(name: str, axis: Axis, level: int) -> list[TensorSpec]:
  """Returns the two vectors of a layer norm, a level of its own."""
  return [
    vector(f"{name}.{part}", f"norm_{part}", axis, level)
    for part in ("scale", "shift")
  ]


def image(shape: Sequence[int]) -> tuple[int, int, int]:
  """Returns channels, height and width; `ValueError` if that is not it."""
  if len(shape) != 3 or min(shape) < 1:
    raise ValueError(
      f"image_shape must be channels, height and width, got {tuple(shape)}"
    )
  return shape[0], shape[1], shape[2]


def conv_size(
  size: tuple[int, int], kernel: int, stride: int, padding: int
) -> tuple[int, int]:
  """Returns height and width after a convolution.

  Raises:
    ValueError: the kernel is larger than the padded image.
  """
  height, width = size
  if min(height, width) + 2 * padding < kernel:
    raise ValueError(
      f"a {kernel}x{kernel} kernel does not fit an image of {height}x{width}"
      f" with padding {padding}; use a larger image or padding, or fewer or"
      " smaller strides and pools"
    )
  new = [(s + 2 * padding - kernel) // stride + 1 for s in size]
  return new[0], new[1]


def _with_bias(
  weight: TensorSpec, name: str, kind: str, wanted: bool
) -> list[TensorSpec]:
  """Returns the weight and, if wanted, a bias on its output axis."""
  if not wanted:
    return [weight]
  return [weight, vector(name, kind, weight.axes[0], weight.level, weight)]


def vector(
  name: str, kind: str, axis: Axis, level: int, of: TensorSpec | None = None
) -> TensorSpec:
  """Returns a tensor of one axis; `of` is the weight that it follows."""
  return TensorSpec(
    name,
    kind,
    (places(axis),),
    level,
    (axis,),
    of=None if of is None else of.name,
    branch=0 if of is None else of.branch,
  )


def places(axis: Axis) -> int:
  """Returns how many places an axis has."""
  size = 1
  for factor in axis:
    size *= factor.size
  return size


def sizes(name: str, values: Sequence[int], at_least: int) -> tuple[int, ...]:
  """Returns a tuple of positive sizes.

  Raises:
    ValueError: there are fewer than `at_least`, or one of them is below 1.
  """
  values = tuple(values)
  if len(values) < at_least or min(values, default=1) < 1:
    raise ValueError(
      f"{name} must be {at_least} or more sizes of at least 1, got {values}"
    )
  return values


def per_layer(
  name: str, value: int | Sequence[int], count: int, minimum: int
) -> tuple[int, ...]:
  """Returns one number per layer from one for all, or one for each.

  Raises:
    ValueError: wrong number of values, or one of them is below `minimum`.
  """
  values = (value,) * count if isinstance(value, int) else tuple(value)
  if len(values) != count or min(values, default=minimum) < minimum:
    raise ValueError(
      f"{name} must be one number, or {count} (one per layer), of at least"
      f" {minimum}; got {value}"
    )
  return values


def activations(value: str | Sequence[str], count: int) -> tuple[str, ...]:
  """Returns one activation per hidden layer from one name, or one for each.

  Raises:
    ValueError: wrong number of names, or an unknown one.
  """
  names = (value,) * count if isinstance(value, str) else tuple(value)
  if len(names) != count:
    raise ValueError(
      f"activation must be one name, or {count} (one per hidden layer), got"
      f" {value}"
    )
  for name in (*names, *((value,) if isinstance(value, str) else ())):
    if name not in layers.ACTIVATIONS:
      raise ValueError(
        f"unknown activation {name!r}; known are"
        f" {', '.join(layers.ACTIVATIONS)}"
      )
  return names


def choice(name: str, value: str, known: Sequence[str]) -> None:
  """Raises `ValueError` unless `value` is one of `known`."""
  if value not in known:
    raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
