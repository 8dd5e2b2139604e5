"""What a sweep varies, written as text, and the values of every trial.

`learning_rate=1e-3,3e-3;head_width=32,64` names options and their values, as
`sne_jax/zoo/ranges.py` writes them: a list (words, integers and booleans too),
`uniform:LOW:HIGH` or `log:LOW:HIGH`. A grid takes every combination of lists.
A random search draws: the value of an option in a trial depends on the seed of
the sweep, the number of the trial and the name of the option alone, so that
trials may be added later, and the order in which options are written is of no
account.
"""

import difflib
import hashlib
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from experiments import encoder_options
from sne_jax.zoo import ranges

SIGNIFICANT = 4
"""Digits of a number that is drawn: enough, and tables stay readable."""


class Dimension(NamedTuple):
  """An option and what it may be: the values of a list, or a range."""

  values: tuple[Any, ...]  # Empty for a range.
  range: str  # `uniform:LOW:HIGH` or `log:LOW:HIGH`; empty for a list.
  kind: type  # Of the values.


Space = dict[str, Dimension]
"""By name of the option, in alphabetical order."""


def parse(
  asked: str,
  text: str,
  flag_values: flags.FlagValues,
  kinds: Mapping[str, type],
) -> Space:
  """Reads what `--grid` or `--random` say.

  Args:
    asked: `grid` or `random`.
    text: see the module.
    flag_values: whose flags judge the values.
    kinds: by name of the options that can be swept, the type of their values.

  Raises:
    ValueError: an unknown option, a value that it cannot take, a range where
      none can be, or an option or a value that is there twice.
  """
  space: Space = {}
  for entry in filter(None, map(str.strip, text.split(";"))):
    name, equals, what = (word.strip() for word in entry.partition("="))
    if not equals:
      raise ValueError(
        f"{asked} has {entry!r}; write it as option=value,value and separate"
        " options by semicolons"
      )
    if name not in kinds:
      raise ValueError(f"{asked}: {_unknown(name, flag_values, kinds)}")
    if name in space:
      raise ValueError(f"{asked} has {name} twice; give all its values at once")
    if what.partition(":")[0] in ranges.SHAPES:
      space[name] = _range(asked, name, what, kinds[name])
    else:
      space[name] = _list(asked, name, what, kinds[name], flag_values)
  if not space:
    raise ValueError(
      f"{asked} is {text!r}; name at least one option and its values, such as"
      " learning_rate=1e-3,3e-3"
    )
  return dict(sorted(space.items()))


def grid(space: Space) -> list[dict[str, Any]]:
  """Returns every combination of the values; the last option varies fastest."""
  return [
    dict(zip(space, values, strict=True))
    for values in itertools.product(*(d.values for d in space.values()))
  ]


def draw(space: Space, seed: int, number: int) -> dict[str, Any]:
  """Returns the values of one trial of a random search."""
  return {
    name: _value(name, dimension, _share(seed, number, name))
    for name, dimension in space.items()
  }


def describe(space: Space) -> dict[str, Any]:
  """Returns what makes two sweeps the same: lists of values, and ranges."""
  return {name: d.range or list(d.values) for name, d in space.items()}


def show(value: Any) -> str:
  """Writes a value as a flag does."""
  return str(value).lower() if isinstance(value, bool) else f"{value}"


def show_all(changes: Mapping[str, Any]) -> str:
  """Writes the values of a trial: `learning_rate=0.001, head_width=32`."""
  return ", ".join(f"{name}={show(value)}" for name, value in changes.items())


def _unknown(name: str, flag_values, kinds: Mapping[str, type]) -> str:
  if name in flag_values:
    return (
      f"{name} cannot be swept: it does not belong to one training, or trials"
      " would be judged on different networks"
    )
  near = difflib.get_close_matches(name, kinds, n=1)
  hint = f"did you mean {near[0]}?" if near else "see --help for all of them"
  return f"no option is called {name!r}; {hint}"


def _list(asked: str, name: str, what: str, kind: type, flag_values):
  values = []
  for word in what.split(","):
    try:
      if not word.strip():
        raise ValueError("it is empty")
      if name in flag_values:
        value = flag_values[name].parser.parse(word.strip())
      else:
        value = encoder_options.parse(name, word)
    except (ValueError, TypeError, flags.Error) as error:
      raise ValueError(
        f"{asked}: {name} cannot be {word.strip()!r} ({error})"
      ) from error
    if value in values:
      raise ValueError(f"{asked}: {name} has the value {show(value)} twice")
    values.append(value)
  return Dimension(tuple(values), "", kind)


def _range(asked: str, name: str, what: str, kind: type) -> Dimension:
  if asked == "grid":
    raise ValueError(
      f"grid: {name} is the range {what!r}; list its values, or use --random"
    )
  if kind not in (int, float):
    raise ValueError(f"{asked}: {name} is no number; list its values")
  ranges.numbers(name, what, least=-np.inf, most=np.inf)
  return Dimension((), what, kind)


def _share(seed: int, number: int, name: str) -> float:
  """Returns a number in [0, 1)."""
  digest = hashlib.sha256(f"{seed}/{number}/{name}".encode()).digest()
  return (int.from_bytes(digest[:8], "big") >> 11) / 2.0**53


def _value(name: str, dimension: Dimension, share: float) -> Any:
  if not dimension.range:
    return dimension.values[int(share * len(dimension.values))]
  shape, *ends = dimension.range.split(":")
  low, high = map(float, ends)
  at = np.array([share])
  if dimension.kind is int:
    # Half a unit more on both sides, so that the ends are as likely as others.
    text = f"{shape}:{low - 0.5}:{high + 0.5}"
    found = round(float(ranges.draw(name, text, at)[0]))
    return int(min(max(found, low), high))
  found = float(ranges.draw(name, dimension.range, at)[0])
  return min(max(float(f"{found:.{SIGNIFICANT}g}"), low), high)
