r"""Makes a zoo: image classifiers, networks that are images, or tickets.

  sne-jax zoo --zoo=zoos/quick --num_networks=24 --activation=relu \
    --optimizer=adam --initializer=glorot_normal --snapshots=1,3,6

trains a few dozen small networks on scikit-learn's digits, which need no
download, and keeps them at several ages. What varies between them, and how, is
in the flags; a clone has one file for each of its zoos in
experiments/flags/zoos/, for --flagfile. A run that was
stopped, or killed, resumes when the same command is given again, and ends with
the same zoo.

Without any flag it makes 500 networks of the small CNN zoo's architecture on
digits of 16 x 16. Other images: files of Keras form by --data_dir, or
--download (see --dataset). On a CPU all cores take part; on a GPU or TPU the
same command fills the device.

  sne-jax zoo --family=inr_image --zoo=zoos/digits_inr

fits a sine network to every image instead (an implicit representation); what
can be said of these begins with --inr_.

  sne-jax zoo --family=tickets --zoo=zoos/digits_tickets

draws first weights, and finds by iterative magnitude pruning which of them to
keep, so that what is left trains well; its options begin with --ticket_.
"""

import dataclasses
import os
from typing import Any

import jax
import numpy as np
from absl import flags, logging

from sne_jax.cli import compiled, config
from sne_jax.learning.training import progress
from sne_jax.networks import families
from sne_jax.networks.checked import Checked, option
from sne_jax.zoo.classifiers import generate, images, labels, options
from sne_jax.zoo.inrs import image_options, image_zoo
from sne_jax.zoo.tickets import options as ticket_options
from sne_jax.zoo.tickets import ticket_zoo

FAMILIES = ("classifier", "inr_image", "tickets")
CLASSIFIER, INR_IMAGE, TICKETS = FAMILIES


@dataclasses.dataclass(frozen=True, kw_only=True)
class MakeOptions(Checked):
  """Where the zoo goes, and what it is made on.

  Attributes:
    zoo: folder of the zoo; made if it is not there.
    family: classifier: networks that are trained on the images; inr_image:
      sine networks, each fitted to one image; tickets: first weights of
      classifiers, and masks of those to keep, by iterative magnitude pruning.
    cpu_devices: devices that a CPU is divided into, each training its own
      networks; 0: one for each core. The same number gives the same bytes.
    label_images: test images that test_accuracy is measured on, at least, where
      the data set has so many; 0: those of eval_images. Where test images are
      too few, training images that train_images leaves over follow, from the
      last. A zoo that is there is labelled anew, without training; which images
      each network classifies rightly is kept, as bits.
    compilation_cache: folder in which compiled programs are kept for the next
      start; auto: one in the user's cache; none: nowhere.
  """

  zoo: str = "zoos/digits"
  family: str = option(CLASSIFIER, choices=FAMILIES)
  cpu_devices: int = option(0, least=0)
  label_images: int = option(0, least=0)
  compilation_cache: str = compiled.AUTO

  def __post_init__(self):
    super().__post_init__()
    if not self.zoo:
      raise ValueError("zoo is empty; name a folder")


MOST_DOUBLINGS = 3
"""How often images are doubled in size, at most, for architectures."""

CLASSES: tuple[type, ...] = (
  *(MakeOptions, images.ImageOptions),
  *(options.ImageZooOptions, image_options.ImageInrOptions),
  ticket_options.TicketOptions,
)
Networks = (
  options.ImageZooOptions
  | image_options.ImageInrOptions
  | ticket_options.TicketOptions
)
PREFIXES: dict[type, str] = {
  image_options.ImageInrOptions: "inr_",
  ticket_options.TicketOptions: "ticket_",
}
OF_FAMILY = {
  CLASSIFIER: options.ImageZooOptions,
  INR_IMAGE: image_options.ImageInrOptions,
  TICKETS: ticket_options.TicketOptions,
}
"""The options that are of one family of networks alone."""


POSITIONAL = False


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the flags of this program."""
  config.define_flags(*CLASSES, prefixes=PREFIXES, flag_values=flag_values)


def options_of(flag_values: flags.FlagValues) -> tuple:
  """Returns options of each class, in the order of `CLASSES`.

  Raises:
    ValueError: one that the family of networks has no use for.
  """
  made: tuple[Any, ...] = tuple(
    config.from_flags(
      cls, prefix=PREFIXES.get(cls, ""), flag_values=flag_values
    )
    for cls in CLASSES
  )
  family = made[0].family
  for other, cls in OF_FAMILY.items():
    if other == family:
      continue
    prefix = PREFIXES.get(cls, "")
    names = [prefix + field.name for field in config.flag_fields(cls)]
    unused = [name for name in names if flag_values[name].present]
    if unused:
      mine = PREFIXES.get(OF_FAMILY[family], "")
      hint = f", or take one that begins with --{mine}" if mine else ""
      raise ValueError(
        f"--{unused[0]} is for --family={other}, and the family is {family};"
        f" leave it out{hint}, or say --family={other}"
      )
  if family != CLASSIFIER and made[0].label_images:
    why = (
      "images as networks have the class of their image"
      if family == INR_IMAGE
      else "untrained networks classify none"
    )
    raise ValueError(
      f"--label_images is for --family={CLASSIFIER}: {why}; leave it out"
    )
  return made


def main(argv: list[str], flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Reads the flags and makes the zoo.

  Raises:
    ValueError: options that are wrong, images that are not there, a folder
      that holds another zoo, or another process at work in it.
  """
  del argv
  make, image, zoo, inr, ticket = options_of(flag_values)
  compiled.keep(make.compilation_cache)
  if make.family == INR_IMAGE:
    make_images(make, image, inr)
    return
  if make.family == TICKETS:
    make_tickets(make, image, ticket)
    return
  data = load_images(image, zoo)
  logging.info(
    "%s: %d images to train on, %d to test on, of %s",
    image.dataset,
    len(data.x_train),
    len(data.x_test),
    "x".join(map(str, data.shape)),
  )
  with progress.Progress("training networks") as shown:
    written = generate.generate_image_zoo(
      make.zoo, zoo, data, dataset=image.dataset, progress=shown.update
    )
  if make.label_images:
    with progress.Progress("labelling networks") as shown:
      written = labels.relabel(
        *(make.zoo, data, load_all_images(image, zoo), make.label_images),
        progress=shown.update,
      )
  last = written.select(where={"epoch": max(zoo.epochs)})
  accuracy = written.property("test_accuracy")[last]
  low, middle, high = np.quantile(accuracy, (0.1, 0.5, 0.9))
  count = len(written.correct.classes) if written.correct else "unknown"
  print(
    f"{written}\n  labelled with {count} test images\n"
    f"  test accuracy after {max(zoo.epochs)} epochs: median"
    f" {middle:.3f}, from {low:.3f} (10 %) to {high:.3f} (90 %)\n ",
    f"{(~written.members['valid']).sum()} members diverged",
  )


