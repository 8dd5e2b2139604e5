"""Shows what network a checkpoint holds: a table, and a picture.

  sne-jax inspect model.safetensors --picture=model.png

Several files, and folders of them, are shown one after the other.
For every tensor: what it is, at which depth, which neurons its axes are, and
where in the file it lies. Below, what was taken from conventions and what was
left out; --override settles both (sne_jax/networks/inference/override.py has
the fields). --json writes the spec, for `NetworkSpec.from_json`.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags

from sne_jax import checkpoints
from sne_jax.atomic import write_atomically
from sne_jax.cli import config, given_files
from sne_jax.cli.reports import network_figure, report
from sne_jax.networks import inference
from sne_jax.networks.spec import Axis


@dataclasses.dataclass(frozen=True, kw_only=True)
class InspectOptions:
  """What to write besides the table.

  Attributes:
    picture: file for a picture of the network (.png): layers, skips, and what
      their weights are like; empty: none.
    json: file for the spec as JSON; empty: none.
    check: whether all weights are read, to see that they are finite.
    verify: whether what is claimed is tried, where the file says how its
      network is run (ONNX, Keras): with permuted weights outputs must stay.
  """

  picture: str = ""
  json: str = ""
  check: bool = True
  verify: bool = False


PICTURED = 200_000_000
"""Weights of a network, at most, of which a picture has histograms."""

TOLERANCE = 1e-4
"""How far outputs may move by rounding, as a share of their size."""

MEANINGS = {
  "traced": "by the graph in the file",
  "named": "by names and shapes of a known architecture",
  "guessed": "as a plain network, by names and shapes",
}

CLASSES = (InspectOptions, given_files.FileOptions)


def main(
  argv: list[str], flag_values: flags.FlagValues = flags.FLAGS
) -> int | None:
  """Reads the flags and the files, and prints what they hold.

  Returns:
    The exit code: 1 if a file could not be read.

  Raises:
    ValueError: no file, or the only one cannot be read.
  """
  options = config.from_flags(InspectOptions, flag_values=flag_values)
  how = config.from_flags(given_files.FileOptions, flag_values=flag_values)
  paths = given_files.paths_of(argv[1:])
  if len(paths) > 1 and (options.picture or options.json):
    raise ValueError(
      f"picture and json are of one checkpoint; got {len(paths)}"
    )
  given_files.check_outputs([options.picture, options.json], paths)
  override = how.read_override()
  failures = {}
  for path in paths:
    try:
      opened = checkpoints.read(path, part=how.part)
      contents = None if override else checkpoints.describe_contents(opened)
      if contents is not None:
        print(listed(opened, contents))  # noqa: T201
        continue
      network = checkpoints.load(path, override=override, part=how.part)
      show(path, network, options)
      if options.verify and not verified(network):
        failures[path] = "what is claimed of it does not hold"
    except Exception as error:
      if len(paths) == 1 and isinstance(error, ValueError):
        raise
      failures[path] = given_files.line(error)
  return given_files.report_failures(failures)


def show(
  path: str, network: checkpoints.FileNetwork, options: InspectOptions
) -> None:
  """Prints what a file holds, and writes what is asked for.

  Raises:
    CheckpointError: its numbers cannot be read, or are not finite.
  """
  print(described(network))  # noqa: T201
  if options.check:
    others = network.check_finite()
    text = "All numbers are finite."
    if others:
      text = f"All weights are finite; others are not: {shortened(others)}."
    print(f"\n{text}")  # noqa: T201
  if options.picture:
    spec = network.spec
    weights = None  # Very large ones are drawn without histograms.
    if spec.num_weights <= PICTURED:
      weights = network.weights()
    name = given_files.shown(pathlib.Path(path).name)
    picture = network_figure.draw(options.picture, spec, weights, title=name)
    print(f"The picture is {picture}")  # noqa: T201
  if options.json:
    text = json.dumps(network.spec.to_json(), indent=2) + "\n"
    write_atomically(pathlib.Path(options.json), text)
    print(f"The spec is {options.json}")  # noqa: T201


def described(network: checkpoints.FileNetwork) -> str:
  """Returns all that was found out about a network, to read."""
  spec, inferred = network.spec, network.inferred
  header = ["tensor", "kind", "shape", "level", "axes", "in the file"]
  rows = [
    [
      tensor.name,
      tensor.kind,
      "x".join(map(str, tensor.shape)),
      tensor.level,
      ", ".join(map(axis_text, tensor.axes)),
      source.describe(),
    ]
    for tensor, source in zip(spec.tensors, inferred.sources, strict=True)
  ]
  free = sum(per is None for _, per in spec.groups.values())
  lines = [
    f"{given_files.shown(network.path)}: {network.tensors.format}",
    f"{given_files.architecture(spec)}; {given_files.parameters(spec)},"
    f" {spec.num_levels} levels, {len(spec.groups)} groups of neurons that may"
    f" be permuted ({free} by themselves)",
    report.markdown_table(header, rows),
  ]
  if spec.skips:
    pairs = ", ".join(f"{a} to {b}" for a, b in spec.skips)
    lines.append(f"Residual connections between levels: {pairs}")
  for title, items in (
    ("How groups of neurons are known", known(inferred)),
    ("Taken from conventions, or not claimed", inferred.guesses),
    (
      "Of the file",
      [n for n in network.notes if not n.startswith("left out:")]
      + [network.unbiased] * bool(network.unbiased),
    ),
    ("Left out", left_out(network)),
    ("Said by the file", said(network.tensors)),
    ("Tied", [f"{n} is {other}" for n, other in inferred.tied.items()]),
  ):
    if items:
      lines.append("\n".join([f"{title}:", *(f"  {item}" for item in items)]))
  return "\n\n".join(lines)


def verified(network: checkpoints.FileNetwork) -> bool:
  """Tries what is claimed, says how it ended, and returns whether it holds.

  Where nothing can be tried, that is said, and True is returned.
  """
  try:
    found = checkpoints.verify(network, np.random.default_rng(0))
  except checkpoints.NotVerifiedError as error:
    print(f"\nNot verified: {error}.")  # noqa: T201
    return True
  holds = found.change <= TOLERANCE
  control = "no false one could be drawn"
  if found.control is not None:
    control = f"by {found.control:.2g} under false ones"
  print(  # noqa: T201
    f"\nVerified by running the graph in the file: outputs change by"
    f" {found.change:.2g} of their size under permutations that are claimed,"
    f" {control}. What is claimed {'holds' if holds else 'DOES NOT HOLD'}."
  )
  if holds and found.control is not None and found.control <= TOLERANCE:
    print("False ones change nothing either: this proves little.")  # noqa: T201
  return holds


def known(inferred: inference.InferredNetwork) -> list[str]:
  """Returns how each group of neurons is known, alike ones in one line."""
  lines: dict[tuple[str, str], list[str]] = {}
  for group, how in inferred.known.items():
    lines.setdefault((how, inferred.reasons.get(group, "")), []).append(group)
  return [
    f"{how} ({MEANINGS[how]}): {', '.join(groups)}"
    + (f"; {why}" if why else "")
    for (how, why), groups in lines.items()
  ]


def left_out(
  network: checkpoints.FileNetwork | inference.InferredNetwork,
) -> list[str]:
  """Returns what of the file is not in the spec, alike ones in one line."""
  names: dict[str, list[str]] = {}
  for name, why in network.left_out.items():
    names.setdefault(why, []).append(name)
  return [f"{shortened(some)}: {why}" for why, some in names.items()]


def shortened(names: Sequence[str], most: int = 12) -> str:
  """Returns names in a row, and how many more there are."""
  more = f" and {len(names) - most} more" if len(names) > most else ""
  return ", ".join(names[:most]) + more


def said(tensors: checkpoints.Tensors) -> list[str]:
  """Returns what a safetensors file says of itself, long texts cut."""
  if tensors.format != "safetensors":
    return []
  words = {
    key: " ".join(text.split())
    for key, text in sorted(tensors.metadata.items(), key=_telling)
    if key not in checkpoints.OWN_KEYS
  }
  lines = [
    f"{key[:50]}: {text[:200]}{'...' if len(text) > 200 else ''}"
    for key, text in words.items()
    if text.isprintable() and key.isprintable()
  ]
  more = [f"and {len(words) - 12} more"] if len(words) > 12 else []
  return lines[:12] + more


def _telling(item: tuple[str, str]) -> tuple[bool, str]:
  """Sorts what says what a network is before the rest."""
  words = ("format", "base", "model", "arch", "its ")
  return (not any(word in item[0].lower() for word in words), item[0])


def listed(tensors: checkpoints.Tensors, contents: checkpoints.Contents) -> str:
  """Returns what a file holds that is no network, to read."""
  rows = [
    [name, entry.dtype, "x".join(map(str, entry.shape))]
    for name, entry in tensors.entries.items()
  ]
  rows += [
    [name, kind, "x".join(map(str, shape))]
    for name, (kind, shape) in contents.unread.items()
  ]
  lines = [
    f"{given_files.shown(tensors.source)}: {tensors.format}",
    f"It is {contents.what}.",
    "\n".join(f"{name}: {text}" for name, text in contents.facts.items()),
    report.markdown_table(["tensor", "numbers", "shape"], rows),
    f"To read a network: {contents.remedy}.",
  ]
  return "\n\n".join(filter(None, lines))


def axis_text(axis: Axis) -> str:
  """Returns an axis in short: sizes of its factors, and which neurons."""
  return " x ".join(
    (f"{f.size} of {f.group}" if f.group is not None else str(f.size))
    + (f" in each of {f.per}" if f.per else "")
    for f in axis
  )
