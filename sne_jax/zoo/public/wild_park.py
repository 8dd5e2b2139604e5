"""The CNN Wild Park: CNNs of drawn depth, width, kernels, activations, skips.

`<trial>/<checkpoint>/checkpoint.pt` holds the state dict (`model`), the
configuration of the network (`config`, an object of omegaconf) and results
(`last_result`). The configuration is read from its pickle as data; omegaconf
is not needed, and nothing is run.

Dimensions: `M` checkpoints.

References:
  Kofinas et al., Graph Neural Networks for Learning Equivariant
  Representations of Neural Networks, ICLR 2024, arXiv:2403.12143.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sne_jax.networks import families
from sne_jax.networks import spec as spec_lib
from sne_jax.zoo.public import conversion, listing, states
from sne_jax.zoo.public import options as options_lib
from sne_jax.zoo.public import source as source_lib

FILE = "checkpoint.pt"
SPLIT_FILE = "cnn_park_splits.json"
IMAGE_SIDE = 32
NO_RESULT = "its file says no test accuracy, nor does the split file"

PUBLISHED = source_lib.Published(
  title="CNN Wild Park",
  reference="Kofinas et al. 2024, arXiv:2403.12143",
  url="https://doi.org/10.5281/zenodo.12797219",
  licence="unknown",
  protocol="CIFAR-10 in colour, 32x32. Split `published`: of"
  " cnn_park_splits.json. `default`: the same, or, where there is no file,"
  " 70/15/15; all checkpoints of a network are in one part.",
)

_DESCRIPTIONS = {
  "network": "number of the trial; its checkpoints share it",
  "epoch": "epochs trained",
  "test_accuracy": "on test images",
  "test_loss": "cross-entropy on the same",
  "layers": "convolutions",
  "activation": "of the convolutions, in order",
}


def describe(
  folder: str, options: options_lib.ConvertOptions
) -> source_lib.Source:
  """Says which checkpoints there are, and how they are split.

  Ids are `<trial>/<checkpoint>`, as in the split file.

  Raises:
    ZooError: no checkpoints, or one that is damaged or not what was published.
    ValueError: an option that this zoo has no use for.
  """
  options.only("wild_park", ("epochs", "split_file", "seed"))
  ids, left_out = [], []
  for trial in listing.names(folder, folders=True):
    inside = os.path.join(folder, trial)
    for name in listing.names(inside, folders=True):
      if os.path.isfile(os.path.join(inside, name, FILE)):
        ids.append(f"{trial}/{name}")
      else:
        left_out.append((f"{trial}/{name}", f"there is no file {FILE}"))
  if not ids:
    raise listing.fault(
      folder,
      f"no <trial>/<checkpoint>/{FILE} in it",
      "point to the folder that holds the trials",
    )
  split_file = options.split_file or _find_split(folder)
  split = _read_split(split_file, ids) if split_file else None
  parts, scores = (split.parts, split.scores) if split else (None, {})
  trials = [name.split("/")[0] for name in ids]
  network = np.unique(trials, return_inverse=True)[1].astype(np.int64)

  def read(number: int) -> source_lib.Network:
    file = os.path.join(folder, *ids[number].split("/"), FILE)
    tree = states.load(file, records=True)
    result = tree.get("last_result")
    result = result if isinstance(result, Mapping) else {}
    epoch = tree.get("iteration", result.get("training_iteration"))
    if isinstance(epoch, bool) or not isinstance(epoch, int):
      raise listing.fault(file, f"its iteration is {str(epoch)[:50]!r}")
    if not options.takes(epoch):
      raise source_lib.LeftOut("its epoch is not chosen (epochs)")
    accuracy = _float(result.get("test/acc", scores.get(ids[number])))
    if np.isnan(accuracy):
      raise source_lib.LeftOut(NO_RESULT)
    spec = _spec(file, tree)
    weights = states.in_order(file, spec, _ordered(file, tree))
    return source_lib.Network(
      spec,
      weights,
      {
        "epoch": epoch,
        "test_accuracy": accuracy,
        "test_loss": _float(result.get("test/loss")),
        "layers": spec.num_levels - 1,
        "activation": ",".join(spec.activations[:-1]),
      },
    )

  return source_lib.Source(
    generator=__name__,
    published=PUBLISHED,
    options={
      "checkpoints": listing.digest(ids),
      "epochs": options.epochs,
      "seed": options.seed,
      "split_file": listing.file_digest(split_file),
    },
    ids=ids,
    read=read,
    columns={"network": network},
    descriptions=_DESCRIPTIONS,
    splits=conversion.grouped_splits(ids, trials, options.seed)
    if parts is None
    else lambda kept: {"default": parts, "published": parts},
    left_out=left_out,
    facts={"split_paths_not_there": split.missing if split else 0},
  )


def _spec(file: str, tree: Mapping[str, Any]) -> spec_lib.NetworkSpec:
  """Builds the spec from the configuration in a checkpoint."""
  try:
    config = states.plain(tree.get("config"))
    if not isinstance(config, dict):
      raise ValueError("it is no table")
    channels, kernels, strides, paddings, skips = (
      [_int(item) for item in config[name]]
      for name in ("channels", "kernel_size", "stride", "padding", "residual")
    )
    if len(channels) < 2 or not 0 < channels[0] < 100:
      raise ValueError(f"channels are {str(channels)[:50]}")
    return families.cnn(
      (channels[0], IMAGE_SIDE, IMAGE_SIDE),
      channels[1:],
      kernels=kernels,
      strides=strides,
      paddings=paddings,
      num_classes=_int(config["n_classes"]),
      activation=tuple(config["activation"]),
      skips=skips,
    )
  except (ValueError, TypeError, KeyError) as error:
    raise listing.fault(
      file, f"its config describes no network ({error})"
    ) from None


def _ordered(file: str, tree: Mapping[str, Any]):
  """Returns the tensors of the state dict, the last layer at the end."""
  model = tree.get("model")
  views = states.tensors(model) if isinstance(model, dict) else {}
  last = [
    (f"fc.{kind}", views.pop(f"fc.{kind}", None)) for kind in ("weight", "bias")
  ]
  if not views or any(view is None for _, view in last):
    raise listing.fault(file, "no state dict `model` with layers and fc")
  return [
    *states.numbered(file, views, r"layers\.(\d+)\.(weight|bias)"),
    *last,
  ]


def _find_split(folder: str) -> str:
  """Returns the split file in the folder or beside it; empty if none."""
  for place in (folder, os.path.dirname(folder)):
    if os.path.isfile(os.path.join(place, SPLIT_FILE)):
      return os.path.join(place, SPLIT_FILE)
  return ""


class Split(NamedTuple):
  """The published split, of the checkpoints that are there."""

  parts: dict[str, list[str]]  # Ids.
  scores: dict[str, float]  # Test accuracy by id.
  missing: int  # Paths that are not there: a part of the zoo may be unpacked.


def _read_split(file: str, ids: list[str]) -> Split:
  """Reads the published split."""
  known, parts, scores = set(ids), {}, {}
  part_of: dict[str, str] = {}
  for part, entry, paths in listing.read_split(file):
    values = entry.get("score") if isinstance(entry, dict) else None
    if not isinstance(values, list) or len(paths) != len(values):
      raise listing.fault(file, f"no lists path and score for {part!r}")
    names = [listing.last(os.path.dirname(name), 2) for name in paths]
    parts[part] = [name for name in names if name in known]
    scores |= dict(zip(names, map(_float, values), strict=True))
    for name in names:
      trial = name.split("/")[0]
      if part_of.setdefault(trial, part) != part:
        raise listing.fault(
          file,
          f"trial {trial!r} is in {part_of[trial]} and in {part}",
          "checkpoints of one network belong into one part",
        )
  if not any(parts.values()):
    raise listing.fault(
      file, "none of its paths is there", "take the file of this zoo"
    )
  return Split(parts, scores, len(scores.keys() - known))


def _float(value: Any) -> float:
  value = states.number(value)
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  return float(value) if is_number else float("nan")


def _int(value: Any) -> int:
  if isinstance(value, bool) or not isinstance(value, int):
    raise ValueError(f"{str(value)[:50]!r} is no whole number")
  return value


convert = conversion.reader(describe)
