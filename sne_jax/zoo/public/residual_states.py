"""State dicts of torchvision-like residual networks, as flat vectors of ours.

Names are `conv1`, `bn1`, `layer<stage>.<block>.{conv1,bn1,conv2,bn2}`,
`...downsample.{0,1}` and `fc`; the stem keeps the size of the image.

Dimensions: `P` weights of a network.
"""

import re

import numpy as np
from jaxtyping import Float

from sne_jax.networks import families
from sne_jax.networks import spec as spec_lib
from sne_jax.zoo.public import listing, states

_NORM = {
  "scale": "weight",
  "shift": "bias",
  "mean": "running_mean",
  "var": "running_var",
}
_COUNTER = "num_batches_tracked"


def network(
  file: str, views: states.Views, side: int
) -> tuple[spec_lib.NetworkSpec, Float[np.ndarray, "P"]]:
  """Returns the spec of a residual network of basic blocks, and its weights.

  Widths, blocks and classes are those of the tensors. What batch norms count
  (`num_batches_tracked`) is no weight and is left out.

  Args:
    file: for messages.
    views: of the whole state dict.
    side: height and width of the images.

  Raises:
    ZooError: tensors are missing, left over, or of other shapes.
  """
  views = {k: v for k, v in views.items() if not k.endswith(_COUNTER)}
  firsts = sorted(
    (int(m[1]), int(m[2]))
    for name in views
    if (m := re.fullmatch(r"layer(\d+)\.(\d+)\.conv1\.weight", name))
  )
  stages = sorted({stage for stage, _ in firsts})
  try:
    first = views["conv1.weight"].shape
    widths = [views[f"layer{s}.0.conv1.weight"].shape[0] for s in stages]
    spec = families.resnet(
      (first[1], side, side),
      widths=widths,
      blocks=[sum(s == stage for s, _ in firsts) for stage in stages],
      num_classes=views["fc.weight"].shape[0],
    )
    theirs = _names(firsts, spec)
    ordered = [
      (theirs[t.name], views.pop(theirs[t.name])) for t in spec.tensors
    ]
  except (KeyError, IndexError, ValueError) as error:
    raise listing.fault(
      file,
      f"its tensors are no residual network ({error})",
      listing.FOREIGN,
    ) from None
  if views:
    raise listing.fault(
      file,
      f"tensor {next(iter(views))[:100]!r} is one too many",
      listing.FOREIGN,
    )
  return spec, states.in_order(file, spec, ordered)


def _names(blocks, spec: spec_lib.NetworkSpec) -> dict[str, str]:
  """Returns their name of each of our tensors."""
  convs = {"stem": ("conv1", "bn1")}
  for place, (stage, block) in enumerate(blocks):
    there, here = f"layer{stage}.{block}", f"block{place}"
    convs[f"{here}.conv1"] = (f"{there}.conv1", f"{there}.bn1")
    convs[f"{here}.conv2"] = (f"{there}.conv2", f"{there}.bn2")
    shortcut = (f"{there}.downsample.0", f"{there}.downsample.1")
    convs[f"{here}.shortcut"] = shortcut
  names = {f"dense.{kind}": f"fc.{kind}" for kind in ("weight", "bias")}
  for ours, (conv, norm) in convs.items():
    names[f"{ours}.weight"] = f"{conv}.weight"
    for part, kind in _NORM.items():
      names[f"{ours}.norm.{part}"] = f"{norm}.{kind}"
  return {t.name: names[t.name] for t in spec.tensors}
