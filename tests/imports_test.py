"""The floors of the house: who may import whom, read from the source.

Imports point down, encoders and zoo do not know each other, and each outside
library that shapes the design is imported in the one place that owns it.
"""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1] / "sne_jax"
MODULES = sorted(
  path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py")
)

FLOORS = {
  "room": -3,
  "atomic": -2,
  "errors": -2,
  "version": -2,
  "digests": -1,
  "networks": 0,
  "checkpoints": 1,
  "encoders": 2,
  "zoo": 2,
  "learning": 3,
  "sharing": 4,
  "predictor": 5,
  "editor": 5,
  "masker": 5,
  "fitting": 6,
  "editing": 6,
  "masking": 6,
  "unlabelled": 6,
  "sklearn": 7,
  "cli": 8,  # Programs stand on everything.
}
TOP = 7  # sne_jax/__init__.py: public names only.

OUTSIDE = ("experiments", "benchmarks", "tests")
NOWHERE = {"chex": "for tests", "beartype": "for tests"}

# Library -> the only modules and folders that may import it.
OWNERS = {
  "flax.linen": ("encoders/", "learning/objectives/model.py"),
  "flax": ("encoders/", "checkpoints/", "zoo/", "learning/", "sharing/"),
  "orbax": (
    "learning/training/train_state.py",
    "checkpoints/formats/orbax_folder.py",
  ),
  # Optional; their readers import them when a file needs them.
  "h5py": ("checkpoints/formats/keras_file.py",),
  "optuna": ("cli/sweeping/",),
  "ray": ("cli/sweeping/executors.py",),
  "skimage": ("learning/editing/targets.py",),
  "onnx": ("checkpoints/formats/onnx_file.py", "checkpoints/graphs/"),
  "gguf": ("checkpoints/formats/gguf_file.py",),
  "torch": (
    "checkpoints/formats/pytorch/torch_load.py",
    "networks/tracing/traced_torch.py",
  ),
  "huggingface_hub": ("checkpoints/formats/hub.py", "sharing/hub.py"),
  "plotly": ("cli/atlas/packing.py",),
  "wandb": ("learning/training/wandb_run.py",),
  "tensorboardX": ("learning/training/records.py",),
  "absl": (
    "encoders/",
    "checkpoints/",
    "zoo/",
    "learning/",
    "sharing/",
    "fitting.py",
    "predictor.py",
    "cli/",
  ),
}


def imported_names(module: str, tree: ast.AST) -> set[str]:
  """Absolute names of everything that a module imports, at any depth.

  `from a import b` gives `a.b`, module or not; inside functions counts too.
  """
  # The package that a relative import starts from.
  package = ("sne_jax/" + module).split("/")[:-1]
  names = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      parts = package[: len(package) - node.level + 1] if node.level else []
      base = ".".join([*parts, *filter(None, [node.module])])
      names.update(f"{base}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and _dotted(node.func) in (
      "importlib.import_module",
      "import_module",
      "__import__",
    ):
      names.update(
        arg.value
        for arg in node.args
        if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
      )
  return names


def faults(module: str, source: str) -> list[str]:
  """What is wrong with the imports of `module`, a path below sne_jax/."""
  tree = ast.parse(source)
  folder = module.split("/")[0].removesuffix(".py")
  floor = TOP if folder == "__init__" else FLOORS.get(folder)
  if floor is None:
    return [f"{module} stands on no floor; add it to FLOORS"]
  found = []
  names = imported_names(module, tree)
  for name in sorted(names):
    root, *rest = name.split(".")
    if root in OUTSIDE:
      found.append(f"{module} imports {name}, which is no library code")
    if root in NOWHERE:
      found.append(f"{module} imports {name}, which is {NOWHERE[root]}")
    for library, owners in OWNERS.items():
      if _is_within(name, library) and not module.startswith(owners):
        found.append(f"{module} imports {name}, which is for {owners}")
    if root == "sne_jax" and rest[:1] != [folder]:
      other = FLOORS.get(rest[0], TOP) if rest else TOP
      if other >= floor:
        found.append(f"{module} imports {name}, which is not below it")
  for node in ast.walk(tree):
    if not isinstance(node, ast.Call):
      continue
    if folder == "cli":
      continue  # Programs may.
    called = _dotted(node.func)
    if called == "jax.config.update" or (
      called == "config.update" and "jax.config" in names
    ):
      found.append(f"{module} line {node.lineno} changes global configuration")
  return found


