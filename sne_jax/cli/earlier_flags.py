"""Command lines and flagfiles of earlier versions, as ones of this version."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from absl import flags

from sne_jax.networks import checked


def translated(
  arguments: Sequence[str], flag_values: flags.FlagValues
) -> list[str]:
  """Returns the arguments in the flags that there are now.

  What was a flag and is now an item of another (`--encoder_option`, whose field
  says so by its metadata `takes`) becomes one. What is gone (`checked.GONE`),
  and options of Python alone, are left out where they say what remains.

  Raises:
    flags.Error: it says something else.
  """
  takers, gone = {}, {}
  for flag in (flag_values[name] for name in flag_values):
    if "option" not in vars(flag):
      continue
    cls, field = vars(flag)["option"]
    metadata = cls.__dataclass_fields__[field].metadata
    if "takes" in metadata:
      takers[flag.name] = metadata["takes"]
      gone |= metadata["gone"]()
    prefix = flag.name.removesuffix(field)
    for other, value in checked.GONE.get(cls.__name__, {}).items():
      gone[prefix + other] = value
    for other in dataclasses.fields(cls):
      if not other.metadata.get("flag", True):
        gone[prefix + other.name] = other.default
  result = []
  for argument in arguments:
    name, equals, text = argument.lstrip("-").partition("=")
    text = text if equals else "true"
    if name in takers and text.partition("=")[0] in gone:
      name, _, text = text.partition("=")
    is_known = lambda n: n in gone or any(takes(n) for takes in takers.values())
    if not equals and name.startswith("no") and is_known(name[2:]):
      name, text = name[2:], "false"
    taker = next((flag for flag, takes in takers.items() if takes(name)), "")
    if not argument.startswith("-") or name in flag_values:
      result.append(argument)
    elif taker:
      result.append(f"--{taker}={name}={text}")
    elif name not in gone:
      result.append(argument)
    elif not _says(text, gone[name]):
      raise flags.Error(
        f"--{name}={text}: this option is gone; only {gone[name]!r} remains"
      )
  return result


def _says(text: str, value: Any) -> bool:
  """Whether the text of a flag means a value."""
  if isinstance(value, bool | str):
    return text.lower() == str(value).lower()
  try:
    return float(text) == value
  except ValueError:
    return False
