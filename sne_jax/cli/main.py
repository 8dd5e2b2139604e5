"""The command `sne-jax`: finds the subcommand, and runs it with its flags.

A subcommand is a module of `commands/` with `CLASSES`, the options that are its
flags, and `main(argv, flag_values)`. It may have `TOPICS`, what `--help` shows;
`DEFAULTS`, by name of the flag; `PREFIXES` of flags, by class; `more`, what
else `--help` shows; and `before(flag_values)`, what comes before `main`.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from absl import flags

from sne_jax.cli import compiled, config, console, help_text
from sne_jax.version import VERSION

PROGRAM = "sne-jax"

COMMANDS = {
  "train": "learn a property of networks from a folder and a table",
  "predict": "say it of other files, with intervals",
  "encode": "write the codes of networks",
  "edit": "change networks that are images, by their weights",
  "inspect": "show what network a file holds",
  "zoo": "make a zoo of networks to learn from",
  "convert": "convert a published zoo",
  "sweep": "search over the options of train",
  "models": "list models to begin with, or give one away",
  "explore": "show a zoo, or a run, as a page for the browser",
}
"""What each does, in a few words."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
  """Runs the subcommand of a command line, and ends the process."""
  _, *rest = sys.argv if argv is None else argv
  word = rest[0] if rest else ""
  if word in ("", "-h", "help", "--help", "-help", "--helpfull"):
    (sys.stdout if word else sys.stderr).write(page())
    sys.exit(0 if word else 2)
  if word in ("--version", "-version"):
    sys.stdout.write(f"{PROGRAM} {VERSION}\n")
    sys.exit(0)
  if word in ("--completion", "-completion"):
    completion = importlib.import_module("sne_jax.cli.completion")
    sys.stdout.write(completion.script())
    sys.exit(0)
  if word not in COMMANDS:
    near = difflib.get_close_matches(word, COMMANDS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    config.leave(
      f"there is no command {word!r}; {hint}There are {', '.join(COMMANDS)},"
      f" and flags follow: {PROGRAM} train --help"
    )
  start(word, f"{PROGRAM} {word}", rest[1:])


def start(
  command: str,
  program: str,
  arguments: Sequence[str],
  code: Sequence[str] = (),
) -> NoReturn:
  """Runs a subcommand, and ends the process.

  Args:
    command: one of `COMMANDS`.
    program: what its `--help` calls it.
    arguments: flags, and names of files.
    code: folders, besides the library's, whose log lines are shown.
  """
  module = importlib.import_module(f"sne_jax.cli.commands.{command}")
  define_flags(module)
  console.setup(code)
  doc = (module.__doc__ or "").replace(f"{PROGRAM} {command}", program)
  shown = help_text.Page(
    doc=doc,
    topics=getattr(module, "TOPICS", {}),
    more=getattr(module, "more", None),
  )
  before = getattr(module, "before", None)

  def begin(argv: list[str]) -> int | None:
    if "compilation_cache" not in flags.FLAGS:
      compiled.keep()
    if before:
      before(flags.FLAGS)
    return module.main(argv)

  config.run_main(
    begin,
    positional=getattr(module, "POSITIONAL", True),
    page=shown,
    argv=[program, *arguments],
  )


def define_flags(module, flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the flags of a subcommand, with its defaults."""
  prefixes = getattr(module, "PREFIXES", {})
  config.define_flags(
    *module.CLASSES, prefixes=prefixes, flag_values=flag_values
  )
  for name, value in getattr(module, "DEFAULTS", {}).items():
    flag_values.set_default(name, value)


def page() -> str:
  """Returns what `sne-jax --help` prints."""
  width = max(map(len, COMMANDS))
  lines = [f"  {name:{width}}  {said}" for name, said in COMMANDS.items()]
  return "\n".join(
    [
      f"usage: {PROGRAM} COMMAND [--flag=value ...] [files]",
      "",
      *lines,
      "",
      f"{PROGRAM} COMMAND --help shows its flags; --flagfile=FILE reads flags"
      " from a file.",
      f"{PROGRAM} --completion > FILE, and source FILE in a shell, completes"
      " both.",
      "",
    ]
  )


if __name__ == "__main__":
  main()