def make_images(
  make: MakeOptions,
  image: images.ImageOptions,
  inr: image_options.ImageInrOptions,
) -> None:
  """Makes a zoo of images as networks.

  Raises:
    ZooError, ValueError: of `images.load_images` and
      `image_zoo.generate_image_inr_zoo`.
  """
  data = images.load_images(image)
  count = len(data.x_train) * inr.refits + len(data.x_test)
  logging.info(
    "%s: %d images of %s, %d networks",
    image.dataset,
    len(data.x_train) + len(data.x_test),
    "x".join(map(str, data.shape)),
    count,
  )
  with progress.Progress("fitting networks") as shown:
    written = image_zoo.generate_image_inr_zoo(
      make.zoo, inr, data, dataset=image.dataset, progress=shown.update
    )
  low, middle, high = np.quantile(written.property("psnr"), (0.1, 0.5, 0.9))
  short = int((~written.property("converged")).sum())
  print(
    f"{written}\n  PSNR: median {middle:.1f} dB, from {low:.1f} (10 %) to"
    f" {high:.1f} (90 %)\n  {short} members did not reach {inr.psnr:g} dB in"
    f" {inr.max_steps} steps\n ",
    f"{(~written.members['valid']).sum()} members diverged",
  )


def make_tickets(
  make: MakeOptions,
  image: images.ImageOptions,
  ticket: ticket_options.TicketOptions,
) -> None:
  """Makes a zoo of winning tickets.

  Raises:
    ZooError, ValueError: of `images.load_images` and
      `ticket_zoo.generate_ticket_zoo`.
  """
  data = load_images(image, ticket)
  logging.info(
    "%s: %d networks, each trained %d times on images of %s",
    *(image.dataset, ticket.num_networks),
    len(ticket.densities) + len(ticket_zoo.WAYS),
    "x".join(map(str, data.shape)),
  )
  with progress.Progress("finding tickets") as shown:
    written = ticket_zoo.generate_ticket_zoo(
      make.zoo, ticket, data, dataset=image.dataset, progress=shown.update
    )
  valid = written.members["valid"]
  means = {
    way: written.property(f"{way}_test_accuracy")[valid].mean()
    for way in ticket_zoo.WAYS
  }
  print(
    f"{written}\n  mean test accuracy"
    f" at sparsity {written.property('sparsity').mean():.4g}:",
    ", ".join(f"{way} {mean:.3f}" for way, mean in means.items()),
    f"\n  {(~valid).sum()} members diverged",
  )


def load_images(image: images.ImageOptions, zoo: Networks) -> images.Images:
  """Returns the images of a zoo.

  Where `image_size` leaves the size open and an architecture cannot take the
  images as they are, they are enlarged by the least power of 2 with which all
  architectures can, square.

  Raises:
    ZooError: of `images.load_images`.
  """
  data = images.load_images(image)
  if isinstance(zoo, image_options.ImageInrOptions):
    return data  # A network fits images of any size.
  if image.image_size or _are_taken(zoo, data.shape):
    return data
  channels, *sides = data.shape
  for doublings in range(1, MOST_DOUBLINGS + 1):
    size = max(sides) << doublings
    if _are_taken(zoo, (channels, size, size)):
      logging.info(
        "images of %dx%d are too small for %s: enlarged to %dx%d",
        *(*sides, zoo.architecture, size, size),
      )
      return images.load_images(dataclasses.replace(image, image_size=size))
  return data  # Whoever builds the networks says what is wrong.


def load_all_images(image: images.ImageOptions, zoo: Networks) -> images.Images:
  """Returns the whole data set of which a zoo has the first images."""
  every = dataclasses.replace(image, train_images=0, test_images=0)
  return load_images(every, zoo)


def _are_taken(
  zoo: options.ImageZooOptions | ticket_options.TicketOptions,
  shape: tuple[int, ...],
) -> bool:
  """Returns whether all architectures of a zoo take images of a shape."""
  try:
    for name in zoo.architecture.split(","):
      draws = [0.0] * families.NUM_DRAWS
      families.architecture(name.strip(), shape, draws=draws)
  except ValueError:
    return False
  return True


def before(flag_values: flags.FlagValues) -> None:
  """Divides the CPU, before JAX has any devices."""
  use_all_cores(int(str(flag_values["cpu_devices"].value)))


def use_all_cores(count: int) -> None:
  """Divides a CPU into devices; has to come before JAX has any."""
  jax.config.update("jax_num_cpu_devices", count or os.cpu_count() or 1)
