"""The published zoos that can be converted, by name."""

from collections.abc import Callable

from sne_jax.zoo.public import inrs, model_zoos, small_cnn, wild_park
from sne_jax.zoo.store import store

CONVERT: dict[str, Callable[..., store.Zoo]] = {
  "small_cnn": small_cnn.convert,
  "model_zoos": model_zoos.convert,
  "inrs": inrs.convert,
  "wild_park": wild_park.convert,
}
"""For each zoo `convert(source, path, options, progress)`."""
