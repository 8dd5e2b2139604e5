"""Networks of one's own on a command line: a folder, a table, and their zoo."""

import dataclasses
import os
from collections.abc import Sequence

from sne_jax import checkpoints
from sne_jax.learning.data import folders, labelled
from sne_jax.learning.training import progress
from sne_jax.networks.checked import Checked
from sne_jax.zoo.store import store


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnOptions(Checked):
  """Networks of your own, and what is known of them.

  Attributes:
    networks: folder of checkpoints, and of folders of them, in any formats.
    table: CSV or Parquet file with a row for each network: a column of files,
      then any others, of which targets are to be predicted.
    file_column: the column of files: their paths in the folder, or their names,
      with or without their ending.
    group_column: the column that says which networks are kin, such as snapshots
      of one training, or fine-tuned from one network: they stay in one part.
      Where the table has none, names such as run3_epoch10.pt say it.
    skip_unreadable: leave out files that cannot be read, and list them; else
      the first ends the program.
    overrides: JSON file that settles what names and shapes of tensors do not,
      for all files alike (see `sne-jax inspect`).
    zoo_out: folder of the zoo that the files are converted to, once; empty is
      that of workdir with _zoo behind it.
  """

  networks: str = ""
  table: str = ""
  file_column: str = labelled.FILE
  group_column: str = labelled.GROUP
  skip_unreadable: bool = False
  overrides: str = ""
  zoo_out: str = ""

  def __post_init__(self):
    super().__post_init__()
    if bool(self.networks) != bool(self.table):
      there, missing = ("networks", "table")[:: 1 if self.networks else -1]
      raise ValueError(
        f"{there} is {getattr(self, there)}, but {missing} is empty; name the"
        f" {'CSV or Parquet file' if self.networks else 'folder'} by"
        f" --{missing}"
      )
    if not self.networks:
      for field in dataclasses.fields(self):
        if getattr(self, field.name) != field.default:
          raise ValueError(
            f"{field.name} is {getattr(self, field.name)}, but networks is"
            " empty; name a folder by --networks"
          )

  def folder(self, workdir: str) -> str:
    """Returns the folder of the zoo.

    Raises:
      ValueError: it is the work directory.
    """
    out = self.zoo_out or f"{os.path.normpath(workdir)}_zoo"
    if os.path.abspath(out) == os.path.abspath(workdir):
      raise ValueError(
        f"zoo_out and workdir are both {workdir}; give each its own folder"
      )
    return out

  def zoo(self, workdir: str, targets: Sequence[str], loss: str) -> store.Zoo:
    """Converts the files into a zoo, or opens it.

    Raises:
      ValueError, ZooError: see `folders.zoo_of_files`.
    """
    with progress.Progress("reading networks") as shown:
      return folders.zoo_of_files(
        self.networks,
        self.table,
        self.folder(workdir),
        targets=targets,
        loss=loss,
        files=self.file_column,
        group=self.group_column,
        override=checkpoints.read_override(self.overrides),
        skip_unreadable=self.skip_unreadable,
        progress=shown.update,
      )
