"""What the names of tensors say: their layer, their part in it, what is none.

Dimensions: none; shapes are tuples of sizes.
"""

import collections
import dataclasses
import re
from collections.abc import Callable, Mapping

import numpy as np

from sne_jax.networks.inference import forms
from sne_jax.networks.inference.forms import Form

Shapes = Mapping[str, tuple[int, ...]]

TRANSPOSED = ("flax", "orbax", "keras")
"""Frameworks whose kernels are `[in, out]` and `[height, width, in, out]`."""

ORDERED = ("torch",)
"""Formats that keep tensors in the order in which layers were made."""

TORCH_LIKE = ("torch", "safetensors", "gguf")
"""Formats in which a `.weight` is stored as PyTorch does."""

_ROLES = {
  "weight": "weight",
  "kernel": "weight",
  "w": "weight",
  "bias": "bias",
  "b": "bias",
  "scale": "norm_scale",
  "gamma": "norm_scale",
  "beta": "norm_shift",
  "running_mean": "norm_mean",
  "moving_mean": "norm_mean",
  "mean": "norm_mean",
  "running_var": "norm_var",
  "moving_variance": "norm_var",
  "var": "norm_var",
  "embedding": "embedding",
  "embeddings": "embedding",
}

_COLLECTIONS = (
  *("params", "batch_stats", "model", "state_dict", "module"),
  *("_orig_mod", "_fsdp_wrapped_module"),
)
"""First words of names that say where tensors are kept, not what they are."""

_STATE = "the state of an optimizer"

_LEFT_OUT = tuple(
  (Form(words, pattern), why)
  for words, pattern, why in (
    (
      "num_batches_tracked",
      r"(^|[./])num_batches_tracked$",
      "a counter of training steps",
    ),
    (
      "attn.",
      r"(^|[./])attn\.(bias|masked_bias)$",
      "the mask of causal attention",
    ),
    ("position_ids", r"(^|[./])position_ids$", "numbers of positions"),
    ("token_type_ids", r"(^|[./])token_type_ids$", "numbers of token types"),
    (
      "relative_position_index",
      r"(^|[./])relative_position_index$",
      "numbers of positions",
    ),
    (
      "rotary_emb",
      r"rotary_emb\.inv_freq$",
      "fixed frequencies of positions",
    ),
    ("optimi", r"^optimi[sz]er[./]", _STATE),
    ("opt_state", r"(^|[./])opt_state([./]|$)", _STATE),
    (
      "seed_generator",
      r"(^|[./])seed_generator",
      "the state of a random generator",
    ),
    (
      "step epoch iteration",
      r"^(step|epoch|iteration|global_step)$",
      "a counter of training steps",
    ),
    (
      "n_averaged num_updates",
      r"(^|[./])(n_averaged|num_updates)$",
      "a counter of training steps",
    ),
    (
      "criteri loss",
      r"(^|[./])(\w+_)?(criterions?|criteria|loss(es)?"
      r"|loss_(fn|func|function))[./]",
      "of a loss, not of the network",
    ),
    (
      "pos_weight class_weight loss_weight cls_weight",
      r"(^|[./_])(pos|class|loss|cls)_weights?$",
      "weights of classes in a loss",
    ),
    (
      "conf",
      r"(^|[./_])(confmat|conf_mat|confusion(_matrix)?)$",
      "a confusion matrix",
    ),
    (
      "metric fid lpips",
      r"(^|[./])((\w+_)?metrics?|fid|lpips)[./]",
      "of a metric",
    ),
    (
      "train_ val_ valid_ validation_ test_ eval_",
      r"(^|[./])(train|val|valid|validation|test|eval)_(acc|accuracy|f1|auroc"
      r"|auc|precision|recall|m?iou|mse|mae|rmse|psnr|ssim|r2|confmat)"
      r"(_\w+)?([./]|$)",
      "of a metric",
    ),
    (
      "queue",
      r"(^|[./])(\w+_)?queue(_\w+)?$",
      "a queue of earlier samples",
    ),
    (
      "fake_quant activation_post_process observer",
      r"(^|[./_])(fake_quant|activation_post_process|(act_|weight_)?observer)"
      r"[./]",
      "a scale of training for whole numbers",
    ),
    (
      "memory_bank feature_bank replay_buffer",
      r"(^|[./_])(memory_bank|feature_bank|replay_buffer)$",
      "a memory of earlier samples",
    ),
  )
)
_OF_A_PART = ("of a loss, not of the network", "of a metric")
"""Reasons that hold only where the file has other layers as well."""


@dataclasses.dataclass
class Module:
  """The tensors of one layer.

  Attributes:
    prefix: what their names have in common.
    parts: names of the tensors, by role: "weight", "bias", "embedding" and
      the norm kinds of the spec.
  """

  prefix: str
  parts: dict[str, str]


def natural(name: str) -> tuple:
  """A key that sorts numbers in names as numbers."""
  return tuple(
    (0, int(word), "") if word.isdigit() else (1, 0, word)
    for word in re.split(r"(\d+)", name)
    if word
  )


