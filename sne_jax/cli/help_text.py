"""What `--help` and `--helpfull` print.

`--help` shows the flags that a program names by topic, the common ones first,
each with its default and the first sentence of its explanation; a program that
names no topics shows all of its own. `--helpfull` shows every flag in full.
"""

import dataclasses
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags

WIDTH = 80
TWO_LINES = 140
"""Characters that two lines surely hold."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
  """What a program says of itself.

  Attributes:
    doc: its docstring.
    topics: names of the flags that `--help` shows, by heading; empty: all.
    more: what else it shows, from the flags that stand beside `--help`.
  """

  doc: str
  topics: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
  more: Callable[[flags.FlagValues], str] | None = None

  def text(self, flag_values: flags.FlagValues, *, full: bool) -> str:
    """Returns the whole page."""
    ours = {n: flag_values[n] for n in flag_values if _owner(flag_values[n])}
    parts = [inspect.cleandoc(self.doc)]
    if self.topics and not full:
      for topic, names in self.topics.items():
        some = [ours[name] for name in names]
        parts.append(section(topic, _described(some, full=False)))
    else:
      by_class = itertools.groupby(ours.values(), key=_owner)
      for cls, some in by_class:
        heading = (cls.__doc__ or cls.__name__).splitlines()[0]
        parts.append(section(heading, _described(some, full=full)))
    if self.more:
      parts.append(self.more(flag_values))
    if full:
      parts.append("Logging and debugging (absl)\n" + _others(flag_values))
    elif self.topics:
      parts.append("--helpfull shows all flags, and all that is said of them.")
    return "\n\n".join(filter(None, parts)) + "\n"


def section(heading: str, entries: Iterable[tuple[str, Any, str]]) -> str:
  """Returns a heading and its entries `(name, default, explanation)`."""
  lines = [heading]
  for name, default, explanation in entries:
    lines.append(f"  {name}={show(default)}")
    lines += textwrap.wrap(
      explanation,
      WIDTH,
      initial_indent=" " * 6,
      subsequent_indent=" " * 6,
      break_on_hyphens=False,
    )
  return "\n".join(lines)


def shortened(explanation: str) -> str:
  """Returns the first sentence, or as many of its clauses as two lines hold."""
  said = re.split(r"(?<=\.)\s", explanation, maxsplit=1)[0]
  while len(said) > TWO_LINES and re.search("[,;:(] ?", said):
    said = re.match(r"(.*)[,;:(]", said).group(1).rstrip() + "."  # pyright: ignore
  return said


def show(value: Any) -> str:
  """Writes a value as a flag does."""
  if isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, list | tuple):
    return ",".join(map(show, value))
  return f'"{value}"' if " " in str(value) else str(value)


def attributes(cls: type) -> dict[str, str]:
  """Returns what the `Attributes` section of a class says of each field.

  Base classes count, nearest first.
  """
  texts: dict[str, str] = {}
  for base in reversed(cls.__mro__[:-1]):
    text = inspect.cleandoc(base.__doc__ or "")
    match = re.search(r"^Attributes:\n((?:[ \t]+.*\n?|\n)*)", text, re.M)
    body = textwrap.dedent(match.group(1)) if match else ""
    entries = re.findall(
      r"^(\w+)[^:\n]*:((?:.*\n?)(?:[ \t]+.*\n?|\n)*)", body, re.M
    )
    texts |= {name: " ".join(entry.split()) for name, entry in entries}
  return texts


def _described(
  some: Iterable[flags.Flag], *, full: bool
) -> Iterator[tuple[str, Any, str]]:
  for flag in some:
    default = "" if flag.default is None else flag.default
    yield f"--{flag.name}", default, _explained(flag, full=full)


def _explained(flag: flags.Flag, *, full: bool) -> str:
  """Returns the help of a flag.

  Where a short form does not name all choices, they are added.
  """
  text = " ".join((flag.help or "").split())
  if full:
    return text
  text = shortened(text)
  cls, field = vars(flag)["option"]
  choices = cls.__dataclass_fields__[field].metadata.get("choices", ())
  if any(word not in text for word in choices):
    text = f"{text.rstrip('.')} ({', '.join(filter(None, choices))})."
  return text


def _owner(flag: flags.Flag) -> Any:
  return vars(flag).get("option", (None,))[0]


def _others(flag_values: flags.FlagValues) -> str:
  """Returns the flags that belong to no options: those of absl."""
  names = [name for name in flag_values if not _owner(flag_values[name])]
  single = {flag_values[name].name: flag_values[name] for name in names}
  some = [single[name] for name in sorted(single)]
  return section("", _described(some, full=True)).lstrip("\n")
