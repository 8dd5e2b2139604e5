"""Where an implicit representation of an image gives its pixels.

Dimensions: `X` pixels, in row-major order.
"""

import numpy as np
from jaxtyping import Float

FORMS = ("dws", "nfn")
"""Whose convention: the first coordinate runs along a row, or the second."""


def coordinates(
  form: str, height: int, width: int = 0
) -> Float[np.ndarray, "X 2"]:
  """Returns where an INR gives the pixels of an image, in row-major order.

  Args:
    form: "dws" (the first coordinate runs along a row) or "nfn" (the second
      does).
    height: of the image.
    width: of the image; 0: as its height.

  Raises:
    ValueError: an unknown form.
  """
  if form not in FORMS:
    raise ValueError(f"form must be {' or '.join(FORMS)}, got {form!r}")
  down = np.linspace(-1, 1, height, dtype=np.float32)
  right = np.linspace(-1, 1, width or height, dtype=np.float32)
  y, x = np.meshgrid(down, right, indexing="ij")
  first, second = (x, y) if form == "dws" else (y, x)
  return np.stack([first.reshape(-1), second.reshape(-1)], axis=1)
