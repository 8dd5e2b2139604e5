"""Weights that are kept as other tensors: weight norm, spectral norm, masks.

| of | its names | what the network multiplies by |
|---|---|---|
| `torch.nn.utils.weight_norm` | `weight_g`, `weight_v` | g v / norm of v |
| `parametrizations.weight_norm` | `parametrizations.weight.original0`, `1` | so |
| `torch.nn.utils.spectral_norm` | `weight_orig`, `weight_u`, `weight_v` | W / u W v |
| `parametrizations.spectral_norm` | `parametrizations.weight.original`, `0._u` ... | so |
| `torch.nn.utils.prune` | `weight_orig`, `weight_mask` | product |
| Flax's `WeightNorm` | `WeightNorm_0/LAYER/kernel/scale` | as weight norm |

All are those of evaluation. The axis is the one of the lengths; that of
spectral norm follows from the length of u, and where two axes are as long,
from which of them u and v belong to. Flax's `SpectralNorm` iterates when it is
evaluated, and other parametrizations are code: both are doubts.

Dimensions: none; a tensor has any shape.
"""  # noqa: E501

import functools
import math
import re

import numpy as np

from sne_jax.checkpoints.recipes import Entries, Found, Recipe
from sne_jax.checkpoints.tensors import FLOATS

_ROLES = {"original0": "g", "original1": "v", "original": "orig"}
_ROLES |= {"0._u": "u", "0._v": "v"}
_FLAX = re.compile(r"^(.*?)(WeightNorm|SpectralNorm)_\d+/(.+)/(scale|sigma)$")

CODE = (
  "is computed by a parametrization, which is code and not in the file"
  " (torch.nn.utils.parametrize.remove_parametrizations writes its result)"
)
STEPS = (
  "is divided by a spectral norm that Flax computes anew, in as many steps as"
  " its code says"
)
NO_FIT = "is part of a reparametrised weight, and its parts do not fit"


def find(entries: Entries, form: str) -> Found:
  """Finds reparametrised weights by names and shapes.

  Args:
    entries: of a file.
    form: of the file; names say enough.
  """
  del form
  groups: dict[tuple[str, str], dict[str, str]] = {}
  recipes, doubts, left_out = [], {}, {}
  for name in entries:
    before, new, after = name.rpartition("parametrizations.")
    stem, _, role = name.rpartition("_")
    if new and before[-1:] in ("", "."):
      word, _, role = after.partition(".")
      group = groups.setdefault((before + word, "new"), {})
      group[_ROLES.get(role, role)] = name
    elif role in ("g", "v", "u", "orig", "mask") and (
      "weight" in stem.rpartition(".")[2]
    ):
      groups.setdefault((stem, "old"), {})[role] = name
    elif name.endswith(("/scale", "/sigma")) and (match := _FLAX.match(name)):
      base = match[1].replace("batch_stats/", "params/", 1) + match[3]
      if base in entries and match[2] == "WeightNorm":
        recipes.append(_weight_norm(entries, base, base, name))
      elif base in entries and (match[2], match[4]) == (
        "SpectralNorm",
        "sigma",
      ):
        doubts[base] = STEPS
        u = name.removesuffix("sigma") + "u"
        left_out |= dict.fromkeys((name, u), "of a spectral norm")
  for (name, style), roles in groups.items():
    names = set(roles)
    if style == "old" and not names & {"orig", "g"}:
      continue  # A tensor that happens to be called so.
    if style == "old" and "orig" not in names and names != {"g", "v"}:
      continue
    recipe = None if name in entries else _recipe(entries, name, roles)
    if recipe is not None:
      recipes.append(recipe)
    else:
      only = names <= {"orig"} or style == "new" and not names & {"g", "u"}
      why = CODE if only else NO_FIT
      doubts |= dict.fromkeys(roles.values(), why)
  left_out = {name: why for name, why in left_out.items() if name in entries}
  recipes = [recipe for recipe in recipes if recipe is not None]
  return Found(recipes=recipes, doubts=doubts, left_out=left_out)


