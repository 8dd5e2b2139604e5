"""Options: frozen dataclasses whose fields say what they allow.

`width: int = option(64, least=1)` stands where the option does, and
`Checked.__post_init__` holds every value against it. Command lines read the
same: choices become enumerations, and the help text of an option is its entry
in the `Attributes` section of its class.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
Number = int | float

_BOUNDS = {
  "least": ("at least", lambda value, bound: value >= bound),
  "above": ("above", lambda value, bound: value > bound),
  "most": ("at most", lambda value, bound: value <= bound),
  "below": ("below", lambda value, bound: value < bound),
}

GONE: dict[str, dict[str, Any]] = {
  "ContrastOptions": {
    **{"reconstruction": "mse", "code_variance": 0.0, "code_norm": 0.0}
  },
  "DWSOptions": {"init_scale": 1.0, "dropout": 0.0},
  "DataOptions": {"symmetry_on": "host"},
  "FlatSetOptions": {
    **{"pooling": "mean", "form": "published", "weight_scale": "place"},
    "dropout": 0.0,
  },
  "GraphTransformerOptions": {
    **{"fourier_scale": 1.0, "final_edges": False, "dropout": 0.0}
  },
  "HyperRepresentationOptions": {
    **{"decompression": "linear", "bottleneck": "bounded"},
    **{"bottleneck_layers": 3, "vector_layers": 10, "decoder_bias": False},
  },
  "InvarianceOptions": {
    "invariance_target": "logit",
    "invariance_stop_gradient": False,
    "task_on_both": True,
  },
  "MLPOptions": {"dropout": 0.0},
  "NFNOptions": {
    **{"init": "uniform", "norm": "none", "fourier_scale": 3.0, "bands": 6},
    **{"max_freq": 10.0, "dropout": 0.0},
  },
  "NFTOptions": {"fourier_scale": 1.0, "share": True, "dropout": 0.0},
  "NeuralGraphOptions": {"fourier_scale": 3.0, "dropout": 0.0},
  "OptimizerOptions": {"accumulate": 1, "decay_vectors": False},
  "PretrainOptions": {"layerwise": "none"},
  "SANECoderOptions": {"dropout": 0.0},
  "SamplingOptions": {
    **{"reset_classifier": False, "conditioning": 0, "learning_rate": 0.0}
  },
  "StatOptions": {"dropout": 0.0, "ddof": 1},
  "TrainOptions": {"monitor_mode": "auto"},
  "ViewOptions": {
    **{"pool_size": 0, "noise": 0.0, "erasing": "block", "erase_value": "zero"}
  },
}
"""By class, options of earlier versions and the one value that remains."""


def option(
  default: Any,
  *,
  least: Number | None = None,
  above: Number | None = None,
  most: Number | None = None,
  below: Number | None = None,
  choices: Sequence[str] = (),
  flag: bool = True,
) -> Any:
  """Returns a dataclass field that says which values it takes.

  Args:
    default: its default.
    least: the least value, itself allowed.
    above: a value below all that are allowed.
    most: the largest value, itself allowed.
    below: a value above all that are allowed.
    choices: the words that are allowed.
    flag: whether command lines have it.
  """
  bounds = {"least": least, "above": above, "most": most, "below": below}
  return dataclasses.field(
    default=default,
    metadata={
      "bounds": {name: b for name, b in bounds.items() if b is not None},
      "choices": tuple(choices),
      "flag": flag,
    },
  )


class Checked:
  """What dataclasses of options derive from: fields are checked when made.

  A class with rules of its own calls `super().__post_init__()` first.
  """

  def __post_init__(self):
    """Raises `ValueError` naming the first option out of range."""
    for field in dataclasses.fields(self):  # pyright: ignore
      value = getattr(self, field.name)
      choices = field.metadata.get("choices")
      if choices and value not in choices:
        raise ValueError(
          f"{field.name} is {value!r}; choose one of"
          f" {', '.join(filter(None, choices))}"
        )
      bounds = field.metadata.get("bounds")
      if bounds and not _is_within(value, bounds):
        words = [f"{_BOUNDS[n][0]} {bound}" for n, bound in bounds.items()]
        raise ValueError(
          f"{field.name} is {value}; must be {' and '.join(words)}"
        )


def _is_within(value: Number, bounds: Mapping[str, Number]) -> bool:
  return math.isfinite(value) and all(
    _BOUNDS[name][1](value, bound) for name, bound in bounds.items()
  )


def rebuilt(cls: type[T], values: Mapping[str, Any]) -> T:
  """Returns options as an earlier version may have saved them.

  Args:
    cls: their class.
    values: by name, from a JSON file.

  Raises:
    ValueError: an option that this version does not have, unless it had the
      value that remains; or a value that is not allowed.
  """
  gone = GONE.get(cls.__name__, {})
  known = {field.name for field in dataclasses.fields(cls)}  # pyright: ignore
  for name, value in values.items():
    if name in known or (name in gone and gone[name] == value):
      continue
    remains = f"; only {gone[name]!r} remains" if name in gone else ""
    raise ValueError(
      f"saved with {name}={value!r}, an option that {cls.__name__} does not"
      f" have{remains}; read it with the version that saved it"
    )
  return cls(**{name: v for name, v in values.items() if name in known})
