"""Image data sets to train classifiers on, as arrays in memory.

The embedded one is `digits`, of scikit-learn: real handwritten digits, no
download. Others are files `<name>.npz` with the keys of the Keras archives,
or come from the Hugging Face Hub by name (`download`). After a name,
`_inverted`, `_rotated`, `_noisy` or `_permuted` makes a cheap variant of it:
other data, offline.

Dimensions: `N` images of `C` channels, height `H`, width `W`.
"""

import dataclasses
import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from sne_jax import errors
from sne_jax.networks.checked import Checked, option
from sne_jax.zoo import batching
from sne_jax.zoo.classifiers import download

KEYS = ("x_train", "y_train", "x_test", "y_test")
"""What an npz file must hold: images `[N, H, W]` or `[N, H, W, C]`, uint8, and
labels `[N]` or `[N, 1]`, integers from 0."""

EMBEDDED = "digits"
NUM_DIGITS_TEST = 500  # Of 1,797; the others are for training.

_NOISE = 96  # Greatest change of a pixel in a noisy variant.


class Images(NamedTuple):
  """A data set. Pixels are uint8: training scales them to [-1, 1]."""

  x_train: UInt8[np.ndarray, "N C H W"]
  y_train: Int[np.ndarray, "N"]
  x_test: UInt8[np.ndarray, "M C H W"]
  y_test: Int[np.ndarray, "M"]
  num_classes: int

  @property
  def shape(self) -> tuple[int, int, int]:
    """Channels, height and width."""
    return self.x_train.shape[1:]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageOptions(Checked):
  """Which images, and in which form.

  Attributes:
    dataset: digits needs no files; any other name is that of a file in
      data_dir, or of a download. Append _inverted, _rotated, _noisy or
      _permuted (the labels permuted) for a variant.
    data_dir: folder with <dataset>.npz files.
    download: whether a missing file may be fetched from the Hugging Face Hub
      into data_dir: mnist, fashion_mnist, cifar10, svhn, usps.
    grayscale: whether colours are averaged into one channel.
    image_size: height and width to which images are resized; 0: as they are,
      but where an architecture of the zoo cannot take images so small, doubled
      until it can: digits, of 8 x 8, become 16 x 16 for arch1.
    train_images: the first so many for training; 0: all.
    test_images: the first so many for testing; 0: all.
  """

  dataset: str = EMBEDDED
  data_dir: str = ""
  download: bool = False
  grayscale: bool = True
  image_size: int = option(0, least=0)
  train_images: int = option(0, least=0)
  test_images: int = option(0, least=0)

  def __post_init__(self):
    super().__post_init__()
    if not self.dataset or os.path.basename(self.dataset) != self.dataset:
      raise ValueError(
        f"dataset must be a name without folders, got {self.dataset!r}; name"
        " the folder by data_dir"
      )


def load_images(options: ImageOptions) -> Images:
  """Returns a data set.

  Raises:
    ZooError: there is no such data set, with the three ways to have one; a
      file is damaged or holds something else; a download fails; or fewer
      images are there than asked for.
  """
  base, variant = _source(options)
  data = _digits() if base == EMBEDDED else _read(options, base)
  where = options.dataset
  data = data._replace(
    x_train=_first(where, "train_images", data.x_train, options.train_images),
    y_train=_first(where, "train_images", data.y_train, options.train_images),
    x_test=_first(where, "test_images", data.x_test, options.test_images),
    y_test=_first(where, "test_images", data.y_test, options.test_images),
  )

  def shaped(x):
    if options.grayscale and x.shape[1] > 1:
      x = np.rint(x.mean(axis=1, keepdims=True)).astype(np.uint8)
    return resized(x, options.image_size) if options.image_size else x

  data = data._replace(x_train=shaped(data.x_train), x_test=shaped(data.x_test))
  return VARIANTS[variant](data) if variant else data


