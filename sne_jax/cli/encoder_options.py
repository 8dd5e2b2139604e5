"""Options of the encoders as items of one flag: `--encoder_option name=value`.

SNE, the default encoder, has flags of its own. The options of all others are
named as their row of the table says, prefix and field (`stat_width`), and are
typed and checked by their class. Encoders of somebody else's file are among
them, once `--encoder_file` has named it.
"""

import dataclasses
import difflib
import functools
import importlib
import importlib.util
import pathlib
import sys
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import flags, logging

from sne_jax.cli import config, help_text
from sne_jax.encoders import table
from sne_jax.encoders.sne.options import SNEOptions
from sne_jax.networks import checked
from sne_jax.networks.chunking import ChunkOptions

PARSERS: dict[type, flags.ArgumentParser] = {
  int: flags.IntegerParser(),
  float: flags.FloatParser(),
  bool: flags.BooleanParser(),
  str: flags.ArgumentParser(),
}


_FLAGS = {
  field.name
  for cls in (SNEOptions, ChunkOptions)
  for field in config.flag_fields(cls)
}


class Known(typing.NamedTuple):
  """An option of an encoder: its class, its field there, and its type."""

  cls: type
  field: dataclasses.Field
  kind: type


def known() -> dict[str, Known]:
  """Returns every option of an encoder other than SNE, by name."""
  return {
    row.prefix + field.name: Known(row.options, field, kinds[field.name])
    for row in table.ENCODERS.values()
    if row.options is not SNEOptions
    for kinds in (typing.get_type_hints(row.options),)
    for field in dataclasses.fields(row.options)
  }


def gone() -> dict[str, Any]:
  """Returns options of earlier versions: by name, the value that remains."""
  return {
    row.prefix + name: value
    for row in table.ENCODERS.values()
    if row.options is not SNEOptions
    for name, value in checked.GONE.get(row.options.__name__, {}).items()
  }


def owners(name: str) -> tuple[str, ...]:
  """Returns the encoders that have an option; () where none has it."""
  return tuple(
    encoder
    for encoder, row in table.ENCODERS.items()
    if row.options is not SNEOptions
    and name in {row.prefix + f.name for f in dataclasses.fields(row.options)}
  )


