"""What a shell completes."""

import shutil
import subprocess

import pytest

from sne_jax.cli import completion, main

BASH = shutil.which("bash")


def completed(*words):
  """Returns what bash offers for the last of these words."""
  lines = [
    completion.text({n: completion.flags_of(n) for n in ("predict", "models")}),
    f"COMP_WORDS=({' '.join(words)!s})",
    f"COMP_CWORD={len(words) - 1}",
    "_sne_jax",
    'printf "%s\\n" "${COMPREPLY[@]}"',
  ]
  done = subprocess.run(
    [str(BASH), "-c", "\n".join(lines)],
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.split()


@pytest.mark.skipif(not BASH, reason="there is no bash")
@pytest.mark.parametrize(
  ("words", "found"),
  [
    (("sne-jax", "pre"), ["predict"]),
    (("sne-jax", "models", "--exp"), ["--export="]),
    (("sne-jax", "predict", "--mod"), ["--model="]),
    (("sne-jax", "predict", "--so"), ["--sort"]),
    (("sne-jax", "predict", "--export"), []),
    (("sne-jax", "predict", "net.pt"), []),
  ],
)
def test_commands_and_flags_are_completed(words, found):
  assert completed(*words) == found


@pytest.mark.slow  # Imports all of them.
def test_every_command_has_its_flags():
  for name in main.COMMANDS:
    assert "--flagfile=" in completion.flags_of(name)
