"""What a sweep varies, from text to the distributions of Optuna.

`learning_rate=1e-3,3e-3;head_width=32,64` names options and their values, as
`sne_jax/zoo/classifiers/ranges.py` writes them: a list (words, integers and
booleans too), `uniform:LOW:HIGH` or `log:LOW:HIGH`.
"""

import difflib
import itertools
from collections.abc import Container, Mapping
from typing import Any

import numpy as np
import optuna
from optuna import distributions

from sne_jax.cli import config, encoder_options
from sne_jax.zoo.classifiers import ranges

Space = dict[str, distributions.BaseDistribution]
"""By name of the option, in alphabetical order."""


def parse(
  asked: str, text: str, kinds: Mapping[str, type], known: Container[str]
) -> Space:
  """Reads what `--grid` or `--random` say.

  Args:
    asked: `grid` or `random`.
    text: see the module.
    kinds: by name of the options that can be swept, the type of their values.
    known: names of all flags.

  Raises:
    ValueError: an unknown option, a value that it cannot take, or an option or
      a value that is there twice.
  """
  space: Space = {}
  for entry in config.words(text, ";"):
    name, equals, what = (word.strip() for word in entry.partition("="))
    if not equals:
      raise ValueError(
        f"{asked} has {entry!r}; write it as option=value,value and separate"
        " options by semicolons"
      )
    if name not in kinds and name in known:
      raise ValueError(
        f"{asked}: {name} cannot be swept: it does not belong to one training,"
        " or trials would be judged on different networks"
      )
    if name not in kinds:
      near = difflib.get_close_matches(name, kinds, n=1)
      hint = f"did you mean {near[0]}?" if near else "see --help for all"
      raise ValueError(f"{asked}: no option is called {name!r}; {hint}")
    if name in space:
      raise ValueError(f"{asked} has {name} twice; give all its values at once")
    is_range = what.partition(":")[0] in ranges.SHAPES
    space[name] = (_range if is_range else _list)(
      asked, name, what, kinds[name]
    )
  if not space:
    raise ValueError(
      f"{asked} is {text!r}; name at least one option and its values, such as"
      " learning_rate=1e-3,3e-3"
    )
  return dict(sorted(space.items()))


def grid(space: Space) -> list[dict[str, Any]]:
  """Returns every combination of the values; the last option varies fastest.

  Raises:
    ValueError: an option has a range.
  """
  lists = [getattr(of, "choices", None) for of in space.values()]
  for name, values in zip(space, lists, strict=True):
    if values is None:
      raise ValueError(
        f"grid: {name} is a range; list its values, or use --random"
      )
  combinations = itertools.product(*filter(None, lists))
  return [dict(zip(space, values, strict=True)) for values in combinations]


def draw(space: Space, seed: int, number: int) -> dict[str, Any]:
  """Returns the values of one trial of a random search.

  They depend on the arguments alone, so that trials may be added later.
  """
  sampler = optuna.samplers.RandomSampler(seed_of(seed, number))
  return optuna.create_study(sampler=sampler).ask(space).params


def seed_of(seed: int, number: int) -> int:
  """Returns the seed of what is drawn for one trial."""
  return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def describe(space: Space) -> dict[str, Any]:
  """Returns what makes two sweeps the same: lists of values, and ranges."""
  return {
    n: getattr(of, "choices", None) or repr(of) for n, of in space.items()
  }


def show(value: Any) -> str:
  """Writes a value as a flag does, numbers with four significant digits."""
  if isinstance(value, float):
    return f"{value:.4g}"
  return str(value).lower() if isinstance(value, bool) else f"{value}"


def show_all(changes: Mapping[str, Any]) -> str:
  """Writes the values of a trial: `learning_rate=0.001, head_width=32`."""
  return ", ".join(f"{name}={show(value)}" for name, value in changes.items())


def _list(asked: str, name: str, what: str, kind: type):
  values = []
  for word in map(str.strip, what.split(",")):
    try:
      if not word:
        raise ValueError("it is empty")
      value = encoder_options.PARSERS[kind].parse(word)
    except (ValueError, TypeError) as error:
      raise ValueError(
        f"{asked}: {name} cannot be {word!r} ({error})"
      ) from error
    if value in values:
      raise ValueError(f"{asked}: {name} has the value {show(value)} twice")
    values.append(value)
  return distributions.CategoricalDistribution(values)


def _range(asked: str, name: str, what: str, kind: type):
  if kind not in (int, float):
    raise ValueError(f"{asked}: {name} is no number; list its values")
  ranges.numbers(name, what, least=-np.inf, most=np.inf)
  shape, low, high = what.split(":")
  log = shape == "log"
  if kind is float:
    return distributions.FloatDistribution(float(low), float(high), log=log)
  if not (float(low).is_integer() and float(high).is_integer()):
    raise ValueError(f"{asked}: {name} takes whole numbers, got {what!r}")
  low, high = int(float(low)), int(float(high))
  return distributions.IntDistribution(low, high, log=log)
