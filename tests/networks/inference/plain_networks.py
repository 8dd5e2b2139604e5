"""Small plain networks in NumPy, to try what a spec claims of their files.

Dimensions: values are `[B, C]` or, for images, `[B, C, H, W]`.
"""

import numpy as np

from sne_jax.networks import inference


def draw(shapes, seed=0):
  """Random tensors; scales and variances are above 0."""
  rng = np.random.default_rng(seed)
  tensors = {}
  for name, shape in shapes.items():
    tensors[name] = rng.standard_normal(shape).astype(np.float32)
    if len(shape) < 2 and not name.endswith("bias"):
      tensors[name] = np.abs(tensors[name]) + np.float32(0.3)
  return tensors


def infer(shapes, framework, override=None, tensors=None, tied=None):
  """What is found in a file of these tensors."""
  return inference.infer(
    shapes,
    framework=framework,
    override=override,
    tied=tied,
    read=None if tensors is None else tensors.__getitem__,
  )


def holds(shapes, framework, run, x, override=None, tensors=None, tied=None):
  """Returns what is found; all that it claims must leave `run` alone."""
  if framework != "torch":  # Sorted by name, as safetensors is.
    shapes = dict(sorted(shapes.items()))
  given = tensors or draw({n: shapes[n] for n in sorted(shapes)})
  found = infer(shapes, framework, override, tensors, tied)
  rng = np.random.default_rng(1)
  x = rng.standard_normal(x)
  check = inference.permutation_check(
    found, found.gather(given), run, x, rng, draws=4
  )
  assert check.passes(1e-5), (check, found.guesses)
  return found


def layer(*sizes, bias=True):
  """Shapes of a weight, and of a bias for each of its first axis."""
  return {"weight": sizes} | ({"bias": sizes[:1]} if bias else {})


def norm(width, running=True):
  """Shapes of a norm."""
  parts = ["weight", "bias"] + ["running_mean", "running_var"] * running
  return dict.fromkeys(parts, (width,))


def named(**modules):
  """Shapes by full names: `a__0` stands for `a.0`."""
  return {
    f"{module.replace('__', '.').lstrip('_')}.{part}": shape
    for module, parts in modules.items()
    for part, shape in parts.items()
  }


def relu(x):
  return np.maximum(x, 0)


def linear(t, name, x):
  """As `torch.nn.Linear`."""
  return x @ np.float64(t[f"{name}.weight"]).T + t.get(f"{name}.bias", 0)


def conv(t, name, x, transposed=False, last=False):
  """A convolution of 3 x 3 with padding; `last`: kernel [out, h, w, in]."""
  kernel = np.float64(t[f"{name}.weight"])
  if last:
    kernel = kernel.transpose(0, 3, 1, 2)
  if transposed:
    kernel = kernel.swapaxes(0, 1)[:, :, ::-1, ::-1]
  x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
  windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))
  y = np.einsum("bihwkl,oikl->bohw", windows, kernel)
  return y + _along(t.get(f"{name}.bias", np.zeros(1)), y)


def batch_norm(t, name, x):
  """By running statistics."""
  mean, var = t[f"{name}.running_mean"], t[f"{name}.running_var"]
  y = (x - _along(mean, x)) / np.sqrt(_along(var, x) + 1e-5)
  return _affine(t, name, y)


def group_norm(t, name, x, groups):
  """By statistics of groups of channels; 1 is a layer norm."""
  y = x.reshape(x.shape[0], groups, -1)
  y = (y - y.mean(-1, keepdims=True)) / (y.std(-1, keepdims=True) + 1e-3)
  return _affine(t, name, y.reshape(x.shape))


def _affine(t, name, y):
  return y * _along(t[f"{name}.weight"], y) + _along(t[f"{name}.bias"], y)


def _along(vector, like):
  return np.float64(vector).reshape(-1, *(1,) * (like.ndim - 2))


def mlp(*widths, names=None, bias=True):
  shapes = {}
  for place, (into, out) in enumerate(zip(widths, widths[1:], strict=False)):
    name = names[place] if names else f"{2 * place}"
    shapes[f"{name}.weight"] = (out, into)
    if bias:
      shapes[f"{name}.bias"] = (out,)
  return shapes


def groups_of(found, name):
  return [[f.group for f in axis] for axis in found.spec.tensor(name).axes]


def levels(found, *names):
  return [found.spec.tensor(f"{name}.weight").level for name in names]
