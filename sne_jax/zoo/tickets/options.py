"""Which networks are pruned to winning tickets, and how.

References:
  Frankle and Carbin, The Lottery Ticket Hypothesis: Finding Sparse, Trainable
  Neural Networks, ICLR 2019, arXiv:1803.03635. Zhou et al., Permutation
  Equivariant Neural Functionals, NeurIPS 2023, arXiv:2302.14040.
"""

import dataclasses

from sne_jax.networks import families
from sne_jax.networks.checked import Checked, option
from sne_jax.zoo.classifiers import fine_tune, fit
from sne_jax.zoo.classifiers import options as image_options
from sne_jax.zoo.tickets import pruning

ARCHITECTURES = tuple(n for n in families.ARCHITECTURES if n != "wild_park")
"""Architectures that a zoo of tickets may be of: one for all members."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TicketOptions(Checked):
  """Which networks to prune, and how: iterative magnitude pruning.

  In a round all networks are trained from their first weights, with the masks
  so far; then the smallest of the trained weights are pruned.

  Attributes:
    num_networks: draws of first weights.
    seed: a network is a function of the seed and its number alone.
    architecture: of all networks, of arch1, arch2, schuerholt, mlp, residual,
      vit.
    activation: of the hidden layers.
    initializer: how first weights are drawn, as of --initializer; biases are 0.
    sparsity: share of the weights that is pruned in the end; biases stay.
    scope: layer: the largest weights of each tensor are kept, an equal share of
      each; global: the largest of all.
    rounds: of training and pruning; 0: so many that each prunes at most
      prune_share of what is left.
    prune_share: see rounds.
    optimizer: of sgd, momentum, adam, rmsprop.
    learning_rate: of the optimiser, constant.
    batch_size: images of a step.
    epochs: of every training.
    validation_images: of the training images, so many at their end are not
      trained on: accuracies are of these, and of the test images.
    validation_share: share of the networks in the validation part of the split
      default. What validation and test leave is for training.
    test_share: share of the networks in its test part.
    batch_members: networks trained together; how much is lost when a run is
      broken off. 0: found from the memory that is free. It changes weights by
      float rounding only, and so masks hardly.
  """

  num_networks: int = option(600, least=1)
  seed: int = option(0, least=0)
  architecture: str = option("mlp", choices=ARCHITECTURES)
  activation: str = "relu"
  initializer: str = "glorot_normal"
  sparsity: float = option(0.95, above=0, below=1)
  scope: str = option("layer", choices=pruning.SCOPES)
  rounds: int = option(0, least=0)
  prune_share: float = option(0.2, above=0, below=1)
  optimizer: str = option("adam", choices=tuple(fit.OPTIMIZERS))
  learning_rate: float = option(5e-3, above=0)
  batch_size: int = option(64, least=1)
  epochs: int = option(10, least=1)
  validation_images: int = option(300, least=1)
  validation_share: float = option(0.1, least=0, below=1)
  test_share: float = option(0.1, least=0, below=1)
  batch_members: int = option(0, least=0)

  def __post_init__(self):
    super().__post_init__()
    known = {
      "activation": tuple(families.ACTIVATIONS),
      "initializer": image_options.INITIALIZERS,
    }
    for name, words in known.items():
      if getattr(self, name) not in words:
        raise ValueError(
          f"{name} is {getattr(self, name)!r}; choose one of {', '.join(words)}"
        )
    if self.validation_share + self.test_share >= 1:
      raise ValueError(
        "validation_share and test_share must leave some networks for training,"
        f" got {self.validation_share} and {self.test_share}"
      )

  @property
  def densities(self) -> list[float]:
    """The densities of the rounds."""
    return pruning.densities(self.sparsity, self.rounds, self.prune_share)

  @property
  def settings(self) -> fine_tune.TuneSettings:
    """How networks are trained, in rounds and where they are compared."""
    return fine_tune.TuneSettings(
      optimizer=self.optimizer,
      learning_rate=self.learning_rate,
      batch_size=self.batch_size,
    )
