"""What a zoo of image classifiers is to be."""

import dataclasses

from sne_jax.networks import families
from sne_jax.zoo import image_fit, ranges

INITIALIZERS = tuple(
  name for name in families.SCHEMES if name not in ("default", "siren")
)
"""Initialisers that classifiers may have."""

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
class ImageZooOptions:
  """Which image classifiers to train, and how.

  Numbers that vary between networks are written as `0.1`, `0.1,0.5` (one of
  these), `uniform:LOW:HIGH` or `log:LOW:HIGH`; words as `adam,sgd`.
  """

  num_networks: int = 500  # Networks to train, at least 1.
  seed: int = 0  # A network is a function of the seed and its number alone.
  # One or more of arch1, arch2, schuerholt, wild_park, mlp, residual, vit.
  architecture: str = "arch1"
  # So many networks in a row share a drawn architecture (wild_park) and its
  # optimiser; each further architecture costs seconds of compilation.
  members_per_architecture: int = 8
  activation: str = "relu,tanh"  # Of the hidden layers; wild_park draws them.
  optimizer: str = "adam,momentum,rmsprop"  # Of sgd, momentum, adam, rmsprop.
  # How first weights are drawn (sne_jax.networks.families.SCHEMES).
  initializer: str = (
    "glorot_normal,he_normal,orthogonal,normal,truncated_normal"
  )
  learning_rate: str = "log:5e-4:5e-2"  # Of the optimiser, constant.
  weight_decay: str = "log:1e-8:1e-2"  # Times the weights, in the gradient.
  dropout: str = "uniform:0:0.5"  # Share of hidden activations set to 0.
  # Deviation of the first weights, where the initializer is normal or
  # truncated_normal; the others know theirs.
  init_std: str = "log:1e-3:0.5"
  init_scale: str = "1"  # Factor on the first weights of any initializer.
  train_fraction: str = "0.1,0.25,0.5,1"  # Share of the training images seen.
  label_noise: str = "0"  # Share of training labels drawn anew, at random.
  batch_size: int = 128  # Images of a step.
  # Epochs at which a network is kept, ascending; training ends at the last.
  # An epoch is as many steps as all training images take.
  snapshots: str = "1,2,5,10"
  # Images of each part on which a snapshot is evaluated, at most; 0: all.
  eval_images: int = 5000
  # Of the split "default": shares of the networks, all snapshots of a network
  # in one part. What is left is for training.
  validation_share: float = 0.15
  test_share: float = 0.15  # See validation_share.
  # Networks trained together: the memory that it takes, and how much is lost
  # when a run is broken off. 0: twelve for each core of a CPU, or what the
  # memory holds that is free. It changes the weights by float rounding only.
  batch_members: int = 0

  def __post_init__(self):
    """Raises `ValueError` for a value out of range."""
    least = {"num_networks": 1, "seed": 0, "members_per_architecture": 1}
    least |= {"batch_size": 1, "eval_images": 0, "batch_members": 0}
    for name, bound in least.items():
      if not getattr(self, name) >= bound:
        raise ValueError(
          f"{name} must be at least {bound}, got {getattr(self, name)}"
        )
    known = {
      "architecture": families.ARCHITECTURES,
      "activation": tuple(families.ACTIVATIONS),
      "optimizer": tuple(image_fit.OPTIMIZERS),
      "initializer": INITIALIZERS,
    }
    for name, words in known.items():
      ranges.words(name, getattr(self, name), words)
    for name, (low, high) in NUMBERS.items():
      ranges.numbers(name, getattr(self, name), least=low, most=high)
    shares = (self.validation_share, self.test_share)
    if not (min(shares) >= 0 and sum(shares) < 1):
      raise ValueError(
        "validation_share and test_share must be 0 or more and leave some"
        f" networks for training, got {shares[0]} and {shares[1]}"
      )
    _ = self.epochs

  @property
  def epochs(self) -> tuple[int, ...]:
    """The numbers in `snapshots`."""
    try:
      found = tuple(int(word) for word in self.snapshots.split(","))
    except ValueError:
      found = ()
    if not found or found[0] < 0 or list(found) != sorted(set(found)):
      raise ValueError(
        "snapshots must be ascending numbers of epochs, such as 1,5,20; got"
        f" {self.snapshots!r}"
      )
    return found
