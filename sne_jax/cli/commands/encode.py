"""Writes the codes of trained networks, from their files.

  sne-jax encode --workdir=RUN --out=codes.npz my_models/

`--workdir` is a finished run of `sne-jax train` or experiments/run.py, one of
--pretrain too; files and folders are as in `sne-jax predict`. `--out` gets, as
.npz, `codes` `[N, D]` and `files` `[N]`; as .csv, one row for each. Codes of
several seeds stand side by side. Networks above --stream_above weights are not
loaded: they are encoded part by part, within --memory_limit.
"""

import csv
import dataclasses
import io
import math
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from absl import flags

from sne_jax import atomic, checkpoints
from sne_jax.cli import config, encoder_options, given_files, memory
from sne_jax.learning.selfsup import pretraining

SUFFIXES = (".npz", ".csv")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodeOptions:
  """Where codes go.

  Attributes:
    out: file for the codes, .npz or .csv.
  """

  out: str = "codes.npz"

  def __post_init__(self):
    if not self.out.endswith(SUFFIXES):
      raise ValueError(f"out is {self.out!r}; must end with .npz or .csv")


CLASSES = (memory.ModelOptions, EncodeOptions, given_files.FileOptions)


def main(
  argv: list[str], flag_values: flags.FlagValues = flags.FLAGS
) -> int | None:
  """Reads the flags and the files, and writes the codes.

  Returns:
    The exit code: 1 if a file could not be read.

  Raises:
    ValueError: no model, or no files.
  """
  model = config.from_flags(memory.ModelOptions, flag_values=flag_values)
  options = config.from_flags(EncodeOptions, flag_values=flag_values)
  how = config.from_flags(given_files.FileOptions, flag_values=flag_values)
  encoder_options.load_files(model.encoder_file)
  paths = given_files.paths_of(argv[1:])
  encode, streams, familiar, remarks = opened(model)
  given_files.check_outputs([options.out], paths)
  names: list[str] = []
  codes: list[np.ndarray] = []
  notes: list[tuple[str, str]] = []

  def handle(networks, weights):
    pairs = [(n.spec, w) for n, w in zip(networks, weights, strict=True)]
    encoded = encode(pairs)
    if not np.isfinite(encoded).all():
      raise ValueError("the code is not finite")
    codes.extend(encoded)
    names.extend(network.path for network in networks)
    for network, remark in zip(networks, remarks(pairs), strict=True):
      said = network.inferred.guesses + network.notes
      texts = (remark,) * bool(remark) + said
      notes.extend((network.path, text) for text in texts)

  lazy_above = model.stream_above if streams else math.inf
  failures = given_files.each(
    *(paths, how, handle, "encoding networks"),
    lazy_above=lazy_above,
    familiar=familiar,
  )
  if names:
    write(pathlib.Path(options.out), names, np.stack(codes))
    print(f"{len(names)} codes of width {codes[0].size} in {options.out}")  # noqa: T201
  given_files.say("note", notes)
  return given_files.report_failures(failures)


class Opened(NamedTuple):
  """A model that encodes.

  Attributes:
    encode: from `(spec, weights)` of networks to codes `[B, D]`.
    streams: whether large networks are read part by part.
    familiar: see `checkpoints.load`.
    remarks: from networks to what is to be said of each; "": nothing.
  """

  encode: Callable[..., np.ndarray]
  streams: bool
  familiar: checkpoints.Familiar
  remarks: Callable[..., list[str]]


def opened(model: memory.ModelOptions) -> Opened:
  """Returns what encodes networks, what it expects, and what it remarks.

  Raises:
    ValueError: there is no trained encoder, or it cannot hold the limit.
  """
  pretrained = pretraining.load_all(model.workdir, verify=model.verify)
  if not pretrained:
    predictor = model.load()
    return Opened(
      predictor.encode,
      predictor.can_stream,
      predictor.known.is_familiar,
      predictor.remarks,
    )
  if model.memory_limit:
    raise ValueError(
      f"memory_limit is {model.memory_limit}, but the encoder in"
      f" {model.workdir} was pretrained and reads networks whole; leave"
      " --memory_limit out"
    )

  def encode(networks) -> np.ndarray:
    encoded = [one.encode_networks(networks) for one in pretrained]
    return np.concatenate(encoded, axis=-1)

  anatomy = pretrained[0].spec.anatomy
  return Opened(
    encode,
    streams=False,
    familiar=lambda spec: spec.anatomy == anatomy,
    remarks=lambda networks: [""] * len(networks),
  )


def write(path: pathlib.Path, names: list[str], codes: np.ndarray) -> None:
  """Writes codes `[N, D]`; nothing half-written is left."""
  if path.suffix == ".npz":
    content = io.BytesIO()
    np.savez(content, codes=codes, files=np.array(names))
    atomic.write_atomically(path, content.getvalue())
    return
  text = io.StringIO(newline="")
  writer = csv.writer(text)
  writer.writerow(["file", *(f"code_{n}" for n in range(codes.shape[1]))])
  for name, code in zip(names, codes, strict=True):
    writer.writerow([name, *(f"{value:.9g}" for value in code)])
  atomic.write_atomically(path, text.getvalue())
