"""Weight-space learning in JAX: trained networks as data.

A network is a `NetworkSpec` and one flat vector of weights. `Predictor` reads
properties from them; `SNE` encodes them; `Zoo` holds them on disk.
"""

from sne_jax.encoders.packing import Packed, Packer
from sne_jax.encoders.sne import SNE
from sne_jax.encoders.sne_options import SNEOptions
from sne_jax.networks.chunking import ChunkLayout, ChunkOptions, layout
from sne_jax.networks.families import (
  build,
  cnn,
  forward,
  init,
  inr,
  mlp,
  resnet,
  transformer,
)
from sne_jax.networks.spec import Factor, NetworkSpec, TensorSpec
from sne_jax.networks.symmetry import draw_permutation
from sne_jax.predictor import Ensemble, Predictor, PredictorError
from sne_jax.zoo.store import Zoo
from sne_jax.zoo.writing import write_zoo

__all__ = [
  "SNE",
  "ChunkLayout",
  "ChunkOptions",
  "Ensemble",
  "Factor",
  "NetworkSpec",
  "Packed",
  "Packer",
  "Predictor",
  "PredictorError",
  "SNEOptions",
  "TensorSpec",
  "Zoo",
  "build",
  "cnn",
  "draw_permutation",
  "forward",
  "init",
  "inr",
  "layout",
  "mlp",
  "resnet",
  "transformer",
  "write_zoo",
]
