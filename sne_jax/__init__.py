"""Weight-space learning in JAX: networks in, properties out."""

from sne_jax.encoders.interface import register as register_encoder
from sne_jax.encoders.sne import SNE
from sne_jax.encoders.sne_options import SNEOptions
from sne_jax.networks.chunking import ChunkOptions
from sne_jax.networks.spec import Factor, NetworkSpec, TensorSpec
from sne_jax.predictor import Ensemble, Predictor
from sne_jax.zoo.store import Zoo

__all__ = [
  "SNE",
  "ChunkOptions",
  "Ensemble",
  "Factor",
  "NetworkSpec",
  "Predictor",
  "SNEOptions",
  "TensorSpec",
  "Zoo",
  "register_encoder",
]
