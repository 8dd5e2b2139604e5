"""The model that predicts properties: an encoder and one head.

Dimensions: `B` networks, `D` width of a code, `T` targets or classes of one.
"""

import dataclasses
from typing import Any

import flax.linen as nn

from sne_jax.networks.checked import Checked, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadOptions(Checked):
  """Options of the head on a code.

  Attributes:
    hidden_width: width of its hidden layer; 0: a linear head.
    dropout: share of the code that is dropped in training.
    collapsed: whether to predict apart which networks have collapsed: those
      whose property is exactly the commonest value of the training networks,
      such as the accuracy of chance. A logit says so, and the prediction is
      then that value, tied with others; the rest of the head learns from the
      other networks alone. Reports say where it is used.
    collapsed_within: networks whose property is so near to that value count as
      collapsed too.
  """

  hidden_width: int = option(64, least=0)
  dropout: float = option(0.0, least=0, below=1)
  collapsed: bool = False
  collapsed_within: float = option(0.0, least=0)


class PropertyModel(nn.Module):
  """Predicts `T` properties of networks from their weights.

  Attributes:
    encoder: maps a packed batch to codes `[B, D]`.
    num_targets: logits: one for each property, or for each class of one; and
      one more for each property that networks may have collapsed to.
    hidden_width: width of the head's hidden layer; 0: a linear head.
    dropout: share of the code dropped before the head while training.
  """

  encoder: nn.Module
  num_targets: int = 1
  hidden_width: int = 64
  dropout: float = 0.0

  @nn.compact
  def __call__(self, batch, deterministic: bool = True):
    """Returns logits `[B, T]` and codes `[B, D]`.

    In training an encoder of several readers (`SNE.num_readers`) gives a code
    for each: logits are `[R, B, T]` then, to be trained on each.
    """
    several = getattr(self.encoder, "num_readers", 1) > 1
    if several and not deterministic:
      codes = self.encoder.of_each_reader(batch, deterministic)
    else:
      codes = self.encoder(batch, deterministic)
    hidden = nn.Dropout(self.dropout, name="dropout")(codes, deterministic)
    if self.hidden_width:
      hidden = nn.relu(nn.Dense(self.hidden_width, name="hidden")(hidden))
    return nn.Dense(self.num_targets, name="logits")(hidden), codes


class _AsGiven(nn.Module):
  """An encoder of what is encoded."""

  def __call__(self, codes, deterministic: bool = True):
    return codes


def head(net: PropertyModel, params: Any, codes):
  """Returns the logits `[B, T]` of codes `[B, D]` that are there already.

  Args:
    net: the model.
    params: its parameters.
    codes: as its encoder gives them.
  """
  return net.clone(encoder=_AsGiven()).apply(params, codes)[0]
