"""The options of chunking: which rule cuts which kind of tensor.

References:
  The literal rule of Andreis et al., Set-based Neural Network Encoding Without
  Weight Tying, NeurIPS 2024, arXiv:2305.16625, is the first value of
  `linear_rule` and of `conv_rule`. The paper is silent on the others; they,
  and all defaults, are choices of this library.
"""

import dataclasses

_RULES = {
  "linear_rule": ("flat", "row", "col", "neuron"),
  "conv_rule": ("kernel", "filter", "flat", "neuron"),
  "bias_rule": ("own", "append", "drop"),
  "norm_rule": ("own", "concat", "fold"),
  "embedding_rule": ("flat", "row"),
  "attention_rule": ("typed", "one_type", "per_head"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChunkOptions:
  """How a network is cut into chunks. Hashable.

  A rule names the pieces that are padded to a multiple of `chunk_size` and
  cut, each by itself: a chunk never holds parts of two pieces.

  Raises:
    ValueError: a size below 1, an unknown rule, or rules that exclude each
      other; the message names the values.
  """

  # Weights per chunk, at least 1. 9 suits kernels of 3x3.
  chunk_size: int = 32
  # Linear weights. flat: the whole matrix, row-major. row: each output
  # neuron. col: each input neuron. neuron: see `neuron.py`; it holds for
  # linear and convolution weights together.
  linear_rule: str = "flat"
  # Convolution weights. kernel: each kernel [height, width]. filter: each
  # output channel. flat: the whole tensor. neuron: as above.
  conv_rule: str = "kernel"
  # Biases. own: a pseudo-layer of their own. append: each behind its neuron's
  # row (needs linear_rule=row, conv_rule=filter). drop: left out. Under the
  # neuron rule a bias lies in its neuron's chunks, whatever is said here. A
  # bias that belongs to no weight tensor is cut as under own, or dropped.
  bias_rule: str = "own"
  # Norm vectors. own: a pseudo-layer each. concat: the vectors of one norm
  # layer in one pseudo-layer. fold: refuses running statistics, which
  # `networks.folding.fold_norms` removes; what is left is cut as under own.
  norm_rule: str = "own"
  # Embedding, class token and position. flat: the whole table. row: each
  # entry.
  embedding_rule: str = "flat"
  # Attention weights, which `linear_rule` cuts. typed: four kinds. one_type:
  # one kind, attention_q, for all. per_head: four kinds, and each head's
  # block is cut by itself (rows of q, k and v; columns of o).
  attention_rule: str = "typed"

  def __post_init__(self):
    """Refuses unknown rules, and rules that exclude each other."""
    if self.chunk_size < 1:
      raise ValueError(f"chunk_size must be at least 1, got {self.chunk_size}")
    for name, known in _RULES.items():
      value = getattr(self, name)
      if value not in known:
        raise ValueError(
          f"unknown {name}={value!r}; known are {', '.join(known)}"
        )
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
