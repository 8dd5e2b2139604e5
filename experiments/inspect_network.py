"""Shows what network a checkpoint holds: a table, and a picture.

  python experiments/inspect_network.py model.safetensors --picture=model.png

For every tensor: what it is, at which depth, which neurons its axes are, and
where in the file it lies. Below, what was taken from conventions and what was
left out; --override settles both (sne_jax/networks/inference/override.py has
the fields). --json writes the spec, for `NetworkSpec.from_json`.
"""

import dataclasses
import json
import pathlib

from absl import flags

from experiments.cli import config, console, given_files
from experiments.reports import network_figure, report
from sne_jax import checkpoints
from sne_jax.atomic import write_atomically
from sne_jax.networks.spec import Axis


@dataclasses.dataclass(frozen=True, kw_only=True)
class InspectOptions:
  """What to write besides the table.

  Attributes:
    picture: file for a picture of the network (.png); empty: none.
    json: file for the spec as JSON; empty: none.
    check: whether all weights are read, to see that they are finite.
  """

  picture: str = ""
  json: str = ""
  check: bool = True


CLASSES = (InspectOptions, given_files.FileOptions)


def main(
  argv: list[str], flag_values: flags.FlagValues = flags.FLAGS
) -> int | None:
  """Reads the flags and the file, and prints what it holds.

  Raises:
    ValueError: not one file, or one that cannot be read.
  """
  options, how = (
    config.from_flags(cls, flag_values=flag_values) for cls in CLASSES
  )
  if len(argv) != 2:
    raise ValueError(f"name one checkpoint, got {len(argv) - 1}")
  given_files.check_outputs([options.picture, options.json], argv[1:])
  network = checkpoints.load(
    argv[1], override=how.read_override(), part=how.part
  )
  print(described(network))  # noqa: T201
  if options.check:
    checkpoints.check_finite(network.tensors)
    print("\nAll numbers are finite.")  # noqa: T201
  if options.picture:
    path = network_figure.draw(
      options.picture, network.spec, title=pathlib.Path(argv[1]).name
    )
    print(f"The picture is {path}")  # noqa: T201
  if options.json:
    text = json.dumps(network.spec.to_json(), indent=2) + "\n"
    write_atomically(pathlib.Path(options.json), text)
    print(f"The spec is {options.json}")  # noqa: T201
  return None


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
    f"{network.path}: {network.tensors.format}",
    f"{given_files.architecture(spec)}; {spec.num_weights:,} parameters,"
    f" {spec.num_levels} levels, {len(spec.groups)} groups of neurons that may"
    f" be permuted ({free} by themselves)",
    report.markdown_table(header, rows),
  ]
  if spec.skips:
    pairs = ", ".join(f"{a} to {b}" for a, b in spec.skips)
    lines.append(f"Residual connections between levels: {pairs}")
  for title, items in (
    ("Taken from conventions, or not claimed", inferred.guesses),
    ("Left out", [f"{n}: {why}" for n, why in inferred.left_out.items()]),
    ("Tied", [f"{n} is {other}" for n, other in inferred.tied.items()]),
  ):
    if items:
      lines.append("\n".join([f"{title}:", *(f"  {item}" for item in items)]))
  return "\n\n".join(lines)


def axis_text(axis: Axis) -> str:
  """Returns an axis in short: sizes of its factors, and which neurons."""
  return " x ".join(
    (f"{f.size} of {f.group}" if f.group is not None else str(f.size))
    + (f" in each of {f.per}" if f.per else "")
    for f in axis
  )


if __name__ == "__main__":
  config.define_flags(*CLASSES)
  console.setup()
  config.run_main(main, positional=True)