def are_there(options: ImageOptions) -> bool:
  """Returns whether a data set can be loaded without a download."""
  return any(_is_there(options, base) for base, _ in _choices(options))


def digest(data: Images) -> str:
  """Returns a checksum of the images and labels: what a zoo was made on."""
  sha = hashlib.sha256(repr((data.shape, data.num_classes)).encode())
  for array in data[:4]:
    sha.update(np.ascontiguousarray(array).tobytes())
  return sha.hexdigest()


def resized(
  x: UInt8[np.ndarray, "N C H W"], size: int
) -> UInt8[np.ndarray, "N C S S"]:
  """Resizes images to `size` x `size`, bilinear, smoothed where it shrinks."""
  if x.shape[2:] == (size, size):
    return x
  rows, columns = (_resizing(old, size) for old in x.shape[2:])
  images = np.empty((*x.shape[:2], size, size), np.uint8)
  for first in range(0, len(x), 4096):  # in float64, block by block
    block = x[first : first + 4096].astype(np.float64)
    # Far more exact than a pixel's step: equal on all machines.
    block = np.round(rows @ block @ columns.T, 6)
    images[first : first + 4096] = np.rint(block)
  return images


def _resizing(old: int, new: int) -> np.ndarray:
  """Returns the matrix `[new, old]` of a triangle filter."""
  step = old / new
  centres = (np.arange(new) + 0.5) * step - 0.5
  distance = np.abs(np.arange(old)[None, :] - centres[:, None])
  weights = np.maximum(0.0, 1.0 - distance / max(1.0, step))
  return weights / weights.sum(axis=1, keepdims=True)


def _inverted(data: Images) -> Images:
  return data._replace(x_train=255 - data.x_train, x_test=255 - data.x_test)


def _rotated(data: Images) -> Images:
  """Turns every image by a quarter."""
  turn = lambda x: np.ascontiguousarray(np.rot90(x, axes=(2, 3)))
  return data._replace(x_train=turn(data.x_train), x_test=turn(data.x_test))


