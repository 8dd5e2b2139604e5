"""Fetches image data sets from the Hugging Face Hub into npz files.

The `datasets` library is an optional extra, imported when it is called for.

Dimensions: `N` images of height `H`, width `W`, with `C` channels.
"""

import importlib

import numpy as np

from sne_jax import atomic, errors

# Repository, its configuration, and the columns of images and labels.
_HUB = {
  "mnist": ("ylecun/mnist", None, "image", "label"),
  "fashion_mnist": ("zalando-datasets/fashion_mnist", None, "image", "label"),
  "cifar10": ("uoft-cs/cifar10", None, "img", "label"),
  "svhn": ("ufldl-stanford/svhn", "cropped_digits", "image", "label"),
  "usps": ("flwrlabs/usps", None, "image", "label"),
}

KNOWN = tuple(_HUB)
"""Names that `download` knows."""


def download(name: str, path: str) -> None:
  """Fetches a data set and writes it to `path`, an npz file, atomically.

  Args:
    name: one of `KNOWN`.
    path: of the file to make, with the keys of `images.KEYS`.

  Raises:
    ZooError: the library is missing, or the data cannot be had.
  """
  repository, configuration, image, label = _HUB[name]
  try:
    hub = importlib.import_module("datasets")
  except ImportError as error:
    raise errors.fault(
      path,
      "",
      "downloading needs the library `datasets`",
      "pip install -e '.[images]', or put the file there yourself",
    ) from error
  arrays = {}
  try:
    for part in ("train", "test"):
      rows = hub.load_dataset(repository, configuration, split=part)
      rows = rows.with_format("numpy")
      arrays[f"x_{part}"] = np.stack([np.asarray(x) for x in rows[image]])
      arrays[f"y_{part}"] = np.asarray(rows[label], np.int64)
  except (OSError, ValueError, KeyError, RuntimeError) as error:
    raise errors.fault(
      path,
      "",
      f"{repository} cannot be fetched ({error})",
      "try again where there is a network, or put the file there yourself",
    ) from error

  def write(temporary):
    with open(temporary, "wb") as file:
      np.savez_compressed(file, **arrays)

  atomic.replace_file(path, write)
