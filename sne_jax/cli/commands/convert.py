r"""Converts a published zoo into a zoo of ours, once.

  sne-jax convert --zoo=small_cnn --source=cifar10 \
    --out=zoos/small_cnn_cifar10

reads the unpacked folder `cifar10` of the Small CNN Zoo and writes a folder
that every experiment takes as --zoo, with the published splits beside
`default`. Nothing in the source is run or trusted, and nothing of it is
changed. A conversion that was stopped, or killed, resumes when the same
command is given again, and ends with the same zoo. What is left out, because
its weights are not finite or its files are not there, is counted in the new
zoo.json, with the reason.

  --zoo=small_cnn   Unterthiner et al. 2020: a folder of weights.npy,
                    metrics.csv.gz and layout.csv. A file *_split.csv of the
                    NFN authors gives the split nfn.
  --zoo=model_zoos  Schuerholt et al. 2022: a folder of NN_tune_trainable_*.
  --zoo=inrs        INRs of images: of DWSNets (mnist_png_* or train and test,
                    with splits.json) or of NFN (randinit_smaller_*s).
  --zoo=wild_park   Kofinas et al. 2024: a folder of trials, with
                    cnn_park_splits.json in it or beside it.

The other way round, --to=datasets writes a zoo of ours as Parquet files that
Hugging Face's `datasets.load_dataset(FOLDER)` reads, one row for each network:

  sne-jax convert --to=datasets --source=zoos/quick --out=hub/quick
"""

import dataclasses

from absl import flags

from sne_jax.cli import config
from sne_jax.learning.training import progress
from sne_jax.networks.checked import Checked, option
from sne_jax.zoo.public import options as options_lib
from sne_jax.zoo.public import table
from sne_jax.zoo.store import exporting, store


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderOptions(Checked):
  """Which zoo is where, and where it goes.

  Attributes:
    zoo: which published zoo it is: small_cnn, model_zoos, inrs or wild_park.
    source: unpacked folder of the published zoo; only read.
    out: folder of the new zoo; made if it is not there.
    to: what is written: zoo, a zoo of ours; or datasets, a data set of Hugging
      Face's library of that name, of the zoo of ours that is in source.
    split: of that zoo, whose parts become those of the data set.
  """

  zoo: str = option("small_cnn", choices=tuple(table.CONVERT))
  source: str = ""
  out: str = ""
  to: str = option("zoo", choices=("zoo", "datasets"))
  split: str = "default"

  def __post_init__(self):
    super().__post_init__()
    for name in ("source", "out"):
      if not getattr(self, name):
        raise ValueError(f"{name} is empty; name a folder by --{name}")


CLASSES = (FolderOptions, options_lib.ConvertOptions)
POSITIONAL = False


def main(argv: list[str], flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Reads the flags and converts the zoo.

  Raises:
    ValueError: options that are wrong, a source that is not what it should
      be, or a folder that holds another zoo.
  """
  del argv
  folders = config.from_flags(FolderOptions, flag_values=flag_values)
  options = config.from_flags(
    options_lib.ConvertOptions, flag_values=flag_values
  )
  if folders.to == "datasets":
    zoo = store.Zoo.open(folders.source)
    with progress.Progress("writing networks") as shown:
      exporting.export(
        zoo, folders.out, split=folders.split, progress=shown.update
      )
    print(f"{folders.out} is for datasets.load_dataset({folders.out!r})")
    return
  with progress.Progress("reading networks") as shown:
    zoo = table.CONVERT[folders.zoo](
      folders.source, folders.out, options, shown.update
    )
  print(f"{zoo}\n  licence: {zoo.licence}")
  for name in zoo.splits:
    parts = zoo.split(name)
    counts = ", ".join(f"{len(some)} {part}" for part, some in parts.items())
    print(f"  split {name}: {counts}")
  for entry in zoo.provenance["left_out"]:
    print(f"  left out: {entry['count']}, as {entry['reason']}")
