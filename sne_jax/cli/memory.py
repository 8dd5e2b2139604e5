"""Amounts of memory on a command line, and networks that are held to them."""

import dataclasses
import re
import sys
from typing import Any

import sne_jax
from sne_jax.learning.training import large, program
from sne_jax.networks.checked import Checked, option
from sne_jax.networks.spec import NetworkSpec

UNITS = {
  "": 1,
  "B": 1,
  **{f"{k}B": 1000**n for n, k in enumerate("KMGT", 1)},
  **{f"{k}iB": 1024**n for n, k in enumerate("KMGT", 1)},
}
"""Bytes of each unit, by its name; capitals do not matter."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions(Checked):
  """Which model, and how it encodes large networks.

  Attributes:
    workdir: folder of a finished run, or of a saved predictor, or of one of its
      seeds; all seeds of a run are asked.
    model: instead of workdir, the name of a model that ships with the library
      (`sne-jax models`), a folder of save_pretrained, or owner/name on the
      Hugging Face Hub.
    revision: of a model of the Hub: a branch, tag or commit; empty: the main
      one.
    encoder_file: Python files that register encoders of your own, separated by
      commas, for a model of one; they are run first.
    stream_above: networks of more weights than this are encoded by themselves,
      part by part, from where they lie in their file, with the same result, if
      the encoder can do that (sne can); all others are read whole.
    verify: refuse a model of which a file is not what was written; --noverify
      reads it as it is.
    memory_limit: memory that such a network may take, beside what the program
      itself takes, such as 512MiB or 2GiB; empty is 1GiB. An encoder that reads
      networks whole refuses it.
    ask_above: seconds. Such a network whose encoding will take longer, as a
      small piece of it shows, is announced, its progress is shown, and on a
      terminal it is asked about first.
  """

  workdir: str = ""
  model: str = ""
  revision: str = ""
  encoder_file: str = ""
  stream_above: int = option(program.STREAM_ABOVE, least=0)
  memory_limit: str = ""
  ask_above: float = option(large.LONG_SECONDS, least=0)
  verify: bool = True

  def __post_init__(self):
    super().__post_init__()
    if self.workdir and self.model:
      raise ValueError(
        f"workdir is {self.workdir} and model is {self.model}; name one of them"
      )
    if not self.workdir and not self.model:
      raise ValueError(
        "workdir is empty; name the folder of a finished run with --workdir, or"
        " a model with --model (sne-jax models lists those that are there)"
      )
    if self.revision and not self.model:
      raise ValueError(
        f"revision is {self.revision!r}, but model is empty; name owner/name of"
        " the Hub with --model"
      )
    if self.memory_limit:
      num_bytes("memory_limit", self.memory_limit)

  def load(self) -> sne_jax.Predictor:
    """Loads the model of a run, with the limit.

    Raises:
      ValueError: there is none, or it cannot hold the limit.
    """
    limit = None
    if self.memory_limit:
      limit = num_bytes("memory_limit", self.memory_limit)
    how: dict[str, Any] = {
      "verify": self.verify,
      "stream_above": self.stream_above,
      "memory_limit": limit,
      "long_seconds": self.ask_above,
      "before_long": ask,
    }
    if self.model:
      return sne_jax.Predictor.from_pretrained(
        self.model, revision=self.revision, **how
      )
    return sne_jax.Predictor.load(self.workdir, **how)


def ask(spec: NetworkSpec, seconds: float) -> None:
  """Says how long an encoding will take; on a terminal, asks whether to go on.

  Raises:
    ValueError: it is not to go on.
  """
  said = large.announcement(spec, seconds)
  if not (sys.stdin.isatty() and sys.stderr.isatty()):
    sys.stderr.write(f"{said}; it goes on\n")
    return
  sys.stderr.write(f"{said}. Go on? [Y/n] ")
  sys.stderr.flush()
  if sys.stdin.readline().strip().lower() in ("n", "no"):
    raise ValueError(
      f"left out: {said}; --ask_above={round(seconds) + 1} does not ask"
    )


def num_bytes(name: str, text: str) -> int:
  """Returns the bytes that a text such as 512MiB, 2 GB or 100000 says.

  Args:
    name: of the option, for the error.
    text: a number above 0, and a unit of `UNITS` or none.

  Raises:
    ValueError: it says none.
  """
  match = re.fullmatch(
    r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([a-z]*)\s*", text, re.ASCII | re.I
  )
  units = {unit.lower(): size for unit, size in UNITS.items()}
  if match is None or match[2].lower() not in units:
    raise ValueError(
      f"{name} is {text!r}; give a number and one of"
      f" {', '.join(unit for unit in UNITS if unit)}, such as 512MiB or 2GiB"
    )
  count = int(float(match[1]) * units[match[2].lower()])
  if count < 1:
    raise ValueError(f"{name} is {text!r}; must be above 0")
  return count
