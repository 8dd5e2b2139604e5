"""What completes commands and flags in a shell: `sne-jax --completion`."""

import importlib
from collections.abc import Mapping

from absl import flags

from sne_jax.cli import main

_SCRIPT = """\
# To be sourced by bash; by zsh after autoload -U bashcompinit && bashcompinit.
_sne_jax() {
  local word="${COMP_WORDS[COMP_CWORD]}" flags=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=( $(compgen -W "%(commands)s" -- "$word") )
    [ "${#COMPREPLY[@]}" -eq 1 ] && COMPREPLY[0]+=" "
    return
  fi
  case "${COMP_WORDS[1]}" in
%(cases)s
  esac
  case "$word" in
    -*) COMPREPLY=( $(compgen -W "$flags" -- "$word") ) ;;
  esac
}
complete -o default -o nospace -F _sne_jax %(program)s
"""


def script() -> str:
  """Returns the lines that a shell evaluates."""
  return text({name: flags_of(name) for name in main.COMMANDS})


def text(known: Mapping[str, list[str]]) -> str:
  """Returns these lines for commands and their flags."""
  cases = [f'    {name}) flags="{" ".join(f)}" ;;' for name, f in known.items()]
  return _SCRIPT % {
    "commands": " ".join(known),
    "cases": "\n".join(cases),
    "program": main.PROGRAM,
  }


def flags_of(command: str) -> list[str]:
  """Returns the flags of a command, as they are typed."""
  module = importlib.import_module(f"sne_jax.cli.commands.{command}")
  values = flags.FlagValues()
  main.define_flags(module, values)
  names = [name for name in values if values[name].name == name]
  names.append("flagfile")
  return [
    f"--{name}" if name in values and values[name].boolean else f"--{name}="
    for name in sorted(set(names))
  ]
