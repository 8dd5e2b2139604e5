"""Ranges of hyper-parameters, written as text, and draws from them.

- `0.1`: always this.
- `0.1,0.5,1`: one of these, each equally likely. Words too.
- `uniform:0:0.7`: evenly between the two.
- `log:1e-4:1e-2`: evenly in the logarithm.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

SHAPES = ("uniform", "log")


def numbers(name: str, text: str, *, least: float, most: float) -> None:
  """Checks a range of numbers.

  Raises:
    ValueError: not one, or it leaves the bounds; names the option.
  """
  low, high = _ends(name, text)
  if not least <= low <= high <= most:
    raise ValueError(
      f"{name} must lie between {least:g} and {most:g}, got {text!r}"
    )


def draw(
  name: str, text: str, share: Float[np.ndarray, "M"]
) -> Float[np.ndarray, "M"]:
  """Returns what a range has at each share in [0, 1), float64 `[M]`."""
  shape, _, _ = text.partition(":")
  if shape not in SHAPES:
    choices = np.array([_number(name, text, word) for word in text.split(",")])
    return choices[(share * len(choices)).astype(np.int64)]
  low, high = _ends(name, text)
  if shape == "uniform":
    return low + (high - low) * share
  return np.exp(math.log(low) + (math.log(high) - math.log(low)) * share)


def words(name: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
  """Returns the words of a list.

  Raises:
    ValueError: none, or an unknown one; names the option.
  """
  values = tuple(word.strip() for word in text.split(","))
  for word in values:
    if word not in known:
      raise ValueError(
        f"{name} must be of {', '.join(known)}, separated by commas; got"
        f" {text!r}"
      )
  return values


def chosen(choices: Sequence[str], share: Float[np.ndarray, "M"]) -> list[str]:
  """Returns the word of a list at each share in [0, 1)."""
  return [choices[int(place * len(choices))] for place in share]


def highest(name: str, text: str) -> float:
  """Returns the greatest value of a range."""
  return _ends(name, text)[1]


def _ends(name: str, text: str) -> tuple[float, float]:
  shape, *rest = text.split(":")
  if shape not in SHAPES:
    values = [_number(name, text, word) for word in text.split(",")]
    return min(values), max(values)
  if len(rest) != 2:
    raise ValueError(
      f"{name} must be like {shape}:0.1:0.5, with two numbers; got {text!r}"
    )
  low, high = (_number(name, text, word) for word in rest)
  if low > high or (shape == "log" and low <= 0):
    raise ValueError(f"{name} must rise, from above 0 if log; got {text!r}")
  return low, high


def _number(name: str, text: str, word: str) -> float:
  try:
    value = float(word)
  except ValueError as error:
    raise ValueError(
      f"{name} must be a number, a list of numbers, uniform:LOW:HIGH or"
      f" log:LOW:HIGH; got {text!r}"
    ) from error
  if not math.isfinite(value):
    raise ValueError(f"{name} must be finite, got {text!r}")
  return value
