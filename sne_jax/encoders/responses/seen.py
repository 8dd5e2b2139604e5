"""What the networks are like that an encoder was trained to run, and others.

Dimensions: none.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sne_jax.encoders.responses import programs
from sne_jax.networks.spec import NetworkSpec


class Seen(NamedTuple):
  """What the training networks take and give; plain values, for model files.

  Attributes:
    image: channels, height and width of the largest image; zeros: none.
    features: most features of an input that is no image.
    outputs: most outputs.
    classes: whether some have classes.
    signals: whether some have other outputs.
    unread: whether some could not be run.
  """

  image: tuple[int, int, int] = (0, 0, 0)
  features: int = 0
  outputs: int = 1
  classes: bool = False
  signals: bool = False
  unread: bool = False


def measure(networks: Sequence[tuple[NetworkSpec, Any]]) -> dict[str, Any]:
  """Returns the fields of `Seen`; of networks that can be run."""
  seen = Seen()
  for spec in dict.fromkeys(spec for spec, _ in networks):
    if not programs.is_runnable(spec):
      seen = seen._replace(unread=True)
      continue
    shape, outputs = programs.input_shape(spec), programs.unit_levels(spec)[-1]
    image = seen.image
    if len(shape) == 3:
      channels, height, width = map(max, shape, image)
      image = (channels, height, width)
    is_class = is_classifier(spec, outputs[1])
    seen = Seen(
      image,
      max(seen.features, shape[0] if len(shape) == 1 else 0),
      max(seen.outputs, outputs[1]),
      seen.classes or is_class,
      seen.signals or not is_class,
      seen.unread,
    )
  return seen._asdict() | {"image": list(seen.image)}


def seen_of(measured: Mapping[str, Any]) -> Seen:
  """Reads what `measure` returned, from a model file too."""
  channels, height, width = measured["image"]
  return Seen(
    image=(channels, height, width),
    features=measured["features"],
    outputs=measured["outputs"],
    classes=measured["classes"],
    signals=measured["signals"],
    unread=measured.get("unread", False),
  )


def remark(spec: NetworkSpec, in_parts: bool, *, knows_weights: bool) -> str:
  """Says of a network whose answers are not read that they are not.

  Args:
    spec: the network.
    in_parts: whether it is encoded part by part, which runs nothing.
    knows_weights: whether the model has met networks without answers, in
      training.

  Raises:
    ValueError: it has not; the remedy is named.
  """
  if programs.is_runnable(spec) and not in_parts:
    return ""
  why = "it is encoded part by part"
  if not programs.is_runnable(spec):
    why = "nothing tells how it is run"
  if not knows_weights:
    raise ValueError(
      f"{spec.describe()}: {why}, and this model reads what networks answer; it"
      " never learned to do without: train it with --response_drop=0.1, or"
      " settle the network's family and options (--override)"
    )
  return f"read by its weights alone, not by what it answers: {why}"


def is_classifier(spec: NetworkSpec, outputs: int) -> bool:
  """Whether outputs are logits of classes."""
  return spec.family != "inr" and outputs > 1