def _recipe(entries: Entries, name: str, roles: dict[str, str]):
  """Returns how a group of tensors is multiplied out, None if unknown."""
  kinds = {entries[part].dtype for part in roles.values()}
  if not all(kind in FLOATS or kind == "bool" for kind in kinds):
    return None
  match sorted(roles):
    case ["g", "v"]:
      return _weight_norm(entries, name, roles["v"], roles["g"])
    case ["orig", "u", "v"]:
      return _spectral_norm(entries, name, *(roles[r] for r in ("orig", *"uv")))
    case ["mask", "orig"]:
      whole, mask = roles["orig"], roles["mask"]
      if entries[whole].shape == entries[mask].shape:
        return Recipe(
          name=name,
          parts=(whole, mask),
          shape=entries[whole].shape,
          dtype=entries[whole].dtype,
          compute=lambda array, kept: array * kept.astype(array.dtype),
          what="its mask",
          invert=lambda array, old, kept: (array, array != 0),
        )
  return None


def _weight_norm(entries: Entries, name: str, direction: str, length: str):
  """Returns the recipe of weight norm, None if the shapes are none of it."""
  whole, lengths = entries[direction].shape, entries[length].shape
  if not whole:
    return None
  if len(lengths) == 1 < len(whole) and "/" in length:  # Flax: the last axis.
    lengths = (1,) * (len(whole) - 1) + lengths
  lengths = lengths or (1,) * len(whole)
  kept = [a for a, n in enumerate(lengths) if n != 1]
  if (
    len(lengths) != len(whole)
    or len(kept) > 1
    or any(lengths[a] != whole[a] for a in kept)
  ):
    return None

  def norms(v):
    """Lengths in float64, without a copy of all that is squared."""
    v = np.moveaxis(v, kept[0], 0) if kept else v[None]
    rows = v.reshape(len(v), -1)
    return np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))

  def compute(v, g):
    v = _wide(v)
    scale = _wide(g).reshape(-1) / norms(v)
    return v * scale.astype(v.dtype).reshape(lengths)

  return Recipe(
    name=name,
    parts=(direction, length),
    shape=whole,
    dtype=entries[direction].dtype,
    compute=compute,
    what="weight norm",
    invert=lambda array, *_: (array, norms(_wide(array))),
  )


def _spectral_norm(entries: Entries, name: str, whole: str, u: str, v: str):
  """Returns the recipe of spectral norm, None if the shapes are none of it."""
  shape = entries[whole].shape
  rows, columns = entries[u].shape, entries[v].shape
  axes = [a for a, n in enumerate(shape) if (n,) == rows]
  if not axes or len(shape) < 2 or (math.prod(shape) // rows[0],) != columns:
    return None
  return Recipe(
    name=name,
    parts=(whole, u, v),
    shape=shape,
    dtype=entries[whole].dtype,
    compute=functools.partial(_over_sigma, axes),
    what="spectral norm",
    invert=functools.partial(_of_sigma_one, axes),
  )


def _over_sigma(axes: list[int], whole, u, v):
  """Returns weights over `u W v`; see `_axis` for what may be raised."""
  whole, u, v = _wide(whole), _wide(u), _wide(v)
  return whole / (u @ (_matrix(whole, _axis(axes, whole, u, v)) @ v))


def _of_sigma_one(axes: list[int], array, whole, u, v):
  """Returns weights, u and v whose `u W v` is 1; see `_over_sigma`."""
  array, v = _wide(array), _wide(v)
  product = _matrix(array, _axis(axes, _wide(whole), _wide(u), v)) @ v
  return array, product / (product @ product), v


def _axis(axes: list[int], whole, u, v) -> int:
  """Returns the axis that u belongs to.

  Raises:
    ValueError: u and v fit two axes equally well, and these differ.
  """
  found = []
  for axis in axes:
    product = _matrix(whole, axis) @ v
    sigma = u @ product
    # Iterated, u is the direction of W v.
    length = np.linalg.norm(product) * np.linalg.norm(u)
    found.append((abs(sigma) / length if length else 0.0, sigma, axis))
  best, *others = sorted(found, key=lambda one: -one[0])
  if not others or (best[0] > 0.8 and best[0] - others[0][0] > 0.1):
    return best[2]
  # Of a dense layer it is the first, unless numbers say otherwise.
  if whole.ndim > 2 and not np.isclose(best[1], others[0][1], rtol=1e-5):
    raise ValueError(
      f"the axis of {len(u)} is settled neither by shapes nor by numbers"
    )
  return axes[0]


def _matrix(whole: np.ndarray, axis: int) -> np.ndarray:
  return np.moveaxis(whole, axis, 0).reshape(whole.shape[axis], -1)


def _wide(array: np.ndarray) -> np.ndarray:
  """Returns an array in float32 or float64."""
  wide = array.dtype in (np.float32, np.float64)
  return array if wide else array.astype(np.float32)
