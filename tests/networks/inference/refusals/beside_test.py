"""A network beside another one that has no prefix: each can be read."""

import json
import re

import numpy as np
import pytest

from sne_jax import checkpoints, errors
from sne_jax.networks import inference
from sne_jax.networks.inference.refusals import beside
from sne_jax.networks.inference.refusals.seen import Seen
from tests.checkpoints import samples
from tests.networks.inference.plain_networks import mlp

NAMES = ("fc1", "fc2", "fc3")


def write(shapes, path):
  """Writes random tensors of these shapes."""
  rng = np.random.default_rng(0)
  arrays = {n: np.float32(rng.standard_normal(s)) for n, s in shapes.items()}
  if path.suffix == ".npz":
    named = {n.replace(".", "/"): a for n, a in arrays.items()}
    np.savez(path, allow_pickle=False, **named)
  elif path.suffix == ".pt":
    path.write_bytes(samples.torch_bytes(samples.state_dict(arrays)))
  else:
    path.write_bytes(samples.safetensors_bytes(arrays))
  return path


def refused(path):
  with pytest.raises(errors.CheckpointError) as error:
    checkpoints.load(path)
  line = str(error.value)
  assert "several networks" in line and "\n" not in line
  return line


CASES = [
  *(("ema.", n, end) for n in (3, 6) for end in (".pt", ".npz")),
  ("ema.", 6, ".safetensors"),
  *((start, 6, ".pt") for start in ("teacher.", "momentum_encoder.", "x.")),
  *((start, 3, ".safetensors") for start in ("ema.module.", "target_")),
  ("ema_", 6, ".npz"),
]


@pytest.mark.parametrize(("start", "outputs", "suffix"), CASES)
def test_both_can_be_read(start, outputs, suffix, tmp_path):
  plain = mlp(6, 16, 16, outputs, names=NAMES)
  both = plain | {f"{start}{n}": s for n, s in plain.items()}
  path = write(both, tmp_path / f"both{suffix}")
  line = refused(path)
  override = json.loads(re.findall(r'\{"leave_out.*?\}', line)[0])
  found = checkpoints.load(path, override=override)
  named = lambda found: {
    s.name.replace("/", ".") for s in found.inferred.sources
  }
  assert named(found) == plain.keys()
  parts = re.findall(r'part="([^"]+)"', line)
  assert len(parts) == (start[-1] == ".")
  for part in parts:
    found = checkpoints.load(path, part=part)
    assert named(found) == both.keys() - plain.keys()


def test_more_than_two_and_not_quite_alike(tmp_path):
  """A wrapper, two copies, one of them without its last layer."""
  plain = mlp(6, 16, 16, 3, names=NAMES)
  shapes = {f"module.{n}": s for n, s in plain.items()}
  for copy in ("ema", "old"):
    shapes |= {f"module.{copy}.{n}": s for n, s in plain.items()}
  shapes = {n: s for n, s in shapes.items() if "old.fc3" not in n}
  line = refused(write(shapes, tmp_path / "both.pt"))
  assert '{"leave_out": ["module.ema.*", "module.old.*"]}' in line


@pytest.mark.parametrize(
  "names",
  [
    ("fc1", "fc2", "block.fc1", "fc3"),
    ("block1.fc1", "block1.fc2", "block2.fc1", "block2.fc2"),
    ("in_proj1", "proj1", "proj2", "out_proj1"),
    ("0.0", "0.2", "2", "4"),
  ],
)
def test_layers_of_one_network(names):
  shapes = mlp(8, 8, 8, 8, 8, names=names)
  seen = Seen(shapes, {}, {}, inference.Override(), lambda *_: True)
  assert beside.networks(seen) is None


def test_an_order_says_that_it_is_one_chain():
  names = ["fc1", "fc2", "block.fc1", "block.fc2"]
  shapes = mlp(8, 8, 8, 8, 8, names=names)
  with pytest.raises(inference.AmbiguousError, match="several"):
    inference.infer(shapes, framework="torch")
  found = inference.infer(shapes, framework="torch", override={"order": names})
  assert found.spec.num_levels == 4


def test_a_start_that_nothing_has():
  with pytest.raises(ValueError, match=r"leave_out names 'old\.\*'"):
    inference.infer(
      mlp(6, 16, 3), framework="torch", override={"leave_out": ["old.*"]}
    )
