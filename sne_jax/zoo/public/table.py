"""The published zoos that can be converted, by name."""

from collections.abc import Callable

from sne_jax.zoo import store
from sne_jax.zoo.public import small_cnn

CONVERT: dict[str, Callable[..., store.Zoo]] = {
  "small_cnn": small_cnn.convert,
}
"""For each zoo `convert(source, path, options, progress)`."""
