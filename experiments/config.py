"""Options as flags: one list of defaults, that of the frozen dataclasses.

A field of an option class becomes the flag of the same name. Its help text is
the field's metadata `help`, or its entry in the class docstring's `Attributes`
section, or the string below it, or the comment beside or above it: an option
that nothing explains is refused. Metadata `choices` makes an enumeration.

A run is repeated by `--flagfile=flags.txt`; a flag after it overrides it.
"""

import ast
import dataclasses
import functools
import inspect
import re
import sys
import textwrap
import tokenize
import traceback
import typing
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from absl import app, flags

from experiments.environment import environment as environment

Options = TypeVar("Options")

_DEFINE = {
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  bool: flags.DEFINE_bool,
  str: flags.DEFINE_string,
}


def define_flags(
  *option_classes: type,
  prefixes: Mapping[type, str] | None = None,
  flag_values: flags.FlagValues = flags.FLAGS,
) -> None:
  """Defines one flag per field of each class.

  Args:
    *option_classes: dataclasses with fields of type int, float, bool or str.
      A field without a default becomes a required flag.
    prefixes: text put before the flag names of a class, such as `zoo_`.
    flag_values: where the flags go.

  Raises:
    ValueError: two fields give the same flag, a flag of that name exists
      already, a field has another type, or nothing explains it. Then no flag
      has been defined.
  """
  owners: dict[str, str] = {}
  chosen = []
  for cls in option_classes:
    helps, types = _help_texts(cls), typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
      name = (prefixes or {}).get(cls, "") + field.name
      where = f"{cls.__name__}.{field.name}"
      if name in owners or name in flag_values:
        owner = owners.get(name)
        owner = owner or flag_values.find_module_defining_flag(name)
        raise ValueError(
          f"flag --{name} of {where} is already defined by {owner}; rename"
          " one field or give its class a prefix"
        )
      if types[field.name] not in _DEFINE:
        raise ValueError(
          f"{where} is of type {types[field.name]}; a flag needs one of int,"
          " float, bool, str"
        )
      if not helps.get(field.name):
        raise ValueError(
          f"{where} has no help text; explain it in the Attributes section of"
          f" the docstring of {cls.__name__}"
        )
      owners[name] = where
      chosen.append((name, field, types[field.name], helps[field.name]))
  for name, field, kind, help_text in chosen:
    _define(name, field, kind, help_text, flag_values)


def from_flags(
  cls: type[Options],
  *,
  prefix: str = "",
  flag_values: flags.FlagValues = flags.FLAGS,
) -> Options:
  """Builds the options of a class from the parsed flags.

  Raises:
    ValueError: what the class's own validation raises.
  """
  names = [field.name for field in dataclasses.fields(cls)]  # pyright: ignore
  return cls(**{name: flag_values[prefix + name].value for name in names})


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
    result[name] = dataclasses.asdict(option)
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
    for name, value in dataclasses.asdict(option).items():
      text = str(value).lower() if isinstance(value, bool) else str(value)
      if text != text.strip() or len(text.splitlines()) > 1:
        raise ValueError(
          f"{name}={value!r} cannot stand in a flagfile; remove line breaks"
          " and blanks at its ends"
        )
      lines.append(f"--{prefix}{name}={text}")
  return "\n".join(lines) + "\n"


def parse(
  argv: list[str],
  flag_values: flags.FlagValues = flags.FLAGS,
  *,
  positional: bool = False,
) -> list[str]:
  """Parses the flags; a wrong one, or a stray argument, ends the program.

  Args:
    argv: the command line.
    flag_values: where the flags are.
    positional: whether there may be arguments besides.
  """
  try:
    rest = flag_values(argv)
  except (flags.Error, UnicodeDecodeError, OSError) as error:
    _exit(str(error))
  if len(rest) > 1 and not positional:
    _exit(f"unexpected argument {rest[1]!r}; options are given as --name=value")
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
    _exit("interrupted; the same command continues", code=130)
  except (ValueError, OSError, RuntimeError) as error:
    if not _is_users(error):
      raise
    if "traceback" in flag_values and flag_values["traceback"].value:
      traceback.print_exc()
    _exit(str(error) or type(error).__name__)


