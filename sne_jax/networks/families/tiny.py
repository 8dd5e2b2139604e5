"""Tiny networks of every family, for checks that must hold on all of them.

Dimensions: `P` weights of a network.
"""

import math

import numpy as np
from jaxtyping import Float

from sne_jax.networks import spec as spec_lib
from sne_jax.networks.families import (
  convolutional,
  dense,
  residual,
  vision_transformer,
)


def tiny_specs() -> dict[str, spec_lib.NetworkSpec]:
  """Returns specs by name; together they have every feature of the families.

  Every tensor of a network has a size that tells its axes apart.
  """
  cnn = convolutional.cnn
  image = (2, 11, 10)
  flat = {
    "image_shape": image,
    "channels": (4, 5),
    "pools": (2, 1),
    "dense": (6,),
    "num_classes": 3,
    "activation": ("tanh", "gelu", "sigmoid"),
    "head": "flatten",
  }
  vit = {
    "image_shape": (2, 8, 4),
    "patch": 4,
    "dim": 6,
    "heads": 3,
    "head_dim": 4,
    "hidden": 7,
    "num_classes": 5,
  }
  return {
    "mlp": dense.mlp((3, 6, 5, 2)),
    "mlp_tanh": dense.mlp((3, 6, 5, 2), ("tanh", "silu"), bias=False),
    "inr": dense.inr((1, 8, 7, 1)),
    "cnn_pool": cnn(
      image, (4, 5, 6), kernels=(3, 3, 2), strides=(1, 2, 1), paddings=(1, 1, 0)
    ),
    "cnn_bare": cnn(image, (3, 4), activation="tanh", bias=False),
    "cnn_flat": cnn(**flat),
    "cnn_flat_last": cnn(
      **flat, flatten_order="channels_last", pool_before_activation=True
    ),
    "cnn_skips": cnn(
      image,
      (4, 3, 4, 5, 3),
      kernels=(3, 5, 3, 1, 3),
      paddings=(1, 2, 1, 0, 1),
      activation=("relu", "none", "leaky_relu", "tanh", "relu"),
      skips=(-1, -1, 0, 1, -1),
    ),
    "resnet": residual.resnet(image, (4, 6), num_classes=3),
    "transformer": vision_transformer.transformer(**vit),
    "transformer_bare": vision_transformer.transformer(
      **{**vit, "depth": 1, "embed": "linear", "attention_bias": False}
    ),
  }


def random_weights(
  spec: spec_lib.NetworkSpec, rng: np.random.Generator
) -> Float[np.ndarray, "P"]:
  """Draws weights in which no tensor is special, on the host.

  Unlike in fresh weights (`init`), biases and norm statistics are random too,
  so that a mistake about any tensor shows in the outputs.

  Args:
    spec: the network.
    rng: advanced by the draw.
  """
  w0 = dict(spec.options).get("w0", 1.0)
  last = spec.num_levels - 1
  tensors = {}
  for t in spec.tensors:
    value = rng.standard_normal(t.shape, np.float32)
    if t.kind in spec_lib.WEIGHT_KINDS:
      value *= math.sqrt(2 / t.fan_in) / (1 if t.level == last else w0)
    elif t.kind in ("norm_scale", "norm_var"):
      value = rng.uniform(0.5, 1.5, t.shape).astype(np.float32)
    elif t.kind.endswith("_bias") and t.level < last:
      value *= 0.5 / w0
    tensors[t.name] = value
  return spec.flatten(tensors, np)
