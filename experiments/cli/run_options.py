"""What to run, where, and how often: the options of `run.py` itself."""

import dataclasses
import math
import os

from sne_jax.cli import compiled, config
from sne_jax.encoders import table
from sne_jax.learning.editing.targets import EDITS
from sne_jax.networks.checked import Checked, option

PRETRAINED = ("sane", "hyper_representation", "sne")
PRETRAIN = (*PRETRAINED, "sne_untrained", "statistics", "pca", "weights")
"""What `--pretrain` and `--probes` know: what is trained, then baselines."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions(Checked):
  """What to run, where, and how often.

  Attributes:
    workdir: folder for everything that the run writes; a run that was stopped
      continues there.
    zoo: folder of the zoo, or sine:FOLDER, or a flagfile of
      experiments/make_zoo.py. A flagfile (experiments/flags/zoos/) is run if
      its folder is not there. sine:FOLDER is a zoo of sine INRs, made there by
      the zoo_ options if it is not there. Several, separated by commas, are
      trained and tested on as one.
    test_zoos: further zoos, likewise; none of their networks are trained on,
      and each is reported by itself.
    data_dir: folder of image files (mnist.npz), for zoos that are made; empty:
      as their flagfiles say.
    snapshots: which snapshots of a zoo's networks are its members: last, or
      epochs separated by commas; empty: all.
    matrix: train on one zoo and test on others: each, others or all. One model
      is trained for each row of a matrix and tested on each of its columns, the
      zoos of --zoo (or --test_zoos, where given). each: trained on each zoo by
      itself; others: on all zoos but the one it is tested on; all: on all of
      them together. Empty: one run. For each of --encoders.
    encoders: encoders that a matrix, or --rates, compares, separated by commas,
      or all. One that takes other steps than num_steps has them after a colon:
      a cheap one may need more to converge, as in sne,stat_nn:2000.
    rates: learning rates to try, separated by commas, such as 3e-4,1e-3,3e-3:
      compare --encoders on one zoo (experiments/comparisons/contest.py). Each
      is trained at each rate with the first seed, and at the best rate by
      validation with all. Empty: no such comparison.
    search_share: share of its steps that a training of that search takes.
    pretrain: train an encoder without labels instead, and read every target
      from its codes by a linear probe: sane, hyper_representation or sne; or
      probe a baseline: sne_untrained, statistics, pca or weights. Empty: train
      by labels.
    probes: of those, names to compare by the same probes, separated by commas,
      or all; or flagfiles, which say --pretrain and in what else one of them
      differs from this run. Empty: no such comparison.
    init_from: folder of a run of --pretrain=sne, or of one of its seeds: the
      encoder begins with its parameters and keeps what it has measured; the
      head is new. Of a run, each seed takes the seed of its number. Empty: it
      begins at random.
    edit: train an editor instead: weights of networks that are images in, a
      change of every weight out, so that what they show is their image after
      an edit: dilate, erode, gradient or contrast (sne_jax/learning/editing/
      targets.py). --encoder names one that gives a value for every weight.
      Empty: no editor.
    variants: name of a list of variants to compare (see
      experiments/comparisons/variants.py); empty: one run.
    only: names of the variants to run, separated by semicolons; empty: all. A
      later run of all takes over what these have given.
    seeds: number of independent trainings. Ask for more later, and those that
      are finished are kept.
    first_seed: seed of the first; the others follow.
    split: name of the zoo's split into train, val and test. Where the zoo has
      none of that name, it is drawn: train_members, validation_members and
      test_members say how many.
    split_seed: of a split that is drawn.
    train_members: members to train on. Networks of your own are split by share
      unless numbers are given: 70 % train, 15 % val, 15 % test.
    validation_members: members that choose the best parameters.
    test_members: members that are only reported on.
    train_share: share of the training members that is used, from 0 to 1.
    targets: comma-separated properties of the zoo, or columns of the table, to
      predict.
    target_scale: log predicts the logarithm to base 10 of every target, and
      all metrics are then of the logarithm; linear the target itself.
    loss: mse for any property of numbers; bce for properties in [0, 1]; classes
      for one property that is text, such as optimizer, or whole numbers: its
      classes are those of the training members, and a probability is predicted
      for each.
    encoder: name of the encoder, such as sne or stat_pool. All are in
      sne_jax/encoders/table.py; those but sne have their options as items of
      --encoder_option.
    encoder_file: Python files, or modules, separated by commas, that register
      encoders of your own (WORKSPACE.md, "Where to add"). They are run first.
    head_width: hidden width of the head; 0 is a linear head.
    head_dropout: share of the code that is dropped in training.
    head_collapsed: predict apart which networks have collapsed, such as those
      whose accuracy is that of chance: their prediction is then exactly the
      commonest value of the training members, and they are tied.
    head_collapsed_within: members whose target is so near to that value count
      as collapsed too.
    devices: local devices to share every batch; 0: all.
    references: also fit constant, ridge and boosted-tree references.
    image_counts: also measure the reference that needs images: the accuracy on
      so many images that the zoo's networks have not seen, such as
      10,100,1000. Zoos must be named by flagfiles, with images left over
      (--train_images), and the target be test_accuracy. Empty: none.
    maps: draw maps of the codes of test networks (PCA and t-SNE), coloured by
      zoo, target and architecture.
    sample_from: work directory of a run of --pretrain=sane or
      hyper_representation, or a flagfile of one, which is run first: sample
      networks from that autoencoder around the best of the zoo's, and
      fine-tune them, by the sample_ options. Empty: another run.
    title: heading of the report.
    compilation_cache: folder in which compiled programs are kept, so that the
      next start with the same options compiles nothing; auto: one in the
      user's cache; none: nowhere.
  """

  workdir: str = "runs/default"
  zoo: str = ""
  test_zoos: str = ""
  data_dir: str = ""
  snapshots: str = ""
  matrix: str = option("", choices=("", "each", "others", "all"))
  encoders: str = "sne,stat_pool"
  rates: str = ""
  search_share: float = option(1.0, above=0, most=1)
  pretrain: str = option("", choices=("", *PRETRAIN))
  probes: str = ""
  init_from: str = ""
  variants: str = ""
  only: str = ""
  seeds: int = option(3, least=1)
  first_seed: int = option(0, least=0)
  split: str = "default"
  split_seed: int = option(0, least=0)
  train_members: int = option(1000, least=2)
  validation_members: int = option(200, least=2)
  test_members: int = option(300, least=2)
  train_share: float = option(1.0, above=0, most=1)
  targets: str = "frequency"
  target_scale: str = option("linear", choices=("linear", "log"))
  loss: str = option("mse", choices=("mse", "bce", "classes"))
  encoder: str = "sne"
  encoder_file: str = ""
  head_width: int = option(64, least=0)
  head_dropout: float = option(0.0, least=0, below=1)
  head_collapsed: bool = False
  head_collapsed_within: float = option(0.0, least=0)
  devices: int = option(0, least=0)
  references: bool = True
  image_counts: str = ""
  maps: bool = False
  sample_from: str = ""
  edit: str = option("", choices=("", *EDITS))
  title: str = "Properties of networks from their weights"
  compilation_cache: str = compiled.AUTO

  def __post_init__(self):
    super().__post_init__()
    for name in ("workdir", "split", "targets"):
      if not getattr(self, name).strip(", "):
        raise ValueError(f"{name} is empty; give at least one name")
    folder = self.zoo.removeprefix("sine:") or os.devnull
    if os.path.abspath(self.workdir) == os.path.abspath(folder):
      raise ValueError(
        f"workdir and zoo are both {self.workdir}; give each its own folder"
      )
    self._check_targets()
    if self.encoder not in table.ENCODERS:
      raise ValueError(
        f"encoder is {self.encoder!r}; choose one of"
        f" {', '.join(sorted(table.ENCODERS))}"
      )
    if self.rates:
      _ = self.rate_values  # Raises.
    self._check_pretraining()
    kinds = ("sample_from", "matrix", "variants", "rates", "probes", "pretrain")
    kinds += ("edit",)
    asked = [f"{n} is {getattr(self, n)}" for n in kinds if getattr(self, n)]
    if (self.sample_from or self.edit) and self.init_from:
      asked.append(f"init_from is {self.init_from}")
    if len(asked) > 1:
      raise ValueError(
        f"{' and '.join(asked)}; a run is a matrix, a pretraining, an editor's"
        " training, samples networks, or compares variants, probes, or encoders"
        " at several rates: keep one of them"
      )
    for name in self.encoder_steps if self.matrix or self.rates else ():
      if name not in table.ENCODERS:
        raise ValueError(
          f"encoders names {name!r}; choose of"
          f" {', '.join(sorted(table.ENCODERS))}"
        )
    numbers = {"image_counts": self.image_counts}
    numbers |= {"snapshots": self.snapshots} if self.snapshots != "last" else {}
    for name, text in numbers.items():
      if not all(word.isdigit() for word in config.words(text)):
        raise ValueError(
          f"{name} must be whole numbers separated by commas, got {text!r}"
        )
    for name, only in (
      ("targets", "test_accuracy"),
      ("target_scale", "linear"),
    ):
      if self.image_counts and getattr(self, name) != only:
        raise ValueError(
          f"image_counts measures test_accuracy, but {name} is"
          f" {getattr(self, name)!r}; drop one of the two"
        )
    if self.only and not self.variants:
      raise ValueError(
        f"only is {self.only!r}, but variants is empty; name a list of variants"
      )

  def _check_pretraining(self):
    """Raises unless what is pretrained, probed and begun with is known."""
    names = self.probe_names or ("",)
    for name in names if self.probes else ():
      if name not in PRETRAIN and not name.endswith(".flags"):
        raise ValueError(
          f"probes is {self.probes!r} and names {name!r}; choose of"
          f" {', '.join(PRETRAIN)}, or all, or name flagfiles"
        )
    if self.init_from and (self.pretrain or self.encoder != "sne"):
      raise ValueError(
        f"init_from is {self.init_from!r}, but what is trained is"
        f" {self.pretrain or self.encoder}; it is for encoder sne, trained by"
        " labels"
      )
    if self.loss == "classes" and (self.pretrain or self.probes):
      raise ValueError(
        "loss is classes, but linear probes predict numbers; choose targets"
        " that are numbers, and --loss=mse"
      )

  @property
  def probe_names(self) -> tuple[str, ...]:
    """The words of `probes`."""
    if self.probes.strip() == "all":
      return PRETRAIN
    return tuple(dict.fromkeys(config.words(self.probes)))

  def _check_targets(self):
    """Raises unless targets, their scale, and the loss go together."""
    if self.loss == "classes" and len(self.target_names) != 1:
      raise ValueError(
        f"loss is classes, but targets is {self.targets!r}; name one property"
      )
    if self.target_scale == "log" and self.loss != "mse":
      raise ValueError(
        f"target_scale is log, but loss is {self.loss}; use --loss=mse, or"
        " --target_scale=linear"
      )

  @property
  def target_names(self) -> tuple[str, ...]:
    """The words of `targets`."""
    return config.words(self.targets)

  @property
  def rate_values(self) -> tuple[float, ...]:
    """The words of `rates`.

    Raises:
      ValueError: one of them is no number above 0, or stands there twice.
    """
    try:
      rates = tuple(map(float, config.words(self.rates)))
    except ValueError:
      rates = (0.0,)
    if not all(0 < rate < math.inf for rate in rates):
      raise ValueError(
        f"rates must be numbers above 0 separated by commas, got {self.rates!r}"
      )
    if len(set(rates)) < len(rates):
      raise ValueError(f"rates names one twice: {self.rates!r}")
    return rates

  def encoders_in_use(self) -> tuple[str, ...]:
    """Names of the encoders of the table that take part in what is run."""
    names = [self.encoder, self.pretrain]
    names += self.encoder_steps if self.matrix or self.rates else ()
    names += self.probe_names if self.probes else ()
    return tuple(dict.fromkeys(n for n in names if n in table.ENCODERS))

  @property
  def encoder_steps(self) -> dict[str, int]:
    """The words of `encoders`, each with its steps; 0: `num_steps`.

    Raises:
      ValueError: what follows a colon is no number above 0.
    """
    if self.encoders.strip() == "all":
      return dict.fromkeys(table.ENCODERS, 0)
    by_name = {}
    for word in config.words(self.encoders):
      name, colon, steps = word.partition(":")
      if colon and not (steps.isdigit() and int(steps)):
        raise ValueError(
          f"encoders has {word!r}; a number of steps follows the colon,"
          " as in stat_nn:2000"
        )
      by_name[name] = int(steps) if colon else 0
    return by_name
