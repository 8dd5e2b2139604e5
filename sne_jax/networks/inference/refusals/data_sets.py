"""Recognises a table of samples: images and labels, inputs and logits.

Dimensions: none; shapes are tuples of sizes.
"""

import re

from sne_jax.networks.inference.refusals.seen import (
  OPAQUE,
  Refusal,
  Seen,
  listed,
)

_WORDS = frozenset(
  [
    *("data", "images", "image", "inputs", "samples", "features"),
    *("labels", "label", "targets", "classes", "accuracy", "accuracies"),
    *("outputs", "logits", "predictions", "probabilities", "probs"),
  ]
)
"""What arrays of samples are called, and layers are not."""

_PART = re.compile(r"(train|training|val|valid|validation|test)_|_\w+$")
"""What such names begin or end with: `test_images`, `images_test`, `x_val`."""


def samples(seen: Seen) -> Refusal | None:
  """Arrays that are all called as samples are, and none as a layer is."""
  names = [*seen.shapes, *seen.left_out]
  if not names or not all(map(_is_sample, names)):
    return None
  return Refusal(
    f"{listed(names)} {'is a table' if len(names) == 1 else 'are tables'} of"
    " samples by name, and no weights of a network",
    f"name a file of weights; or, if these are, {OPAQUE}",
  )


def _is_sample(name: str) -> bool:
  """Whether a name has no layer in it, and is that of samples."""
  word = name.lower()
  return word in _WORDS or _PART.sub("", word, count=1) in (*_WORDS, "x", "y")
