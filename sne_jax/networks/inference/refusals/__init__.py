"""What is no plain chain of layers, by the names and shapes of its tensors.

A table of recognisers. Each is given `Seen` and returns one line, with a remedy
that works on the very file, or "" where it sees nothing. `CERTAIN` come before
the conventions, since names say what the file is; `DOUBTFUL` come before the
plain chain, and hold their peace where a person gives its order or skips.

Dimensions: none; shapes are tuples of sizes.
"""

from collections.abc import Callable, Mapping

from sne_jax.networks.inference.inferred import AmbiguousError
from sne_jax.networks.inference.override import Override
from sne_jax.networks.inference.refusals import (
  adapters,
  cells,
  data_sets,
  parallel,
  several,
)
from sne_jax.networks.inference.refusals.adapters import MERGE
from sne_jax.networks.inference.refusals.adapters import recognise as adapter
from sne_jax.networks.inference.refusals.seen import IsRead, Refusal, Seen

__all__ = ["CERTAIN", "DOUBTFUL", "MERGE", "adapter", "check"]

Recogniser = Callable[[Seen], Refusal | None]

CERTAIN: dict[str, Recogniser] = {
  "adapter": adapters.refused,
  "recurrent": cells.recurrent,
  "complex": cells.complex_tensors,
  "several": several.networks,
}
"""By kind; what these see is no matter of doubt."""

DOUBTFUL: dict[str, Recogniser] = {
  "samples": data_sets.samples,
  "nameless": cells.nameless,
  "halves": cells.complex_halves,
  "embedding": cells.embedding,
  "gated": cells.gated,
  "excitation": cells.excitation,
  "stacked": parallel.stacked,
  "heads": parallel.heads,
  "branches": parallel.branches,
}
"""By kind; an override's `order` or `skips` say that it is a chain."""


def check(
  shapes: Mapping[str, tuple[int, ...]],
  left_out: Mapping[str, str],
  tied: Mapping[str, str],
  override: Override,
  is_read: IsRead,
  *,
  certain: bool,
) -> None:
  """Refuses what is recognised as something else than a chain.

  Args:
    shapes: of the tensors that are weights.
    left_out: tensors that are none, and why.
    tied: names that are another tensor's, and that name.
    override: what a person has settled.
    is_read: tries a remedy; see `Seen`.
    certain: which of the two tables to go through.

  Raises:
    AmbiguousError: one of them saw what it knows.
  """
  if not certain and (override.order or override.skips):
    return
  seen = Seen(shapes, left_out, tied, override, is_read)
  for recogniser in (CERTAIN if certain else DOUBTFUL).values():
    refusal = recogniser(seen)
    if refusal is not None:
      raise AmbiguousError(refusal.problem, refusal.remedy)