def stem(prefix: str) -> str:
  """The name of a layer without numbers: layers of one stem are counted.

  Of a path it is the last part, with the list that a bare number stands in.
  """
  *above, last = prefix.split("/")
  name = ".".join([*above[-1:], last]) if last.isdigit() else last
  return re.sub(r"[\d]+", "#", name).rstrip("#_")


def layout_of(name: str, framework: str) -> str:
  """The layout of a kernel that its framework and its name tell of."""
  last = re.split(r"[./]", name)[-1]
  return "in_out" if framework in TRANSPOSED or last == "kernel" else "out_in"


def left_out(
  shapes: Shapes, dtypes: Mapping[str, str] | None = None
) -> dict[str, str]:
  """Returns the tensors that are no weights, and why."""
  reasons_of = {}
  beside = collections.Counter(_parent(n) for n, s in shapes.items() if s)
  text = forms.text_of(shapes)
  tried = [(f.compiled, why) for f, why in _LEFT_OUT if f.may_match(text)]
  kernels = {_parent(n) for n, s in shapes.items() if len(s) > 1}
  biases = {_parent(n) for n, s in shapes.items() if n.endswith("bias") and s}
  layers = kernels & biases
  for name, shape in shapes.items():
    reasons = [why for form, why in tried if form.search(name)]
    if reasons and _parent(name) in layers:
      # A dense layer that is called so itself, and is not a part of a loss.
      last = re.split(r"[./]", _parent(name))[-1] + "."
      own = {why for form, why in tried if form.search(last)}
      own &= {*_OF_A_PART, _STATE}
      reasons = [why for why in reasons if why not in own]
    dtype = str((dtypes or {}).get(name, "float32"))
    if reasons and not _is_weight_after_all(name, shape):
      reasons_of[name] = reasons[0]
    elif 0 in shape:
      reasons_of[name] = "empty"
    elif not shape or (tuple(shape) == (1,) and beside[_parent(name)] == 1):
      reasons_of[name] = "one number, which treats all neurons alike"
    elif re.match(r"u?int|bool|complex|<U|str|object", dtype):
      reasons_of[name] = f"numbers of type {dtype}, which are no weights"
  if not any(len(s) > 1 for n, s in shapes.items() if n not in reasons_of):
    reasons_of = {n: w for n, w in reasons_of.items() if w not in _OF_A_PART}
  return reasons_of


def _parent(name: str) -> str:
  return name[: max(name.rfind("."), name.rfind("/"), 0)]


def _is_weight_after_all(name: str, shape: tuple[int, ...]) -> bool:
  """Whether `attn.bias` is a vector rather than a causal mask."""
  return name.endswith("attn.bias") and len(shape) < 2


def components(name: str) -> tuple[str, ...]:
  """Returns the words of a name between dots and slashes."""
  return tuple(word for word in name.replace("/", ".").split(".") if word)


def copies(shapes: Shapes, read: Callable[[str], np.ndarray]) -> dict[str, str]:
  """Returns tensors that have just the numbers of an earlier one, and which.

  Formats that keep no links hold a layer that is used twice as a copy. Vectors
  count with their layer's kernel, as many are all zeros.

  Args:
    shapes: of the tensors.
    read: returns one.
  """
  seen: dict[tuple[object, ...], list[str]] = {}
  found: dict[str, str] = {}
  sizes = collections.Counter(shapes.values())
  for name, shape in shapes.items():
    if len(shape) < 2 or sizes[shape] < 2 or 0 in shape:
      continue
    array = np.asarray(read(name))
    alike = seen.setdefault((shape, array.dtype, array[0].tobytes()), [])
    same = [n for n in alike if np.array_equal(read(n), array)]
    if not same:
      alike.append(name)
    elif (array != array.flat[0]).any():
      found[name] = same[0]
  stem = lambda name: re.sub(r"[^./]*$", "", name)
  of = {stem(name): stem(other) for name, other in found.items()}
  for name, shape in shapes.items():
    start = stem(name)
    other = of.get(start, start) + name[len(start) :]
    vector = len(shape) == 1 and other != name and shapes.get(other) == shape
    if vector and np.array_equal(read(name), read(other)):
      found[name] = other
  return found


def role(name: str) -> tuple[str, str]:
  """Splits a name into its layer and its part; the part is "" if unknown."""
  stored = re.sub(r"(:0|/(raw_)?value)$", "", name)  # As TensorFlow, NNX do.
  words = re.split(r"[./]", stored)
  last = words[-1].lower()
  prefix = stored[: len(stored) - len(words[-1])].rstrip("./")
  if last in _ROLES:
    return prefix, _ROLES[last]
  for word, part in _ROLES.items():
    # conv1_weight, W1, b_2, moving_mean_3.
    match = re.match(rf"^(?:(.*)_)?{word}_?(\d*)$", last)
    if match and (len(word) > 1 or not match[1] or match[2] == ""):
      stem = "_".join(w for w in (match[1] or "", match[2]) if w)
      return ".".join(w for w in (prefix, stem) if w), part
  return name, ""


