"""Weight-space learning in JAX: networks in, properties out.

A trained network is a `NetworkSpec` (its tensors, and which of their axes are
the same neurons) and one vector of weights; `Networks` are many of them with
what is known of each, from files, arrays, or a `Zoo` on disk.

- `fit` trains an encoder (`SNE`, or another by name) on networks and targets,
  and returns a `Predictor`: `predict`, intervals, codes, gradients. `pretrain`
  trains an encoder without targets, `fit_editor` an `Editor` of networks that
  are images.
- `Predictor.from_pretrained` and `Predictor.load` give one that is trained; it
  takes paths, state dicts, and models of PyTorch, Keras and Flax.
- `zoo_of_files` makes a zoo of a folder of checkpoints and a table.
- `SNEOptions`, `ChunkOptions`, `DataOptions`, `TrainOptions` and the other
  options are frozen dataclasses, and each of their fields is a flag of the
  command `sne-jax`.
- `encoder_for` and `register_encoder` are for training loops, and encoders, of
  one's own; `sne_jax.sklearn` has estimators for scikit-learn.

Example:
  >>> import sne_jax
  >>> predictor = sne_jax.Predictor.from_pretrained("sine-frequency")
  >>> predictor.targets
  ('frequency',)
"""

from sne_jax.editing import fit_editor
from sne_jax.editor import Editor
from sne_jax.encoders.interface import register as register_encoder
from sne_jax.encoders.sne.module import SNE
from sne_jax.encoders.sne.options import SNEOptions
from sne_jax.fitting import fit
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.data.folders import zoo_of_files
from sne_jax.learning.data.pipeline import DataOptions
from sne_jax.learning.objectives.invariance import InvarianceOptions
from sne_jax.learning.objectives.model import HeadOptions
from sne_jax.learning.training.loop import TrainOptions
from sne_jax.learning.training.optimizers import OptimizerOptions
from sne_jax.learning.training.program import encoder_for
from sne_jax.masker import Masker
from sne_jax.masking import fit_masker
from sne_jax.networks.chunking import ChunkOptions
from sne_jax.networks.spec import Factor, NetworkSpec, TensorSpec
from sne_jax.predictor import Predictor
from sne_jax.unlabelled import pretrain
from sne_jax.version import VERSION as __version__
from sne_jax.zoo.store.store import Zoo

__all__ = [
  "SNE",
  "ChunkOptions",
  "DataOptions",
  "Editor",
  "Factor",
  "HeadOptions",
  "InvarianceOptions",
  "Masker",
  "NetworkSpec",
  "Networks",
  "OptimizerOptions",
  "Predictor",
  "SNEOptions",
  "TensorSpec",
  "TrainOptions",
  "Zoo",
  "__version__",
  "encoder_for",
  "fit",
  "fit_editor",
  "fit_masker",
  "pretrain",
  "register_encoder",
  "zoo_of_files",
]
