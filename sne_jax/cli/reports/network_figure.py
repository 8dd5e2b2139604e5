"""A picture of a network: its tensors by depth, its residual connections.

Dimensions: `L` levels.
"""

import collections
import pathlib

import numpy as np
from matplotlib import patches

from sne_jax.cli.reports import drawing
from sne_jax.networks.spec import NetworkSpec

COLORS = {
  "linear": 0,
  "conv": 1,
  "norm": 2,
  "attention": 3,
  "embedding": 4,
  "other": 5,
}
"""What tensors are drawn as: the first word of their kind."""


def draw(
  path: drawing.PathLike,
  spec: NetworkSpec,
  *,
  title: str = "",
) -> pathlib.Path:
  """Draws parameters by level, and skips as arcs above them.

  Args:
    path: of the picture.
    spec: the network.
    title: of the picture.
  """
  counts: dict[str, np.ndarray] = collections.defaultdict(
    lambda: np.zeros(spec.num_levels)
  )
  for tensor in spec.tensors:
    word = tensor.kind.partition("_")[0]
    word = "embedding" if word in ("class", "position") else word
    counts[word if word in COLORS else "other"][tensor.level] += tensor.size
  width = float(np.clip(2.5 + 0.16 * spec.num_levels, 5.0, 16.0))
  with drawing.drawing(path, (width, 3.4)) as axes:
    levels, bottom = np.arange(spec.num_levels), np.zeros(spec.num_levels)
    for word, place in COLORS.items():
      if word not in counts:
        continue
      axes.bar(
        levels,
        counts[word],
        bottom=bottom,
        width=0.72,
        color=drawing.color(place),
        label=word,
      )
      bottom = bottom + counts[word]
    top = float(bottom.max())
    for source, target in spec.skips:
      axes.add_patch(
        patches.FancyArrowPatch(
          (source, 1.04 * top),
          (target, 1.04 * top),
          connectionstyle="arc3,rad=-0.35",
          arrowstyle="-|>",
          mutation_scale=7,
          color=drawing.INK,
          lw=0.8,
        )
      )
    reach = max((b - a for a, b in spec.skips), default=0)
    room = 1.1 + 0.1 * min(reach, 4) if spec.skips else 1.05
    axes.set(
      xlabel="level (depth)",
      ylabel="parameters",
      title=title,
      xlim=(-0.6, spec.num_levels - 0.4),
      ylim=(0, top * room),
    )
    drawing.legend(axes)
  return drawing.png_path(path)
