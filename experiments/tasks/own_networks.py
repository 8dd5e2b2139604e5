"""Runs on networks of one's own: `--networks` and `--table` become `--zoo`.

The files are converted first, once; what follows is a run on that zoo, and its
flags.txt names the zoo.
"""

from absl import flags

from experiments.cli import options as options_lib
from sne_jax.cli import config, own


def options_of(flag_values: flags.FlagValues) -> options_lib.Options:
  """Returns the options of a run, whose zoo is there if it is one's own.

  All options are checked before a file is read.

  Raises:
    ValueError: options, table or files that are wrong, or a zoo besides.
  """
  given = config.from_flags(own.OwnOptions, flag_values=flag_values)
  if not given.networks:
    return options_lib.from_flags(flag_values)
  if zoo := flag_values["zoo"].value:
    raise ValueError(
      f"zoo is {zoo}, and networks is {given.networks}; a run trains on one of"
      " them: leave the other out"
    )
  workdir = str(flag_values["workdir"].value)
  changes = {"zoo": given.folder(workdir)}
  options = options_lib.from_flags(flag_values, changes)
  given.zoo(workdir, options.run.target_names, options.run.loss)
  return options
