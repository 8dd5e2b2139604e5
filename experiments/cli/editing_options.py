"""What a run that trains an editor is told, beside which edit."""

import dataclasses

from sne_jax.encoders import editor
from sne_jax.networks.checked import Checked, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditingOptions(Checked):
  """What is edited, and what edits are compared with.

  Attributes:
    images: what is processed, to be what edited networks show. originals: the
      images that the networks were fitted to, which the flagfile of the zoo
      names; renderings: what the networks show, where no images are there.
    size: height and width of renderings; originals have their own.
    scale: what a change of a weight is multiplied by at the start; learned, one
      for each tensor.
    floor: whether networks are fitted anew to the processed images, as the zoo
      was, to say how small the error can be.
  """

  images: str = option("originals", choices=("originals", "renderings"))
  size: int = option(28, least=1)
  scale: float = option(editor.SCALE, least=0)
  floor: bool = True