def _noisy(data: Images) -> Images:
  """Adds uniform noise to every pixel, drawn from raw random words."""

  def noisy(x, stream):
    words = np.random.PCG64(np.random.SeedSequence((7, stream)))
    share = words.random_raw(-(-x.size // 8)).view(np.uint8)[: x.size]
    noise = np.rint(_NOISE * (share.reshape(x.shape) / 127.5 - 1.0))
    return np.clip(x + noise, 0, 255).astype(np.uint8)

  return data._replace(
    x_train=noisy(data.x_train, 0), x_test=noisy(data.x_test, 1)
  )


def _permuted(data: Images) -> Images:
  """Gives every class the number of another."""
  order = np.roll(np.arange(data.num_classes), 1)
  return data._replace(y_train=order[data.y_train], y_test=order[data.y_test])


VARIANTS: dict[str, Callable[[Images], Images]] = {
  "inverted": _inverted,
  "rotated": _rotated,
  "noisy": _noisy,
  "permuted": _permuted,
}
"""What may be appended to a data set's name, after an underscore."""


def _choices(options: ImageOptions) -> list[tuple[str, str]]:
  """Returns what a name may mean: data that exist, and the variant to make."""
  name = options.dataset
  base, _, variant = name.rpartition("_")
  variants = [(base, variant)] if base and variant in VARIANTS else []
  return [(name, ""), *variants]


def _is_there(options: ImageOptions, base: str) -> bool:
  return base == EMBEDDED or os.path.exists(_file(options, base))


def _source(options: ImageOptions) -> tuple[str, str]:
  """Returns the name of the data that are there, and the variant to make."""
  choices = _choices(options)
  for choice in choices:
    if _is_there(options, choice[0]):
      return choice
  for choice in choices:
    if options.download and choice[0] in download.KNOWN:
      download.download(choice[0], _file(options, choice[0]))
      return choice
  raise errors.fault(
    options.data_dir or os.curdir,
    f"{choices[-1][0]}.npz",
    f"no images called {options.dataset!r}",
    f"(1) choose {EMBEDDED!r}, which needs no file (or"
    f" {', '.join(f'{EMBEDDED}_{v}' for v in VARIANTS)}), (2) put a file of"
    f" that name, with {', '.join(KEYS)}, where data_dir says, or (3) set"
    f" download, for {', '.join(download.KNOWN)}",
  )


def _file(options: ImageOptions, name: str) -> str:
  return os.path.join(options.data_dir or os.curdir, f"{name}.npz")


def _digits() -> Images:
  """Returns scikit-learn's digits, 8 x 8, in one fixed random order."""
  from sklearn import datasets  # noqa: PLC0415 (takes a second)

  digits: Any = datasets.load_digits()
  x = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
  y = digits.target.astype(np.int64)
  order = batching.epoch_order(0, 0, len(x))
  test, train = order[:NUM_DIGITS_TEST], order[NUM_DIGITS_TEST:]
  return Images(x[train], y[train], x[test], y[test], 10)


def _first(where: str, name: str, array: np.ndarray, count: int) -> np.ndarray:
  if count > len(array):
    raise errors.fault(
      where,
      "",
      f"{name} is {count}, and there are {len(array)}",
      "ask for fewer, or 0 for all",
    )
  return array[:count] if count else array


def _read(options: ImageOptions, name: str) -> Images:
  """Reads and checks an npz file; every damage is named."""
  folder, file = os.path.split(_file(options, name))
  anew = ", or remove it and add --download" if name in download.KNOWN else ""

  def fault(problem, remedy=f"restore the file from its source{anew}"):
    return errors.fault(folder, file, problem, remedy)

  try:
    with np.load(os.path.join(folder, file), allow_pickle=False) as archive:
      missing = [key for key in KEYS if key not in archive.files]
      if missing:
        raise fault(
          f"no key {missing[0]!r}; it has {', '.join(archive.files) or 'none'}",
          f"rename its arrays to {', '.join(KEYS)}",
        )
      arrays = {key: archive[key] for key in KEYS}
  except errors.ZooError:
    raise
  except (OSError, ValueError, EOFError, AttributeError) as error:
    raise fault(f"no readable npz file ({error})") from error
  except (zipfile.BadZipFile, zlib.error) as error:
    raise fault(f"damaged ({error})") from error
  for part in ("train", "test"):
    x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
    if x.dtype != np.uint8:
      raise fault(
        f"x_{part} is of type {x.dtype}", "store pixels as uint8, 0 to 255"
      )
    if x.ndim == 3:
      x = x[..., None]
    if x.ndim != 4 or x.shape[3] not in (1, 3) or 0 in x.shape:
      raise fault(
        f"x_{part} has shape {arrays[f'x_{part}'].shape}",
        "store images as [N, H, W] or [N, H, W, C] with 1 or 3 channels",
      )
    if y.dtype.kind not in "iu":
      raise fault(f"y_{part} is of type {y.dtype}", "store labels as integers")
    if y.shape not in ((len(x),), (len(x), 1)):
      raise fault(
        f"y_{part} has shape {y.shape} for {len(x)} images",
        "store one label for each image",
      )
    y = y.reshape(-1).astype(np.int64)
    if y.min() < 0 or y.max() > 255:
      raise fault(
        f"y_{part} has labels from {y.min()} to {y.max()}",
        "number the classes from 0, 256 at most",
      )
    arrays[f"x_{part}"] = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    arrays[f"y_{part}"] = y
  one, other = arrays["x_train"].shape[1:], arrays["x_test"].shape[1:]
  if one != other:
    raise fault(
      f"images of {one} for training and of {other} for testing (channels,"
      " height, width)",
      "store images of one shape",
    )
  classes = 1 + int(max(arrays["y_train"].max(), arrays["y_test"].max()))
  return Images(**arrays, num_classes=classes)