def _is_within(name: str, library: str) -> bool:
  return name == library or name.startswith(library + ".")


def _dotted(node: ast.AST) -> str:
  """`a.b.c` of an expression of names and attributes, else what can be said."""
  if isinstance(node, ast.Attribute):
    return f"{_dotted(node.value)}.{node.attr}"
  return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
  assert not faults(module, (ROOT / module).read_text())


def test_all_floors_are_found():
  assert {m.split("/")[0] for m in MODULES} >= {
    "networks",
    "encoders",
    "zoo",
    "learning",
  }


@pytest.mark.parametrize(
  ("module", "source"),
  [
    ("networks/spec.py", "from sne_jax import encoders"),
    ("networks/spec.py", "import sne_jax.zoo.store.store"),
    ("networks/spec.py", "from sne_jax.learning.objectives.losses import mse"),
    ("networks/spec.py", "from ..zoo import store"),
    ("networks/spec.py", "import sne_jax"),
    ("networks/spec.py", "import flax"),
    ("networks/spec.py", "from absl import logging"),
    ("encoders/sne/module.py", "from sne_jax.zoo import store"),
    ("zoo/store/store.py", "def f():\n  from sne_jax import encoders"),
    ("zoo/store/store.py", "from flax import linen as nn"),
    ("zoo/store/store.py", "import torch.nn"),
    ("checkpoints/formats/pytorch/torch_file.py", "def f():\n  import torch"),
    ("checkpoints/reading.py", "from h5py import File"),
    ("checkpoints/formats/keras_file.py", "import onnx"),
    ("networks/inference/sources.py", "import torch"),
    (
      "zoo/store/store.py",
      "import importlib\nimportlib.import_module('torch')",
    ),
    ("learning/objectives/losses.py", "import flax.linen as nn"),
    ("learning/training/loop.py", "import orbax.checkpoint as ocp"),
    ("learning/training/loop.py", "import tensorboardX"),
    ("learning/training/loop.py", "from sne_jax import predictor"),
    ("learning/training/loop.py", "from experiments.cli import config"),
    ("learning/training/loop.py", "import chex"),
    ("learning/training/loop.py", "import jax\njax.config.update('x', True)"),
    (
      "learning/objectives/losses.py",
      "from jax import config\nconfig.update('x', 1)",
    ),
    ("predictor.py", "from benchmarks import machine"),
    ("predictor.py", "from sne_jax import Predictor"),
    ("fitting.py", "from sne_jax.cli import config"),
    ("__init__.py", "from sne_jax.cli import main"),
    ("cli/main.py", "from experiments.cli import options"),
    ("strange/new.py", "import numpy"),
  ],
)
def test_a_forbidden_import_is_found(module, source):
  assert faults(module, source)


@pytest.mark.parametrize(
  ("module", "source"),
  [
    ("__init__.py", "from sne_jax.predictor import Predictor"),
    ("cli/memory.py", "import sne_jax\nfrom absl import flags"),
    ("networks/chunking/cuts.py", "from sne_jax.networks import spec"),
    ("networks/chunking/cuts.py", "from . import spec\nimport numpy, jax"),
    ("encoders/sne/module.py", "from flax import linen as nn"),
    ("encoders/sne/module.py", "from sne_jax.networks.spec import NetworkSpec"),
    ("learning/objectives/model.py", "from flax import linen as nn"),
    (
      "learning/objectives/model.py",
      "from sne_jax import encoders, zoo, networks",
    ),
    (
      "learning/training/train_state.py",
      "from orbax.checkpoint import v1 as ocp",
    ),
    ("learning/training/records.py", "import tensorboardX"),
    ("networks/tracing/traced_torch.py", "import torch"),
    ("predictor.py", "from sne_jax.learning.training import train_state"),
    ("checkpoints/formats/pytorch/torch_load.py", "def f():\n  import torch"),
    ("checkpoints/formats/orbax_folder.py", "import orbax.checkpoint as ocp"),
    ("zoo/store/store.py", "config = {}\nconfig.update(x=1)"),
  ],
)
def test_an_allowed_import_is_left_alone(module, source):
  assert not faults(module, source)
