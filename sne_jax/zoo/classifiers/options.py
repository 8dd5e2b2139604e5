"""What a zoo of image classifiers is to be."""

import dataclasses

from sne_jax.networks import families
from sne_jax.networks.checked import Checked, option
from sne_jax.zoo.classifiers import fit, ranges

INITIALIZERS = tuple(
  name for name in families.SCHEMES if name not in ("default", "siren")
)
"""Initialisers that classifiers may have."""

PUBLISHED = "published"
MAKERS: dict[str, tuple[str, str]] = {
  PUBLISHED: ("", "constant"),
  "pytorch": ("fan_in_uniform", "fan_in_uniform"),
  "keras": ("glorot_uniform", "constant"),
  "flax": ("lecun_normal", "constant"),
}
"""How those who keep the defaults of a framework begin: weights, and biases, by
names of `families.init`. published is what the other options say."""

# Hyper-parameters that are numbers, drawn in this order, with their bounds.
NUMBERS = {
  "learning_rate": (0.0, 1e3),
  "weight_decay": (0.0, 1e3),
  "dropout": (0.0, 0.99),
  "init_std": (0.0, 1e3),
  "init_scale": (0.0, 1e3),
  "train_fraction": (0.0, 1.0),
  "label_noise": (0.0, 1.0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageZooOptions(Checked):
  """Which image classifiers to train, and how.

  Numbers that vary between networks are written as `0.1`, `0.1,0.5` (one of
  these), `uniform:LOW:HIGH` or `log:LOW:HIGH`; words as `adam,sgd`.

  Attributes:
    num_networks: networks to train.
    seed: a network is a function of the seed and its number alone.
    architecture: one or more of arch1, arch2, schuerholt, wild_park, mlp,
      residual, vit.
    members_per_architecture: so many networks in a row share a drawn
      architecture (wild_park) and its optimiser; each further architecture
      costs seconds of compilation.
    activation: of the hidden layers; wild_park draws them.
    optimizer: of sgd, momentum, adam, rmsprop.
    initializer: how first weights are drawn, of glorot_normal, he_normal,
      orthogonal, normal, truncated_normal and the like
      (sne_jax.networks.families.SCHEMES).
    makers: who makes the networks, drawn for each: published, which draws first
      weights as initializer says, with biases 0; and pytorch, keras, flax,
      which begin as these frameworks do by default.
    learning_rate: of the optimiser, constant.
    weight_decay: times the weights, in the gradient.
    dropout: share of hidden activations set to 0.
    init_std: deviation of the first weights, where the initializer is normal or
      truncated_normal; the others know theirs.
    init_scale: factor on the first weights of any initializer.
    train_fraction: share of the training images seen.
    label_noise: share of training labels drawn anew, at random.
    batch_size: images of a step.
    snapshots: epochs at which a network is kept, ascending; training ends at
      the last. An epoch is as many steps as all training images take.
    eval_images: images of each part on which a snapshot is evaluated, at most;
      0: all.
    validation_share: share of the networks in the validation part of the split
      default, all snapshots of a network in one part. What validation and test
      leave is for training.
    test_share: share of the networks in its test part.
    batch_members: networks trained together: the memory that it takes, and how
      much is lost when a run is broken off. 0: twelve for each core of a CPU,
      or what the memory holds that is free. It changes the weights by float
      rounding only.
  """

  num_networks: int = option(500, least=1)
  seed: int = option(0, least=0)
  architecture: str = "arch1"
  members_per_architecture: int = option(8, least=1)
  activation: str = "relu,tanh"
  optimizer: str = "adam,momentum,rmsprop"
  initializer: str = (
    "glorot_normal,he_normal,orthogonal,normal,truncated_normal"
  )
  makers: str = PUBLISHED
  learning_rate: str = "log:5e-4:5e-2"
  weight_decay: str = "log:1e-8:1e-2"
  dropout: str = "uniform:0:0.5"
  init_std: str = "log:1e-3:0.5"
  init_scale: str = "1"
  train_fraction: str = "0.1,0.25,0.5,1"
  label_noise: str = "0"
  batch_size: int = option(128, least=1)
  snapshots: str = "1,2,5,10"
  eval_images: int = option(5000, least=0)
  validation_share: float = option(0.15, least=0, below=1)
  test_share: float = option(0.15, least=0, below=1)
  batch_members: int = option(0, least=0)

  def __post_init__(self):
    super().__post_init__()
    known = {
      "architecture": families.ARCHITECTURES,
      "activation": tuple(families.ACTIVATIONS),
      "optimizer": tuple(fit.OPTIMIZERS),
      "initializer": INITIALIZERS,
      "makers": tuple(MAKERS),
    }
    for name, words in known.items():
      ranges.words(name, getattr(self, name), words)
    for name, (low, high) in NUMBERS.items():
      ranges.numbers(name, getattr(self, name), least=low, most=high)
    shares = (self.validation_share, self.test_share)
    if sum(shares) >= 1:
      raise ValueError(
        "validation_share and test_share must leave some networks for training,"
        f" got {shares[0]} and {shares[1]}"
      )
    _ = self.epochs

  @property
  def epochs(self) -> tuple[int, ...]:
    """The numbers in `snapshots`."""
    try:
      epochs = tuple(int(word) for word in self.snapshots.split(","))
    except ValueError:
      epochs = ()
    if not epochs or epochs[0] < 0 or list(epochs) != sorted(set(epochs)):
      raise ValueError(
        "snapshots must be ascending numbers of epochs, such as 1,5,20; got"
        f" {self.snapshots!r}"
      )
    return epochs
