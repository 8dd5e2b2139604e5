"""The options of chunking: which rule cuts which kind of tensor.

References:
  The literal rule of Andreis et al., Set-based Neural Network Encoding Without
  Weight Tying, NeurIPS 2024, arXiv:2305.16625, is `ChunkOptions.published()`.
  The neuron rule, the default, is this library's; docs/results has what it is
  worth.
"""

import dataclasses
from typing import Any

from sne_jax.networks.checked import Checked, option

MOST_SLOTS = 320
"""The largest chunk size that is derived from networks: see `chunk_size`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChunkOptions(Checked):
  """How a network is cut into chunks. Hashable.

  A rule names the pieces that are padded to a multiple of `chunk_size` and
  cut, each by itself: a chunk never holds parts of two pieces.

  Attributes:
    chunk_size: weights per chunk. 0: as many as the largest piece of the
      networks at hand has (by the neuron rule fan-in + fan-out + biases and
      norm vectors), at most 320: see `sizes.py`. A training derives it from its
      training networks, and the model keeps the number. 9 suits kernels of 3x3.
    linear_rule: linear weights. neuron: each neuron with all that touches it,
      see `neuron.py`. flat: the whole matrix, row-major. row: each output
      neuron. col: each input neuron.
    conv_rule: convolution weights. neuron: as above. kernel: each kernel
      [height, width]. filter: each output channel. flat: the whole tensor.
    bias_rule: biases. own: a pseudo-layer of their own. append: each after its
      neuron's row (needs linear_rule=row, conv_rule=filter). drop: left out.
      Under the neuron rule a bias lies in its neuron's chunks, whatever is said
      here. A bias that belongs to no weight tensor is cut as under own, or
      dropped.
    norm_rule: norm vectors. own: a pseudo-layer each. concat: the vectors of
      one norm layer in one pseudo-layer. fold: refuses running statistics,
      which `networks.folding.fold_norms` removes; what is left is cut as
      under own.
    embedding_rule: embedding, class token and position. row: each entry. flat:
      the whole table.
    attention_rule: attention weights, which `linear_rule` cuts. typed: four
      kinds. one_type: one kind, attention_q, for all. per_head: four kinds, and
      each head's block is cut by itself (rows of q, k and v; columns of o).

  Raises:
    ValueError: a size below 0, an unknown rule, or rules that exclude each
      other; the message names the values.
  """

  chunk_size: int = option(0, least=0)
  linear_rule: str = option("neuron", choices=("neuron", "flat", "row", "col"))
  conv_rule: str = option(
    "neuron", choices=("neuron", "kernel", "filter", "flat")
  )
  bias_rule: str = option("own", choices=("own", "append", "drop"))
  norm_rule: str = option("own", choices=("own", "concat", "fold"))
  embedding_rule: str = option("row", choices=("row", "flat"))
  attention_rule: str = option(
    "typed", choices=("typed", "one_type", "per_head")
  )

  def __post_init__(self):
    """Refuses unknown rules, and rules that exclude each other."""
    super().__post_init__()
    rules = (self.linear_rule, self.conv_rule)
    seen = f"linear_rule={rules[0]!r}, conv_rule={rules[1]!r}"
    if self.bias_rule == "append" and self.attention_rule == "per_head":
      raise ValueError(
        "bias_rule='append' with attention_rule='per_head': the rows of"
        " attention_o are cut apart; use bias_rule='own'"
      )
    with_rows = ("row", "filter", "neuron")
    if self.bias_rule == "append" and not set(rules) & set(with_rows):
      raise ValueError(
        f"bias_rule='append' with {seen}: there is no neuron's row to append"
        " to; set linear_rule='row' and conv_rule='filter'"
      )
    if self.attention_rule == "per_head" and self.linear_rule == "neuron":
      raise ValueError(
        f"attention_rule='per_head' with {seen}: a neuron is cut by itself"
        " already; use attention_rule='typed', or linear_rule='row'"
      )

  @classmethod
  def published(cls, chunk_size: int = 32, **changes: Any) -> "ChunkOptions":
    """Returns the rules of the paper: layers padded and cut flat.

    Matrices and biases are pseudo-layers of their own, and of a convolution
    each kernel is. The paper does not say how norms and tables are cut: here
    flat, each by itself. Its chunk sizes vary by experiment.

    Args:
      chunk_size: weights per chunk.
      **changes: options that have other values.

    Raises:
      ValueError: values that do not go together.
    """
    paper = cls(
      chunk_size=chunk_size,
      linear_rule="flat",
      conv_rule="kernel",
      embedding_rule="flat",
    )
    return dataclasses.replace(paper, **changes)

  def rule(self, kind: str) -> str:
    """Returns the rule that cuts weights of a kind of `spec.WEIGHT_KINDS`."""
    return self.conv_rule if kind == "conv_weight" else self.linear_rule
