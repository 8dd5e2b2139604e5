"""What a training has to say of its symmetries, in plain lines.

Where the invariance to reordered neurons is not exact, and which augmentations
do nothing: for the log and the report.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sne_jax.encoders.sne.options import SNEOptions
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.data.pipeline import DataOptions
from sne_jax.networks import augment, chunking
from sne_jax.networks.spec import NetworkSpec

REMEDY = (
  "say it: --assume_activation=relu, in Python"
  ' DataOptions(assume_activation="relu"), or {"activation": "relu"} in an'
  " override"
)
"""What to do about an activation that is not known."""

_MOVES = {
  "augment_signs": (augment.sign_groups, "an odd activation (tanh, sine)"),
  "augment_scales": (augment.scale_groups, "a homogeneous activation (relu)"),
  "augment_pi_shifts": (augment.shift_groups, "a sine of known frequency"),
}
"""Augmentations by name: which groups they move, and what these need."""

RUN_AS = (
  "its file does not say how it is run: taken to be run as the training"
  " networks of its layers are ({way}); if it is not, the prediction is worth"
  " nothing"
)
"""What is said of a network that is run as those of the training are."""


def of_encoder(
  options: SNEOptions,
  chunk_options: chunking.ChunkOptions,
  specs: Iterable[NetworkSpec],
) -> list[str]:
  """Says where SNE is not exactly invariant; nothing where it is.

  Args:
    options: of SNE.
    chunk_options: with a size above 0.
    specs: of all networks at hand, those that are only tested on included.
  """
  inexact = "not exactly invariant when neurons are reordered: "
  lines = []
  if options.index_features in ("chunk", "neuron"):
    lines.append(f"index_features={options.index_features} numbers neurons")
  if options.identifiers == "random":
    lines.append("identifiers=random differ from draw to draw")
  if options.chunk_function == "linear":
    lines.append("chunk_function=linear reads weights in their order")
  layouts = dict.fromkeys(spec.layout for spec in dict.fromkeys(specs))
  cut = [s for s in layouts if not chunking.keeps_symmetry(s, chunk_options)]
  if cut:
    size, rules = chunk_options.chunk_size, "neurons apart"
    if chunk_options.linear_rule != "neuron":
      rules = f"layers (linear_rule={chunk_options.linear_rule}) apart"
    lines.append(
      f"chunks of {size} weights cut {rules} in {len(cut)} of {len(layouts)}"
      f" architectures, such as {cut[0].describe()}"
    )
  return [inexact + line for line in lines]


def of_data(options: DataOptions, networks: Networks) -> list[str]:
  """Says which augmentations do nothing, for how many training networks.

  Args:
    options: of the data.
    networks: those that are trained on.
  """
  total = len(networks.numbers)
  specs = [
    augment.assumed(spec, options.assume_activation) for spec in networks.specs
  ]
  unknown = _count(networks, [not augment.is_known(spec) for spec in specs])
  asked = [name for name in _MOVES if getattr(options, name)]
  lines = []
  if unknown and asked:
    lines.append(
      f"{', '.join(asked)}: the activation of {unknown} of {total} training"
      f" networks is not known, and {'they do' if asked[1:] else 'it does'}"
      f" nothing there; {REMEDY}"
    )
  for name in asked:
    groups, needed = _MOVES[name]
    still = [augment.is_known(spec) and not groups(spec) for spec in specs]
    if count := _count(networks, still):
      lines.append(
        f"{name} does nothing for {count} of {total} training networks, which"
        f" have no hidden neurons of {needed} that are free to move"
      )
  return lines


def of_training(
  options: SNEOptions | None,
  chunk_options: chunking.ChunkOptions,
  data: DataOptions,
  parts: Sequence[Networks],
  invariance_weight: float = 0.0,
) -> list[str]:
  """Returns all notes on a training.

  Args:
    options: of SNE; None for another encoder.
    chunk_options: with a size above 0.
    data: options of batches.
    parts: the training networks, then all others.
    invariance_weight: of Logit Invariance.
  """
  lines = of_data(data, parts[0])
  if options is None:
    return lines
  specs = [p.specs[number] for p in parts for number in p.numbers]
  inexact = of_encoder(options, chunk_options, specs)
  asked = {
    "augment_permutation": data.augment_permutation,
    "invariance_weight": invariance_weight,
  }
  if not inexact:
    lines += [
      f"{name} does nothing: the encoder is exactly invariant when neurons are"
      " reordered"
      for name, value in asked.items()
      if value
    ]
  return inexact + lines


def of_runs(
  given: Sequence[Any], asked: Sequence[Any], said: Sequence[str]
) -> list[str]:
  """Returns what is said of networks, and which of them are taken for others.

  Args:
    given: `(spec, weights)` of each, as it was read.
    asked: as it is run, of `Calibration.as_run`.
    said: what else is said of each; "": nothing.
  """
  lines = []
  for (before, _), (after, _), line in zip(given, asked, said, strict=True):
    if before is not after:
      acts = dict.fromkeys(after.activations)
      way = ", ".join([after.family, *(a for a in acts if a != "none")])
      line = RUN_AS.format(way=way)
    lines.append(line)
  return lines


def _count(networks: Networks, flags: Sequence[bool]) -> int:
  """Returns how many networks are of the specs that are flagged."""
  return sum(flags[number] for number in networks.numbers)