def strip_collection(prefix: str) -> str:
  """Drops words such as `params` at the beginning of a layer's name."""
  words = re.split(r"([./])", prefix)
  while len(words) > 2 and words[0] in _COLLECTIONS:
    words = words[2:]
  return "" if len(words) == 1 and words[0] in _COLLECTIONS else "".join(words)


def modules(shapes: Shapes) -> list[Module]:
  """Groups tensors into layers, in the order of their first tensors.

  Tensors whose names say nothing are put together by their shapes: matrices
  are weights, and a vector goes with the matrix before it.
  """
  by_prefix: dict[str, Module] = {}
  for name, shape in shapes.items():
    prefix, part = role(name)
    numbered = re.match(r"^(.*?)[./]vars[./](\d+)$", name)
    if numbered:  # Keras numbers the variables of a layer.
      prefix, part = numbered[1], f"var {numbered[2]}"
    elif not part:
      prefix, part = _by_shape(name, shape, by_prefix, shapes)
    prefix = strip_collection(prefix)
    module = by_prefix.setdefault(prefix, Module(prefix, {}))
    if part in module.parts:
      module = by_prefix.setdefault(name, Module(name, {}))
    module.parts[part] = name
  for module in by_prefix.values():
    _settle(module, shapes)
  return [part for m in by_prefix.values() for part in _layer_and_norm(m)]


def by_number(order: list[Module]) -> list[Module]:
  """Returns layers by the numbers in their names, of all stems together.

  What has no number stays before or behind all that have one.
  """
  numbers = [tuple(map(int, re.findall(r"\d+", m.prefix))) for m in order]
  first = next((i for i, each in enumerate(numbers) if each), 0)
  keys = [(1, n) if n else (2 * (i > first), n) for i, n in enumerate(numbers)]
  places = sorted(range(len(order)), key=keys.__getitem__)
  return [order[place] for place in places]


def _layer_and_norm(module: Module) -> list[Module]:
  """Parts `W1, b1` from `gamma1, beta1`, which are called alike."""
  norm = {k: n for k, n in module.parts.items() if k.startswith("norm_")}
  if "weight" not in module.parts or not norm:
    return [module]
  layer = {k: n for k, n in module.parts.items() if k not in norm}
  name = next(iter(norm.values()))
  return [Module(module.prefix, layer), Module(name, norm)]


def _by_shape(
  name: str,
  shape: tuple[int, ...],
  by_prefix: dict[str, Module],
  shapes: Shapes,
) -> tuple[str, str]:
  if len(shape) > 1 or not by_prefix:
    return name, "weight"
  last = list(by_prefix.values())[-1]
  matrix = shapes.get(last.parts.get("weight", ""), ())
  outputs = (matrix[:1], matrix[-1:])
  if "bias" not in last.parts and len(shape) == 1 and shape in outputs:
    return last.prefix, "bias"
  return name, ""


def _settle(module: Module, shapes: Shapes) -> None:
  """Turns `weight` and `bias` of a norm, and numbers, into what they are."""
  numbers = sorted(k for k in module.parts if k.startswith("var "))
  if numbers:
    names = [module.parts[k] for k in numbers]
    module.parts = dict(
      zip(_numbered(module.prefix, names, shapes), names, strict=True)
    )
  weight = module.parts.get("weight")
  norm = "norm_scale" in module.parts or "norm_mean" in module.parts
  vector = weight is not None and len(shapes[weight]) == 1
  if weight is not None and vector:
    module.parts["norm_scale"] = module.parts.pop("weight")
  kernel = weight is not None and not vector
  if (norm or vector) and not kernel and "bias" in module.parts:
    module.parts["norm_shift"] = module.parts.pop("bias")


def _numbered(prefix: str, names: list[str], shapes: Shapes) -> list[str]:
  """Roles of the numbered variables of a Keras layer."""
  sizes = [shapes[name] for name in names]
  last = re.split(r"[./]", prefix)[-1]
  if last.startswith("embedding") and len(names) == 1:
    return ["embedding"]
  if all(len(size) == 1 for size in sizes):
    norm = ["norm_scale", "norm_shift", "norm_mean", "norm_var"]
    if len(names) == 4 or last.startswith("layer_norm"):
      return norm[: len(names)]
    if len(names) == 2 and last.startswith("batch_norm"):
      return norm[2:]
    return norm[: len(names)] if len(names) < 3 else norm[:1] + norm[2:]
  return ["weight", "bias", *(f"var {i}" for i in range(2, len(names)))][
    : len(names)
  ]


def hints(shapes: Shapes) -> dict[str, tuple[str, bool]]:
  """What names say of vectors, for `Tape`: kind, and running statistics."""
  hinted = {}
  for module in modules(shapes):
    running = "norm_mean" in module.parts
    for part, name in module.parts.items():
      if part == "bias" or part.startswith("norm_"):
        hinted[name] = (part, running)
  return hinted
