"""Zoos as a run names them: folders, or flagfiles that say how to make them.

A flagfile of `make_zoo.py` stands for the zoo that it makes: where its folder
is not there yet, it is made first, by a process of its own, which has all
cores, and ends with this one. `sine:FOLDER` is a zoo of sine INRs, made there
by the `zoo_` options of the run. A folder by itself has to be there.
"""

import dataclasses
import difflib
import multiprocessing
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing import connection

import numpy as np
from absl import flags, logging

from experiments.cli import console
from sne_jax import room
from sne_jax.cli import config
from sne_jax.cli.commands import zoo as make_zoo
from sne_jax.learning.training import progress
from sne_jax.zoo.classifiers import images, labels, properties
from sne_jax.zoo.classifiers import options as image_options
from sne_jax.zoo.inrs import generate, image_zoo
from sne_jax.zoo.inrs import image_options as inr_image_options
from sne_jax.zoo.store import store
from sne_jax.zoo.tickets import options as ticket_options
from sne_jax.zoo.tickets import ticket_zoo

SUFFIX = ".flags"
SINE = "sine:"
TRY = "python experiments/run.py --flagfile=experiments/flags/quickstart.flags"


@dataclasses.dataclass(frozen=True)
class Source:
  """A zoo that a run is about.

  Attributes:
    word: as the run names it.
    name: last part of its folder: what tables and figures call it.
    path: its folder.
    arguments: of `make_zoo.py`, to make it; empty where a folder was named.
    is_sine: whether it is, or becomes, a zoo of sine INRs.
  """

  word: str
  name: str
  path: str
  arguments: tuple[str, ...] = ()
  is_sine: bool = False

  @property
  def is_there(self) -> bool:
    """Whether its folder holds a zoo."""
    return os.path.exists(os.path.join(self.path, "zoo.json"))

  def spare_images(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and labels that no network of the zoo has seen.

    Those for training that `train_images` leaves over: neither trained nor
    tested on, nor labelled with.

    Raises:
      ValueError: none are left, or a folder was named, which does not say
        where its images are.
    """
    if not self.arguments:
      raise ValueError(
        f"{self.path} is a folder, which does not say where its images are;"
        f" name the {SUFFIX} file of make_zoo.py that it was made by"
      )
    image, networks = self.options()
    if not isinstance(networks, image_options.ImageZooOptions):
      is_ticket = isinstance(networks, ticket_options.TicketOptions)
      raise ValueError(
        f"the networks of {self.name} are"
        f" {'untrained' if is_ticket else 'images'} and classify none; leave"
        " --image_counts empty"
      )
    zoo = store.Zoo.open(self.path)
    self.check_images(zoo)
    every = make_zoo.load_all_images(image, networks)
    used, end = image.train_images, len(every.x_train)
    if zoo.correct is not None:
      count = len(zoo.correct.classes)
      end -= labels.label_images(every, used or end, count).spare
    if not 0 < used < end:
      raise ValueError(
        f"the zoo {self.name} was trained on all {len(every.x_train)} images,"
        " or labelled with the others, so none are left to evaluate on; make it"
        " with fewer --train_images or --label_images, or leave --image_counts"
        " empty"
      )
    return every.x_train[used:end], every.y_train[used:end]

  def needs_labels(self, zoo: store.Zoo) -> bool:
    """Returns whether its flagfile asks for more labels than a zoo has."""
    least = _parsed(self.arguments)["label_images"].value
    there = 0 if zoo.correct is None else len(zoo.correct.classes)
    image, networks = self.options()
    if there >= least or not images.are_there(image):
      return False
    every = make_zoo.load_all_images(image, networks)
    used = image.train_images or len(every.x_train)
    return there < len(labels.label_images(every, used, least).classes)

  def check_images(self, zoo: store.Zoo) -> None:
    """Refuses a zoo that was made on other images than its flagfile says.

    Where these are not there any more, it warns only: nothing is downloaded.

    Raises:
      ValueError: it was, or the images are damaged, or too few.
    """
    image, networks = self.options()
    if not images.are_there(image):
      logging.warning(
        "the images of %s are not there (%s), so whether %s was made on them"
        " is not known",
        *(self.arguments[0], image.data_dir or os.curdir, self.path),
      )
      return
    digest = images.digest(make_zoo.load_images(image, networks))
    if (zoo.provenance.get("options") or {}).get("images") != digest:
      raise ValueError(
        f"{self.path} was made on other images than {self.arguments[0]} says"
        " (--dataset, --image_size, --grayscale, --train_images, --test_images,"
        " or the file of images), so it is not known which its networks have"
        " seen; delete the folder, or name it instead of the flagfile"
      )

  def options(self) -> tuple[images.ImageOptions, make_zoo.Networks]:
    """Returns which images, and which networks, its flagfile asks for.

    Raises:
      ValueError: options that its family of networks has no use for.
    """
    make, image, *by_family = make_zoo.options_of(_parsed(self.arguments))
    return image, by_family[make_zoo.FAMILIES.index(make.family)]

  def properties(self) -> tuple[str, ...]:
    """Returns the properties that members of its flagfile's zoo have."""
    _, networks = self.options()
    return tuple(_PROPERTIES[type(networks)])


_PROPERTIES = {
  image_options.ImageZooOptions: properties.PROPERTIES,
  inr_image_options.ImageInrOptions: image_zoo.PROPERTIES,
  ticket_options.TicketOptions: ticket_zoo.PROPERTIES,
}
"""What members have, by the options of their family."""


def sources(text: str, data_dir: str = "") -> tuple[Source, ...]:
  """Returns the zoos of a list, separated by commas.

  Args:
    text: folders, `sine:` and a folder, and flagfiles of `make_zoo.py`, which
      end in `.flags`.
    data_dir: folder of image files; where it is empty, that of the flagfile.

  Raises:
    ValueError: none, one that is named twice, or two of one name.
    OSError: a flagfile that cannot be read.
  """
  listed = []
  for word in config.words(text):
    arguments = ()
    path = word.removeprefix(SINE)
    if word.endswith(SUFFIX):
      if not pathlib.Path(word).is_file():
        raise ValueError(f"there is no flagfile {word}; name one, or a folder")
      arguments = (f"--flagfile={word}",)
      arguments += (f"--data_dir={data_dir}",) if data_dir else ()
      path = _parsed(arguments)["zoo"].value
    name = pathlib.Path(path).name
    listed.append(Source(word, name, path, arguments, word.startswith(SINE)))
  if not listed:
    raise ValueError(
      "zoo is empty; name a zoo, or a flagfile of one, by --zoo, or a folder of"
      " checkpoints by --networks, with their labels by --table,"
      f" or begin with {TRY}"
    )
  names = [source.name for source in listed]
  for name in names:
    if names.count(name) > 1:
      raise ValueError(
        f"two zoos are called {name!r} ({text}); give each once, in folders of"
        " different names"
      )
  return tuple(listed)


def check_there(*listed: Source) -> None:
  """Refuses folders that are not there and that nothing makes.

  Raises:
    ValueError: the first of them, and a name that is near.
  """
  for source in listed:
    if not (source.arguments or source.is_sine or os.path.isdir(source.path)):
      raise ValueError(_missing(source.path))


def _missing(path: str) -> str:
  """Returns what is said of a zoo that is not there."""
  folder = pathlib.Path(path)
  here = [str(other) for other in folder.parent.glob("*/zoo.json")]
  here = [str(pathlib.Path(other).parent) for other in here]
  near = difflib.get_close_matches(path, [*here, *_flagfiles()], n=1)
  hint = f"did you mean {near[0]}? " if near else ""
  return (
    f"there is no zoo {path}; {hint}A flagfile of experiments/flags/zoos/ makes"
    f" one, and {SINE}{path} makes one of sine INRs"
  )


def _flagfiles() -> list[str]:
  folder = pathlib.Path("experiments/flags/zoos")
  return [str(path) for path in folder.glob(f"*{SUFFIX}")]


def opened(source: Source, inr_options: generate.InrZooOptions) -> store.Zoo:
  """Opens a zoo, or makes it.

  Args:
    source: which one.
    inr_options: of a zoo of sine networks.

  Raises:
    ZooError: it is damaged, is not there, or was made with other options.
    ValueError: its flagfile is wrong, or making it has failed.
  """
  if source.arguments:
    return _image_zoo(source)
  if not source.is_sine:
    check_there(source)
    return store.Zoo.open(source.path)
  path = pathlib.Path(source.path)
  if source.is_there:
    made_by = store.Zoo.open(path).provenance.get("generator")
    if made_by != generate.GENERATOR:
      raise ValueError(
        f"{source.word}: {path} holds a zoo that {generate.GENERATOR} has not"
        f" made; name it as {path}"
      )
  with progress.Progress("making the zoo") as shown:
    return generate.generate_inr_zoo(path, inr_options, progress=shown.update)


def _image_zoo(source: Source) -> store.Zoo:
  """Opens the zoo of a flagfile; runs `make_zoo.py` where it is not there."""
  if not source.is_there or source.needs_labels(store.Zoo.open(source.path)):
    logging.info("making, or labelling, the zoo %s", source.path)
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=_make, args=(source.arguments,))
    process.start()
    process.join()
    if process.exitcode == room.EXIT_CODE:
      sys.exit(process.exitcode)  # The line has been said.
    if process.exitcode == -signal.SIGKILL:
      raise ValueError(
        f"the zoo of {source.arguments[0]} was not made: its process was"
        " killed, as systems do where memory runs out; what is finished is"
        " kept, and the same command continues"
      )
    if process.exitcode:
      raise ValueError(
        f"the zoo of {source.arguments[0]} was not made; see the error above"
      )
  zoo = store.Zoo.open(source.path)
  image, networks = source.options()
  wanted = dataclasses.asdict(networks) | {"dataset": image.dataset}
  del wanted["batch_members"]
  there = zoo.provenance.get("options") or {}
  # Options that are newer than a zoo do not stand in it.
  unsaid = dataclasses.asdict(type(networks)())
  for name, value in wanted.items():
    if there.get(name, unsaid.get(name)) != value:
      raise ValueError(
        f"{source.path} was made with {name}={there.get(name)!r}, and"
        f" {source.arguments[0]} says {value!r}; delete the folder, or name it"
        " instead of the flagfile"
      )
  source.check_images(zoo)
  return zoo


def _make(arguments: Sequence[str]) -> None:
  """Makes a zoo: the body of a process, which ends when its parent does."""
  threading.Thread(target=_end_with_parent, daemon=True).start()
  console.setup()
  flags.FLAGS.mark_as_parsed()  # Of absl itself, for its logging.
  logging.use_absl_handler()
  logging.set_verbosity(logging.INFO)  # How far it is, as its parent says.
  values = _parsed(arguments)
  make_zoo.use_all_cores(values["cpu_devices"].value)
  sys.exit(
    config.guarded(lambda argv: make_zoo.main(argv, values), [""], values) or 0
  )


def _end_with_parent() -> None:
  parent = multiprocessing.parent_process()
  if parent is not None:
    connection.wait([parent.sentinel])
    os._exit(1)  # Killed like the parent: what is finished is on the disk.


def _parsed(arguments: Sequence[str]) -> flags.FlagValues:
  """Returns the flags of `make_zoo.py` with these arguments."""
  values = flags.FlagValues()
  make_zoo.define_flags(values)
  flags.DEFINE_string("flagfile", "", "of flags", flag_values=values)
  config.parse(["make_zoo.py", *arguments], values)
  return values
