"""What a run that predicts masks is told, beside which masks."""

import dataclasses

from sne_jax.networks.checked import Checked, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskOptions(Checked):
  """How masks are predicted.

  Attributes:
    positive_weight: what the loss of a weight that is kept is times; 0: as many
      as there are pruned for each that is kept, so that both count the same.
  """

  positive_weight: float = option(0.0, least=0)
