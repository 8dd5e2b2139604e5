"""Options as flags: one list of defaults, that of the frozen dataclasses.

A field of an option class becomes the flag of the same name, unless
`checked.option` says `flag=False`. Its help text is its entry in the class
docstring's `Attributes` section: an option that nothing explains is refused.

A run is repeated by `--flagfile=flags.txt`; a flag after it overrides it.
"""

import dataclasses
import functools
import sys
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

from absl import app, flags

from sne_jax import room
from sne_jax.cli import earlier_flags, help_text

Options = TypeVar("Options")

_DEFINE = {
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  bool: flags.DEFINE_bool,
  str: flags.DEFINE_string,
  tuple[str, ...]: flags.DEFINE_multi_string,
}
OUTPUTS = ("workdir", "zoo", "out", "zoo_out")
"""Flags that name a folder to write in, in one program or the other."""

_HELP = {"help": False, "h": False, "helpshort": False, "helpfull": True}


def words(text: str, separator: str = ",") -> tuple[str, ...]:
  """Returns the words of a list, without blanks around them; none is empty."""
  return tuple(filter(None, map(str.strip, text.split(separator))))


def flag_fields(cls: type) -> Iterator[dataclasses.Field]:
  """Yields the fields of a class that are flags."""
  for field in dataclasses.fields(cls):
    if field.metadata.get("flag", True):
      yield field


def define_flags(
  *option_classes: type,
  prefixes: Mapping[type, str] | None = None,
  flag_values: flags.FlagValues = flags.FLAGS,
) -> None:
  """Defines one flag per field of each class.

  Args:
    *option_classes: dataclasses with fields of type int, float, bool, str or
      tuple[str, ...], which may be given several times. A field without a
      default becomes a required flag.
    prefixes: text put before the flag names of a class, such as `zoo_`.
    flag_values: where the flags go.

  Raises:
    ValueError: a flag of that name exists already, or nothing explains it.
  """
  for cls in option_classes:
    helps, types = help_text.attributes(cls), typing.get_type_hints(cls)
    for field in flag_fields(cls):
      name = (prefixes or {}).get(cls, "") + field.name
      where = f"{cls.__name__}.{field.name}"
      if name in flag_values:
        raise ValueError(
          f"flag --{name} of {where} is already defined; rename one field or"
          " give its class a prefix"
        )
      if not helps.get(field.name):
        raise ValueError(
          f"{where} has no help text; explain it in the Attributes section of"
          f" the docstring of {cls.__name__}"
        )
      _define(name, field, types[field.name], helps[field.name], flag_values)
      vars(flag_values[name])["option"] = (cls, field.name)


def from_flags(
  cls: type[Options],
  *,
  prefix: str = "",
  flag_values: flags.FlagValues = flags.FLAGS,
  changes: Mapping[str, Any] | None = None,
) -> Options:
  """Builds the options of a class from the parsed flags.

  Args:
    cls: the class.
    prefix: that its flags have.
    flag_values: where they are.
    changes: values by name of the flag, in the place of what it says.

  Raises:
    ValueError: what the class's own validation raises.
  """
  names = {prefix + field.name: field.name for field in flag_fields(cls)}
  values = {flag: flag_values[flag].value for flag in names} | {
    flag: value for flag, value in (changes or {}).items() if flag in names
  }
  plain = lambda value: tuple(value) if isinstance(value, list) else value
  return cls(**{names[flag]: plain(value) for flag, value in values.items()})


def resolved(*options: Any) -> dict[str, dict[str, Any]]:
  """Returns `{class name: {field: value}}`, for `config.json`.

  Raises:
    ValueError: two options are of one class.
  """
  result = {}
  for option in options:
    name = type(option).__name__
    if name in result:
      raise ValueError(f"two options of class {name}; give each only once")
    plain = getattr(option, "to_json", None)
    result[name] = plain() if plain else dataclasses.asdict(option)
  return result


def to_flagfile(
  *options: Any, prefixes: Mapping[type, str] | None = None
) -> str:
  """Returns the text of a flagfile that gives exactly these options.

  Raises:
    ValueError: a text value that a flagfile cannot hold (line breaks, or
      blanks at its ends).
  """
  lines = []
  for option in options:
    prefix = (prefixes or {}).get(type(option), "")
    lines.append(f"# {type(option).__name__}")
    for field in flag_fields(type(option)):
      value = getattr(option, field.name)
      for one in value if isinstance(value, tuple) else (value,):
        text = str(one).lower() if isinstance(one, bool) else str(one)
        if text != text.strip() or len(text.splitlines()) > 1:
          raise ValueError(
            f"{field.name}={one!r} cannot stand in a flagfile; remove line"
            " breaks and blanks at its ends"
          )
        lines.append(f"--{prefix}{field.name}={text}")
  return "\n".join(lines) + "\n"


