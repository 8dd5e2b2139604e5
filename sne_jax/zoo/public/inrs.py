"""Implicit neural representations of images: those of DWSNets and of NFN.

Three layouts, told apart by the folders:

- DWSNets, MNIST: `mnist_png_<training|testing>_<label>_<image>/checkpoints/
  model_final.pth`;
- DWSNets, Fashion-MNIST: `<train|test>/model_<i>.pth` and `splits.json`; each
  file has an entry `label` beside its tensors;
- NFN: `<prefix>_<label>s/net<image>.pth`. Folders `<prefix>_aug<k>_<label>s`
  hold further networks of the same images and are not taken.

The two families differ in the order of coordinates, the offset of the output,
and the range of the image, so they have specs of their own.

Dimensions: `M` networks.

References:
  Navon et al., Equivariant Architectures for Learning in Deep Weight Spaces,
  ICML 2023, arXiv:2301.12780. Zhou et al., Permutation Equivariant Neural
  Functionals, NeurIPS 2023, arXiv:2302.14040.
"""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from sne_jax.networks import families
from sne_jax.zoo.inrs import coordinates as coordinates_lib
from sne_jax.zoo.public import conversion, listing, states
from sne_jax.zoo.public import options as options_lib
from sne_jax.zoo.public import source as source_lib
from sne_jax.zoo.store import splits

VAL_NETWORKS = 5000
"""INRs of the part `val`, as published."""

NFN_TRAIN_NETWORKS = 45000
"""INRs of the part `train` of NFN, as published."""

_MNIST_RUN = r"mnist_png_(training|testing)_(\d+)_(\d+)"
_MNIST_FILE = os.path.join("checkpoints", "model_final.pth")
_NFN_RUN = r"(randinit_smaller)_(\d)s"

DWS = source_lib.Published(
  title="INRs of images (DWSNets)",
  reference="Navon et al. 2023, arXiv:2301.12780",
  url="https://github.com/AvivNavon/DWSNets",
  licence="unknown",
  protocol="Sine networks of frequency 30, 0.5 added to the output;"
  " coordinates are inrs.coordinates('dws', 28). Split `published`: of the"
  " split file. `default`: the same, or, where there is none, the published"
  " test part, and val drawn from the rest.",
)
NFN = source_lib.Published(
  title="SIRENs of images (NFN)",
  reference="Zhou et al. 2023, arXiv:2302.14040",
  url="https://github.com/AllanYangZhou/nfn",
  licence="unknown",
  protocol="Sine networks of frequency 30, images scaled to [-1, 1];"
  " coordinates are inrs.coordinates('nfn', side). Split `default`: by the"
  " number of the image, as published.",
)


coordinates = coordinates_lib.coordinates


class ZooFiles(NamedTuple):
  """The INRs of one layout, before any is opened."""

  layout: str
  published: source_lib.Published
  pattern: str  # Of the names of tensors; see `states.numbered`.
  offset: float  # Added to the output.
  ids: list[str]
  files: list[str]
  labels: list[int]  # -1: in the file.
  images: list[int]
  given: list[str]  # Part that the layout itself says: train or test.
  key: Callable[[str], str]  # Path in a split file -> id.
  split_name: str = ""  # Name of the published split file in the folder.


def describe(
  folder: str, options: options_lib.ConvertOptions
) -> source_lib.Source:
  """Says which INRs there are, of any of the three layouts, and their split.

  Properties: `label` (class of the image) and `image` (its number).

  Raises:
    ZooError: no or several layouts, or a file that is missing, damaged, or
      not what was published.
    ValueError: an option that this zoo has no use for.
  """
  zoo = _find(folder)
  uses = "train_networks" if zoo.published is NFN else "split_file"
  options.only(zoo.layout, ("seed", "val_networks", uses))
  split_file = options.split_file
  if not split_file and zoo.split_name:
    named = os.path.join(folder, zoo.split_name)
    split_file = named if os.path.isfile(named) else ""
  parts = _read_split(split_file, zoo) if split_file else None
  if parts is None:
    default = _own_split(folder, zoo, options)
    every = {"default": default}
  else:
    every = {"default": parts, "published": parts}

  def read(number: int) -> source_lib.Network:
    file = os.path.join(folder, zoo.files[number])
    tree = states.load(file)
    label = zoo.labels[number]
    if label < 0:
      label = states.number(tree.pop("label", None))
      if isinstance(label, bool) or not isinstance(label, int):
        raise listing.fault(file, f"its label is {label!r}, no number")
    ordered = states.numbered(file, states.tensors(tree), zoo.pattern)
    widths = _widths(file, ordered)
    spec = families.inr(widths, w0=30.0, output_offset=zoo.offset)
    weights = states.in_order(file, spec, ordered)
    return source_lib.Network(spec, weights, {"label": label})

  return source_lib.Source(
    generator=__name__,
    published=zoo.published,
    options={
      "layout": zoo.layout,
      "networks": listing.digest(zoo.files),
      "seed": options.seed,
      "train_networks": options.train_networks,
      "val_networks": options.val_networks,
      "split_file": listing.file_digest(split_file),
    },
    ids=zoo.ids,
    read=read,
    columns={"image": np.array(zoo.images, np.int64)},
    descriptions={
      "label": "class of the image",
      "image": "number of the image in its data set",
    },
    splits=lambda kept: every,
  )


def _find(folder: str) -> ZooFiles:
  """Returns the INRs of the one layout that a folder has."""
  finders = (_find_mnist, _find_fmnist, _find_nfn)
  layouts = [some for finder in finders if (some := finder(folder))]
  if len(layouts) != 1:
    names = ", ".join(some.layout for some in layouts) or "none"
    raise listing.fault(
      folder,
      f"layouts of INRs in it: {names}; one is due",
      "point to the folder that holds mnist_png_*, or train and test, or"
      " randinit_smaller_*s",
    )
  return layouts[0]