def parse(name: str, text: str) -> Any:
  """Returns the value that a text gives to an option.

  Raises:
    ValueError: no option is called so, or it cannot take the value.
  """
  options = known()
  if name not in options and name in _FLAGS:
    raise ValueError(
      f"encoder_option: {name} is a flag of its own; use --{name}={text}"
    )
  if name not in options:
    near = difflib.get_close_matches(name, options, n=1)
    hint = f"did you mean {near[0]}?" if near else "--help lists an encoder's"
    raise ValueError(f"encoder_option: no option is called {name!r}; {hint}")
  try:
    return PARSERS[options[name].kind].parse(text.strip())
  except ValueError as error:
    raise ValueError(
      f"encoder_option: {name} cannot be {text!r} ({error})"
    ) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderOptions:
  """Options of the encoders other than sne.

  Attributes:
    encoder_option: name=value of an option of an encoder, such as
      stat_width=1000; given once for each. `--encoder=NAME --help` lists those
      of an encoder.

  Raises:
    ValueError: an item is no `name=value`, no option is called so, or it
      cannot take the value; the last of one name counts.
  """

  encoder_option: tuple[str, ...] = dataclasses.field(
    default=(),
    metadata={"takes": lambda name: name in known(), "gone": lambda: gone()},
  )

  def __post_init__(self):
    """Writes the items in one way: sorted, each name once."""
    for item in self.encoder_option:
      if "=" not in item:
        raise ValueError(
          f"encoder_option is {item!r}; write it as name=value, such as"
          " stat_width=1000"
        )
    pairs = [item.split("=", 1) for item in self.encoder_option]
    values = {name.strip(): parse(name.strip(), text) for name, text in pairs}
    items = tuple(f"{n}={_text(values[n])}" for n in sorted(values))
    object.__setattr__(self, "encoder_option", items)
    for row in table.ENCODERS.values():
      if row.options is not SNEOptions:
        self.of(row)  # Raises.

  @functools.cached_property
  def values(self) -> dict[str, Any]:
    """The value of every option that is set, by name."""
    pairs = (item.split("=", 1) for item in self.encoder_option)
    return {name: parse(name, text) for name, text in pairs}

  def replaced(self, values: Mapping[str, Any]) -> "EncoderOptions":
    """Returns the options with some set, by name."""
    items = (f"{name}={_text(value)}" for name, value in values.items())
    return EncoderOptions(encoder_option=(*self.encoder_option, *items))

  def of(self, row: table.Row) -> Any:
    """Returns the options of the encoder of a row.

    Raises:
      ValueError: values that do not go together.
    """
    mine = {
      row.prefix + f.name: f.name for f in dataclasses.fields(row.options)
    }
    given = {mine[n]: v for n, v in self.values.items() if n in mine}
    try:
      return row.options(**given)
    except ValueError as error:  # It begins with the name of the field.
      raise ValueError(f"{row.prefix}{error}") from error

  def complete(self, names: Iterable[str]) -> "EncoderOptions":
    """Returns every option of some encoders, set or not, and no others.

    A file of them repeats a run even where a default has changed.
    """
    values = {}
    for row in (table.row(name) for name in names):
      if row.options is not SNEOptions:
        fields = dataclasses.asdict(self.of(row))
        values |= {row.prefix + name: value for name, value in fields.items()}
    return EncoderOptions(encoder_option=()).replaced(values)

  def unused(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Returns set options of none of some encoders: name to its encoders."""
    having = {name: owners(name) for name in self.values}
    return {n: of for n, of in having.items() if not set(of) & set(names)}

  def warn_of_unused(self, names: Sequence[str], encoder: str = "") -> None:
    """Logs the options that are set of encoders which take no part.

    Args:
      names: encoders that take part.
      encoder: what is said where there are none.
    """
    for option, of in self.unused(names).items():
      logging.warning(
        "encoder_option: %s is left out: it is for %s, and the encoder is %s",
        option,
        " and ".join(of),
        ", ".join(names) or encoder,
      )

  def to_json(self) -> dict[str, Any]:
    """Returns what `config.json` holds."""
    return dict(self.values)


def fields(
  classes: Iterable[type], prefixes: Mapping[type, str] | None = None
) -> dict[str, tuple[type, str, type]]:
  """Returns class, name there and type of every option, by name.

  The name is that of the flag, or, of an option of an encoder, that which
  `--encoder_option` knows.
  """
  by_name: dict[str, tuple[type, str, type]] = {}
  for cls in classes:
    kinds = typing.get_type_hints(cls)
    for field in config.flag_fields(cls):
      if cls is not EncoderOptions:
        name = (prefixes or {}).get(cls, "") + field.name
        by_name[name] = (cls, field.name, kinds[field.name])
  for name, row in known().items():
    by_name[name] = (EncoderOptions, name, row.kind)
  return by_name


def described(name: str) -> str:
  """Returns what `--help` shows of the options of an encoder; "" for sne."""
  row = table.row(name)
  if row.options is SNEOptions:
    return ""
  said = help_text.attributes(row.options)
  entries = [
    (f"{row.prefix}{field.name}", field.default, said.get(field.name, ""))
    for field in dataclasses.fields(row.options)
  ]
  first = f"{entries[0][0]}={help_text.show(entries[0][1])}"
  return help_text.section(
    f"Options of {name}, given as --encoder_option={first}", entries
  )


def load_files(text: str) -> None:
  """Runs Python files, or modules, that register encoders; each once.

  Args:
    text: paths that end in .py, and names of modules, separated by commas.

  Raises:
    ValueError: there is no such file or module.
  """
  for word in config.words(text):
    if not word.endswith(".py"):
      try:
        importlib.import_module(word)
      except ModuleNotFoundError as error:
        raise ValueError(f"encoder_file: {error}; name a file .py") from error
      continue
    path = pathlib.Path(word).resolve()
    if not path.is_file():
      raise ValueError(f"encoder_file: there is no file {word}")
    known_files = {getattr(m, "__file__", None) for m in sys.modules.values()}
    if str(path) in known_files:
      continue
    name = path.stem if path.stem not in sys.modules else str(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Dataclasses look for their module there.
    try:
      spec.loader.exec_module(module)
    except BaseException:
      del sys.modules[name]
      raise


def _text(value: Any) -> str:
  return str(value).lower() if isinstance(value, bool) else str(value)