def parse(
  argv: list[str],
  flag_values: flags.FlagValues = flags.FLAGS,
  *,
  positional: bool = False,
  page: help_text.Page | None = None,
) -> list[str]:
  """Parses the flags; a wrong one, or a stray argument, ends the program.

  Args:
    argv: the command line.
    flag_values: where the flags are.
    positional: whether there may be arguments besides.
    page: what `--help` prints before the program ends with 0.
  """
  try:
    given = flag_values.read_flags_from_files(argv[1:], force_gnu=False)
    asked = [a.lstrip("-") for a in given if a.startswith("-")]
    asked = [_HELP[name] for name in asked if name in _HELP]
    if page and asked:
      given = [a for a in given if a.lstrip("-") not in _HELP]
      flag_values([argv[0], *given], known_only=True)
      print(page.text(flag_values, full=any(asked)), end="")  # noqa: T201
      sys.exit(0)
    rest = flag_values([argv[0], *earlier_flags.translated(given, flag_values)])
  except (flags.Error, UnicodeDecodeError, OSError) as error:
    leave(str(error))
  if len(rest) > 1 and not positional:
    leave(f"unexpected argument {rest[1]!r}; options are given as --name=value")
  return rest


def guarded(
  main: Callable[[list[str]], int | None],
  argv: list[str],
  flag_values: flags.FlagValues = flags.FLAGS,
) -> int | None:
  """Runs `main(argv)`; a fault of the user ends the program with one line."""
  try:
    return main(argv)
  except KeyboardInterrupt:
    leave("interrupted; the same command continues", code=130)
  except Exception as error:
    lacking = room.shortage(error)
    own = _is_users(error) and not isinstance(error, OSError)
    worded = own and lacking not in room.OF_FILES  # No file is at fault then.
    short = "" if worded else room.explained(error, _folders(flag_values))
    if not short and not _is_users(error):
      raise
    if "traceback" in flag_values and flag_values["traceback"].value:
      traceback.print_exc()
    code = room.EXIT_CODE if short or lacking is not None else 2
    leave(short or str(error) or type(error).__name__, code)


def run_main(
  main: Callable[[list[str]], int | None],
  *,
  positional: bool = False,
  page: help_text.Page | None = None,
  argv: list[str] | None = None,
) -> NoReturn:
  """Parses the flags and runs `main(argv)`; faults of the user take one line.

  A wrong flag, a stray argument, a `ValueError` raised by this project's own
  code, a `RuntimeError` of a class of its own (training that diverged, a
  checkpoint that cannot be read), an `OSError` (a missing file), and whatever a
  full disk, a limit or want of memory has caused (`room`), are written to
  stderr as `error: ...`. The exit code is 2, or 75 where the same command
  continues once there is room. Anything else is a fault of the code and keeps
  its traceback; `--traceback` shows that of the former too.

  Args:
    main: is given the arguments that are no flags, the program first.
    positional: whether there may be any besides the program.
    page: what `--help` prints; None: the program's docstring, and all flags.
    argv: the command line, the program first; None: that of the process.
  """
  if "traceback" not in flags.FLAGS:
    flags.DEFINE_bool(
      "traceback", False, "Show where an error was raised, not only its line."
    )
  doc = sys.modules["__main__"].__doc__ or ""
  page = page or help_text.Page(doc=doc)
  parser = functools.partial(parse, positional=positional, page=page)
  app.run(functools.partial(guarded, main), argv, flags_parser=parser)
  raise AssertionError("app.run always exits")


def _folders(flag_values: flags.FlagValues) -> list[str]:
  """Returns the folders that flags name to write in, where they are known."""
  names = [name for name in OUTPUTS if name in flag_values]
  values = [flag_values[name].value for name in names]
  return [text for text in values if isinstance(text, str) and text]


def leave(message: str, code: int = 2) -> NoReturn:
  """Ends the program with one line."""
  sys.stderr.write(f"error: {' '.join(message.split())}\n")
  sys.exit(code)


def _is_users(error: BaseException) -> bool:
  """Whether an error is the user's to mend, not ours."""
  if isinstance(error, OSError):
    return True
  if isinstance(error, RuntimeError):  # JAX raises plain ones, too.
    return _is_ours(type(error).__module__)
  return isinstance(error, ValueError) and _is_own(error)


def _is_ours(module: str) -> bool:
  return module.partition(".")[0] in ("sne_jax", "experiments", "__main__")


def _is_own(error: BaseException) -> bool:
  """Whether the code that raised belongs to this project."""
  frame = error.__traceback__
  while frame is not None and frame.tb_next is not None:
    frame = frame.tb_next
  if frame is None:
    return False
  return _is_ours(frame.tb_frame.f_globals.get("__name__", ""))


def _define(name, field, kind, explanation, flag_values) -> None:
  default = field.default
  if default is dataclasses.MISSING:
    default = None
    if field.default_factory is not dataclasses.MISSING:
      default = field.default_factory()
  default = list(default) if isinstance(default, tuple) else default
  _DEFINE[kind](name, default, explanation, flag_values=flag_values)
  if default is None:
    flags.mark_flag_as_required(name, flag_values=flag_values)