def _find_mnist(folder: str) -> ZooFiles | None:
  runs = listing.names(folder, _MNIST_RUN, folders=True)
  matches = [m for run in runs if (m := re.fullmatch(_MNIST_RUN, run))]
  if not matches:
    return None
  matches.sort(key=lambda m: (m[1], int(m[3]), int(m[2])))

  def key(path: str) -> str:
    # The folder of the run alone: a parent may be called "train".
    named = [
      p for p in re.split(r"[/\\]+", path) if re.fullmatch(_MNIST_RUN, p)
    ]
    return named[-1] if named else path

  return ZooFiles(
    layout="dws_mnist",
    published=DWS,
    pattern=r"seq\.(\d+)\.(weight|bias)",
    offset=0.5,
    ids=[m[0] for m in matches],
    files=[os.path.join(m[0], _MNIST_FILE) for m in matches],
    labels=[int(m[2]) for m in matches],
    images=[int(m[3]) for m in matches],
    given=["train" if m[1] == "training" else "test" for m in matches],
    key=key,
  )


def _find_fmnist(folder: str) -> ZooFiles | None:
  pattern = r"model_(\d+)\.pth"
  entries = []
  for part in ("train", "test"):
    inside = os.path.join(folder, part)
    if os.path.isdir(inside):
      names = listing.names(inside, pattern)
      numbers = [int(re.sub(r"\D", "", name)) for name in names]
      entries += [
        (part, n, name) for n, name in zip(numbers, names, strict=True)
      ]
  if not entries:
    return None
  entries.sort(key=lambda entry: (entry[0] != "train", entry[1]))
  return ZooFiles(
    layout="dws_fashion_mnist",
    published=DWS,
    pattern=r"seq\.(\d+)\.(weight|bias)",
    offset=0.5,
    ids=[f"{part}/{name}" for part, _, name in entries],
    files=[os.path.join(part, name) for part, _, name in entries],
    labels=[-1] * len(entries),
    images=[number for _, number, _ in entries],
    given=[part for part, _, _ in entries],
    key=lambda path: listing.last(path, 2),
    split_name="splits.json",
  )


def _find_nfn(folder: str) -> ZooFiles | None:
  pattern = r"net(\d+)\.pth"
  entries = []
  for run in listing.names(folder, _NFN_RUN, folders=True):
    label = int(run.rsplit("_", 1)[1][:-1])
    for name in listing.names(os.path.join(folder, run), pattern):
      number = int(re.sub(r"\D", "", name))
      entries.append((number, label, os.path.join(run, name)))
  if not entries:
    return None
  entries.sort()
  numbers = [number for number, _, _ in entries]
  if numbers != list(range(len(numbers))):
    missing = sorted(set(range(len(numbers))) - set(numbers))
    raise listing.fault(
      folder,
      f"{len(numbers)} networks are not numbered from 0 on; net"
      f"{missing[0] if missing else numbers[-1]}.pth is missing or there twice",
      listing.UNPACKED,
    )
  return ZooFiles(
    layout="nfn",
    published=NFN,
    pattern=r"net\.(\d+)\.(?:linear\.)?(weight|bias)",
    offset=0.0,
    ids=[f"net-{number:05d}" for number in numbers],
    files=[file for _, _, file in entries],
    labels=[label for _, label, _ in entries],
    images=numbers,
    given=[],
    key=str,
  )


def _widths(file: str, ordered: Sequence[tuple[str, Any]]) -> tuple[int, ...]:
  """Returns the widths of a dense network from its matrices."""
  shapes = [view.shape for _, view in ordered[::2]]
  if not shapes or any(len(shape) != 2 or 0 in shape for shape in shapes):
    raise listing.fault(file, f"its weights are of shapes {shapes}")
  return (shapes[0][1], *(shape[0] for shape in shapes))


def _own_split(folder: str, zoo: ZooFiles, options) -> dict[str, Any]:
  """Returns the split where no file says it."""
  val = options.val_networks or VAL_NETWORKS
  ids = np.array(zoo.ids, str)
  if not zoo.given:  # By the number of the image.
    train = options.train_networks or NFN_TRAIN_NETWORKS
    bounds = {"train": (0, train), "val": (train, train + val)}
    bounds["test"] = (train + val, len(ids))
    return {part: ids[low:high] for part, (low, high) in bounds.items()}
  is_test = np.array(zoo.given) == "test"
  rest = ids[~is_test]
  if val >= len(rest):
    raise listing.fault(
      folder,
      f"{len(rest)} networks are not for test",
      f"set val_networks ({val}) below that, or give --split_file",
    )
  drawn = splits.random_split(rest, seed=options.seed, parts={"val": val})
  chosen = set(drawn["val"].tolist())
  return {
    "train": [name for name in rest.tolist() if name not in chosen],
    "val": drawn["val"],
    "test": ids[is_test],
  }


def _read_split(file: str, zoo: ZooFiles) -> dict[str, list[str]]:
  """Reads a published split, of networks that are all there."""
  known = set(zoo.ids)
  parts = {}
  for part, _, paths in listing.read_split(file):
    parts[part] = [zoo.key(name) for name in paths]
    missing = [name for name in paths if zoo.key(name) not in known]
    if missing:
      raise listing.fault(
        file,
        f"{len(missing)} paths of part {part!r} are not there, such as"
        f" {missing[0][-100:]!r}",
        "take the split file of this zoo",
      )
  every = [name for some in parts.values() for name in some]
  if len(set(every)) != len(every):
    raise listing.fault(file, "a network is in it more than once")
  return parts


convert = conversion.reader(describe)
