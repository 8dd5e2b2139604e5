"""What is known of the members of a zoo of image classifiers.

Dimensions: `M` members, which are snapshots of networks.
"""

from typing import Any

import numpy as np
from jaxtyping import Int

from sne_jax.networks import spec as spec_lib
from sne_jax.zoo.classifiers import draws
from sne_jax.zoo.classifiers.options import PUBLISHED

PROPERTIES = {
  "network": "number of the network; its snapshots share it",
  "epoch": "passes over as many images as all training images are",
  "dataset": "images that it was trained on",
  "architecture": "name of the architecture",
  "activation": "of the hidden layers; drawn: every layer has its own",
  "depth": "layers, one behind another",
  "widths": "outputs of the convolutions and linear layers, in their order",
  "kernels": "heights of the kernels of the convolutions, in their order",
  "num_skips": "residual connections",
  "optimizer": "optimiser",
  "initializer": "how the first weights were drawn",
  "maker": "whose way to begin; where there are several",
  "learning_rate": "of the optimiser, constant",
  "weight_decay": "times the weights, added to the gradient",
  "dropout": "share of hidden activations set to 0 in training",
  "init_std": "deviation of the first weights, of normal initializers",
  "init_scale": "factor on the first weights",
  "train_fraction": "share of the training images seen",
  "label_noise": "share of training labels drawn anew, at random",
  "train_accuracy": "on images it was trained on, with the labels it saw",
  "train_loss": "cross-entropy on the same",
  "test_accuracy": "on test images",
  "test_loss": "cross-entropy on the same",
  "generalization_gap": "train_accuracy less test_accuracy",
}
"""Every property of a member, and what it is."""


def columns(
  networks: draws.Networks,
  dataset: str,
  numbers: Int[np.ndarray, "M"],
  epochs: Int[np.ndarray, "M"],
) -> dict[str, Any]:
  """Returns the properties `[M]` that are known before training.

  Args:
    networks: of the zoo.
    dataset: name of the images.
    numbers: network of every member.
    epochs: of every member.
  """
  made = set(networks.maker) != {PUBLISHED}
  built = [_built(spec) for spec in networks.specs]
  specs = networks.spec[numbers]
  return {
    "network": numbers,
    "epoch": epochs,
    "dataset": np.full(len(numbers), dataset),
    **{
      name: np.array(getattr(networks, name))[numbers]
      for name in (
        *("architecture", "activation", "optimizer", "initializer"),
        *(("maker",) if made else ()),
      )
    },
    **{
      name: np.array([values[name] for values in built])[specs]
      for name in built[0]
    },
    **{
      name: per_network[numbers]
      for name, per_network in networks.numbers.items()
    },
  }


def _built(spec: spec_lib.NetworkSpec) -> dict[str, Any]:
  """Returns the properties that say how a network is built."""
  kinds = ("conv_weight", "linear_weight")
  layers = [t for t in spec.tensors if t.kind in kinds]
  kernels = [t.shape[-2] for t in layers if t.kind == "conv_weight"]
  text = lambda sizes: ",".join(map(str, sizes)) or "none"
  return {
    "depth": spec.num_levels,
    "widths": text([t.shape[0] for t in layers]),
    "kernels": text(kernels),
    "num_skips": len(spec.skips),
  }
