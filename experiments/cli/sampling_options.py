"""What a run that samples networks is told, beside how they are drawn."""

import dataclasses

from sne_jax.cli import config
from sne_jax.learning.generative import generation
from sne_jax.networks.checked import Checked, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingOptions(Checked):
  """Which samplers, and how their networks are tried.

  Attributes:
    methods: samplers, separated by commas, of kde, subsample, bootstrap and
      gauss. kde: draws of the density of the anchors' codes. subsample: the
      best of candidates. bootstrap: the same, round by round. gauss: a
      control: anchors that no network has. With _coupled appended, as in the
      authors' code, with one noise for all tokens of a copy of one anchor;
      with weights_ in front, the same of the weights instead of codes.
    epochs: of fine-tuning; an epoch is as many steps as all training images
      take.
    images: further data sets to fine-tune on, beside that of the zoo, separated
      by commas, such as digits_rotated,digits_inverted; brought to the form of
      the zoo's images.
    validation_images: images that anchors, candidates and bandwidths are chosen
      by, at most: training images that the zoo leaves over (--train_images), or
      else the first of the test images, which are then not reported on.
    align: put the neurons of anchors into one order before they are coded.
  """

  methods: str = "kde,kde_coupled,subsample,bootstrap,gauss"
  epochs: int = option(10, least=1)
  images: str = ""
  validation_images: int = option(300, least=1)
  align: bool = True

  def __post_init__(self):
    super().__post_init__()
    if not self.names:
      raise ValueError("methods is empty; name at least one sampler")
    for what, names in (("methods", self.names), ("images", self.data_sets)):
      if len(set(names)) < len(names):
        raise ValueError(f"{what} names one twice: {', '.join(names)}")
    for name in self.names:
      generation.parse(name)

  @property
  def names(self) -> tuple[str, ...]:
    """The words of `methods`."""
    return config.words(self.methods)

  @property
  def data_sets(self) -> tuple[str, ...]:
    """The words of `images`."""
    return config.words(self.images)
