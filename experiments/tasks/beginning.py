"""Encoders that begin where a pretraining without labels has ended."""

from experiments.cli import options as options_lib
from experiments.tasks import members
from sne_jax.learning.selfsup import pretraining
from sne_jax.learning.training import records


def check_split(options: options_lib.Options, data: members.Data) -> None:
  """Refuses a pretraining that may have seen what is now to be tested on.

  Args:
    options: of the run, with `init_from`.
    data: its networks.

  Raises:
    ValueError: it may have.
  """
  first = options.run.first_seed
  for seed in range(first, first + options.run.seeds):
    folder = pretraining.folder_of(options.run.init_from, seed)
    if not (folder / pretraining.FILE).exists():
      continue  # `fit` says so.
    theirs = set(records.read_json(folder / pretraining.FILE)["seen"])
    seen = theirs & members.identities(data, data.tests())
    if seen:
      raise ValueError(
        f"init_from: {folder} was pretrained on {len(seen)} of the networks"
        " that are now tested on; pretrain it on the same split, without"
        " resplit"
      )
