"""Shows a zoo, or what a run makes of it, as a page for the browser.

  sne-jax explore runs/own --out=atlas.html

The argument is a run of `sne-jax train` or experiments/run.py, or the folder of
a zoo. The page is one file that needs no server and no network: a map of the
codes of networks, coloured by any property or prediction. Point at a network
to see what is known of it, draw around several to list them, click one to see
its layers, its weights and its nearest neighbours. Of a run, codes and
predictions are those of its encoder, of the zoo that it was about; of a zoo
alone, codes are statistics of the weights.
"""

import dataclasses
import pathlib

from absl import flags, logging

from sne_jax.cli import config, encoder_options, given_files
from sne_jax.cli.atlas import gathering, layouts, page
from sne_jax.learning.training import progress
from sne_jax.networks.checked import Checked, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExploreOptions(Checked):
  """What to show, and where.

  Attributes:
    out: the page to write, .html.
    zoo: folder of a zoo to show by the encoder of the run; empty is what the
      run was about. Several are separated by commas.
    layouts: maps, of pca, tsne and umap, separated by commas; empty is all that
      are installed (umap needs umap-learn).
    colour: the property or prediction that colours the map first; empty is the
      first prediction, or property.
    most: networks to show, at most, drawn at random where there are more; 0 is
      all.
    draw_seed: of that draw, and of the maps.
    title: of the page; empty is that of the run, or the name of the folder.
    encoder_file: Python files that register encoders of your own, separated by
      commas, for a run of one; they are run first.
    verify: refuse a run of which a file is not what was written; --noverify
      reads it as it is.
  """

  out: str = "atlas.html"
  zoo: str = ""
  layouts: str = ""
  colour: str = ""
  most: int = option(20000, least=0)
  draw_seed: int = option(0, least=0)
  title: str = ""
  encoder_file: str = ""
  verify: bool = True

  def __post_init__(self):
    super().__post_init__()
    if not self.out.endswith(".html"):
      raise ValueError(f"out is {self.out!r}; must end with .html")
    layouts.chosen(config.words(self.layouts))


CLASSES = (ExploreOptions,)


def main(argv: list[str], flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Reads the flags, the run and the zoo, and writes the page.

  Raises:
    ValueError: no folder, one that is neither run nor zoo, or a run without a
      model or a zoo.
  """
  options = config.from_flags(ExploreOptions, flag_values=flag_values)
  encoder_options.load_files(options.encoder_file)
  if len(argv) != 2:
    raise ValueError(
      f"explore takes one folder, of a run or a zoo, and got {len(argv) - 1}:"
      " sne-jax explore runs/own --out=atlas.html"
    )
  folder = pathlib.Path(argv[1])
  zoos = zoos_of(folder, options)
  given_files.check_outputs([options.out])
  members = gathering.members_of(
    zoos,
    split=gathering.split_of(folder),
    most=options.most,
    seed=options.draw_seed,
  )
  title = options.title or gathering.title_of(folder)
  if gathering.is_zoo(folder):
    atlas = gathering.of_zoo(title, members)
  else:
    with progress.Progress("encoding networks") as shown:
      atlas = gathering.of_run(
        *(title, folder, members),
        verify=options.verify,
        progress=lambda done, total: shown.update(done, total, ""),
      )
  columns = dict(atlas.columns)
  if options.colour:
    if options.colour not in columns:
      raise ValueError(
        f"colour is {options.colour!r}; choose of {', '.join(columns)}"
      )
    first = {options.colour: columns.pop(options.colour)}
    atlas = dataclasses.replace(atlas, columns=first | columns)
  logging.info("drawing maps of %d networks", len(atlas.names))
  written = page.write(
    pathlib.Path(options.out),
    atlas,
    names=layouts.chosen(config.words(options.layouts)),
    seed=options.draw_seed,
  )
  size = written.stat().st_size / 1e6
  print(f"{len(atlas.names)} networks in {written} ({size:.1f} MB)")


def zoos_of(folder: pathlib.Path, options: ExploreOptions) -> list[str]:
  """Returns the zoos to show.

  Raises:
    ValueError: the folder is neither a run nor a zoo, or a zoo is not there.
  """
  if not folder.is_dir():
    raise ValueError(f"there is no folder {folder}; name a run or a zoo")
  if gathering.is_zoo(folder):
    if options.zoo:
      raise ValueError(
        f"{folder} is a zoo, and --zoo names another; name a run, whose encoder"
        " shows that zoo, or leave --zoo out"
      )
    return [str(folder)]
  if not any(folder.glob("seed*")) and not (folder / "model.json").exists():
    raise ValueError(
      f"{folder} is neither a run nor a zoo; name the --workdir of a finished"
      " run, or a folder with a zoo.json"
    )
  named = config.words(options.zoo)
  for zoo in named:
    if not gathering.is_zoo(zoo):
      raise ValueError(f"zoo names {zoo}, which holds no zoo.json")
  return list(named) or gathering.zoos_of(folder)
