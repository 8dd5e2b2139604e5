"""The options of chunking: which rule cuts which kind of tensor.

References:
  The literal rule of Andreis et al., Set-based Neural Network Encoding Without
  Weight Tying, NeurIPS 2024, arXiv:2305.16625, is the first value of
  `linear_rule` and of `conv_rule`. The paper is silent on the others; they,
  and all defaults, are choices of this library.
"""

import dataclasses

from sne_jax.networks.checked import Checked, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChunkOptions(Checked):
  """How a network is cut into chunks. Hashable.

  A rule names the pieces that are padded to a multiple of `chunk_size` and
  cut, each by itself: a chunk never holds parts of two pieces.

  Attributes:
    chunk_size: weights per chunk. 9 suits kernels of 3x3.
    linear_rule: linear weights. flat: the whole matrix, row-major. row: each
      output neuron. col: each input neuron. neuron: see `neuron.py`; it holds
      for linear and convolution weights together.
    conv_rule: convolution weights. kernel: each kernel [height, width]. filter:
      each output channel. flat: the whole tensor. neuron: as above.
    bias_rule: biases. own: a pseudo-layer of their own. append: each after its
      neuron's row (needs linear_rule=row, conv_rule=filter). drop: left out.
      Under the neuron rule a bias lies in its neuron's chunks, whatever is said
      here. A bias that belongs to no weight tensor is cut as under own, or
      dropped.
    norm_rule: norm vectors. own: a pseudo-layer each. concat: the vectors of
      one norm layer in one pseudo-layer. fold: refuses running statistics,
      which `networks.folding.fold_norms` removes; what is left is cut as
      under own.
    embedding_rule: embedding, class token and position. flat: the whole table.
      row: each entry.
    attention_rule: attention weights, which `linear_rule` cuts. typed: four
      kinds. one_type: one kind, attention_q, for all. per_head: four kinds, and
      each head's block is cut by itself (rows of q, k and v; columns of o).

  Raises:
    ValueError: a size below 1, an unknown rule, or rules that exclude each
      other; the message names the values.
  """

  chunk_size: int = option(32, least=1)
  linear_rule: str = option("flat", choices=("flat", "row", "col", "neuron"))
  conv_rule: str = option(
    "kernel", choices=("kernel", "filter", "flat", "neuron")
  )
  bias_rule: str = option("own", choices=("own", "append", "drop"))
  norm_rule: str = option("own", choices=("own", "concat", "fold"))
  embedding_rule: str = option("flat", choices=("flat", "row"))
  attention_rule: str = option(
    "typed", choices=("typed", "one_type", "per_head")
  )

  def __post_init__(self):
    """Refuses unknown rules, and rules that exclude each other."""
    super().__post_init__()
    rules = (self.linear_rule, self.conv_rule)
    seen = f"linear_rule={rules[0]!r}, conv_rule={rules[1]!r}"
    if rules.count("neuron") == 1:
      raise ValueError(
        f"{seen}: a neuron's chunk holds weights of both kinds; set both to"
        " 'neuron', or neither"
      )
    if self.bias_rule == "append" and not self.by_neuron:
      if self.linear_rule != "row" and self.conv_rule != "filter":
        raise ValueError(
          f"bias_rule='append' with {seen}: there is no neuron's row to append"
          " to; set linear_rule='row' and conv_rule='filter'"
        )
      if self.attention_rule == "per_head":
        raise ValueError(
          "bias_rule='append' with attention_rule='per_head': the rows of"
          " attention_o are cut apart; use bias_rule='own'"
        )
    if self.attention_rule == "per_head" and self.by_neuron:
      raise ValueError(
        f"attention_rule='per_head' with {seen}: a neuron is cut by itself"
        " already; use attention_rule='typed'"
      )

  @property
  def by_neuron(self) -> bool:
    """Whether weights are cut by the neuron rule."""
    return self.linear_rule == "neuron"