def run_main(
  main: Callable[[list[str]], int | None], *, positional: bool = False
) -> NoReturn:
  """Parses the flags and runs `main(argv)`; faults of the user take one line.

  A wrong flag, a stray argument, a `ValueError` raised by this project's own
  code, a `RuntimeError` of a class of its own (training that diverged, a
  checkpoint that cannot be read), and an `OSError` (a missing file, a full
  disk) are written to stderr as `error: ...`, and the exit code is 2. Anything
  else is a fault of the code and keeps its traceback; `--traceback` shows that
  of the former too.

  Args:
    main: is given the arguments that are no flags, the program first.
    positional: whether there may be any besides the program.
  """
  if "traceback" not in flags.FLAGS:
    flag = flags.DEFINE_bool(
      "traceback", False, "Show where an error was raised, not only its line."
    )
    flags.FLAGS.register_key_flag_for_module(
      sys.argv[0], flags.FLAGS[flag.name]
    )
  parser = functools.partial(parse, positional=positional)
  app.run(functools.partial(guarded, main), flags_parser=parser)
  raise AssertionError("app.run always exits")


def _exit(message: str, code: int = 2) -> NoReturn:
  sys.stderr.write(f"error: {' '.join(message.split())}\n")
  sys.exit(code)


def _is_users(error: BaseException) -> bool:
  """Whether an error is the user's to mend, not ours."""
  if isinstance(error, OSError):
    return True
  if isinstance(error, RuntimeError):  # JAX raises plain ones, too.
    return _is_ours(type(error).__module__)
  return _is_own(error)


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


def _define(name, field, kind, help_text, flag_values) -> None:
  default = field.default
  if default is dataclasses.MISSING:
    default = None
    if field.default_factory is not dataclasses.MISSING:
      default = field.default_factory()
  choices = field.metadata.get("choices")
  if choices:
    flags.DEFINE_enum(
      name, default, list(choices), help_text, flag_values=flag_values
    )
  else:
    _DEFINE[kind](name, default, help_text, flag_values=flag_values)
  # --help shows the key flags of the program that was started.
  flag_values.register_key_flag_for_module(sys.argv[0], flag_values[name])
  if default is None:
    flags.mark_flag_as_required(name, flag_values=flag_values)


def _help_texts(cls: type) -> dict[str, str]:
  """Finds what explains each field; base classes count, nearest first."""
  texts: dict[str, str] = {}
  for base in reversed(cls.__mro__[:-1]):
    texts |= _comments(base)
    texts |= _attributes(base.__doc__ or "")
  for field in dataclasses.fields(cls):
    if "help" in field.metadata:
      texts[field.name] = field.metadata["help"]
  return texts


def _attributes(docstring: str) -> dict[str, str]:
  """Reads the `Attributes` section of a google docstring."""
  text = inspect.cleandoc(docstring)
  section = re.search(r"^Attributes:\n((?:[ \t]+.*\n?|\n)*)", text, re.M)
  if section is None:
    return {}
  body = textwrap.dedent(section.group(1))
  entries = re.findall(
    r"^(\w+)[^:\n]*:((?:.*\n?)(?:[ \t]+.*\n?|\n)*)", body, re.M
  )
  return {name: " ".join(text.split()) for name, text in entries}


def _comments(cls: type) -> dict[str, str]:
  """Reads the strings below, and the comments beside or above, the fields."""
  try:
    source = textwrap.dedent(inspect.getsource(cls))
  except (OSError, TypeError):
    return {}
  body = ast.parse(source).body[0]
  if not isinstance(body, ast.ClassDef):
    return {}
  comments = {}
  for token in tokenize.generate_tokens(iter(source.splitlines(True)).__next__):
    if token.type == tokenize.COMMENT:
      alone = token.line.strip().startswith("#")
      comments[token.start[0]] = (alone, token.string.lstrip("#: "))
  texts = {}
  for place, node in enumerate(body.body):
    if not isinstance(node, ast.AnnAssign) or not isinstance(
      node.target, ast.Name
    ):
      continue
    after = body.body[place + 1 : place + 2]
    if after and isinstance(after[0], ast.Expr):
      value = getattr(after[0].value, "value", None)
      if isinstance(value, str):
        texts[node.target.id] = " ".join(value.split())
        continue
    last = node.end_lineno or node.lineno
    words = []
    if last in comments:
      words.append(comments[last][1])
    line = node.lineno - 1
    above = []
    while not words and comments.get(line, (False, ""))[0]:
      above.insert(0, comments[line][1])
      line -= 1
    texts[node.target.id] = " ".join(words + above)
  return texts
