"""Masks in a zoo: what is written is read, and damage is named."""

import json

import numpy as np
import pytest

from sne_jax import digests, errors
from sne_jax.networks import families
from sne_jax.zoo.store import masks, store, writing

SPEC = families.mlp((2, 3, 1), "relu")  # 13 weights: no byte's end.
KEPT = np.random.default_rng(0).random((4, SPEC.num_weights)) < 0.5


@pytest.fixture
def path(tmp_path):
  weights = np.random.default_rng(1).normal(size=KEPT.shape)
  writing.write_zoo(
    tmp_path / "zoo",
    specs=[SPEC],
    weights=[weights.astype(np.float32)],
    ids=list("abcd"),
    splits={"s": {"train": ["a", "b"]}},
    masks=masks.Masks.of(KEPT),
  )
  return tmp_path / "zoo"


def test_masks_that_are_written_are_read(path):
  zoo = store.Zoo.open(path)
  np.testing.assert_array_equal(zoo.masks.rows([2, 0]), KEPT[[2, 0]])
  added = writing.add_split(path, "t", {"train": ["c"]})
  np.testing.assert_array_equal(added.masks.rows(range(4)), KEPT)


def test_damage_is_found(path):
  (file,) = path.glob("masks-*")
  file.write_bytes(file.read_bytes()[:-1] + b"\x07")
  with pytest.raises(errors.ZooError, match="masks-"):
    store.Zoo.open(path)


def test_masks_of_another_architecture_are_refused(path):
  index = json.loads((path / "zoo.json").read_text())
  index["masks"]["weights"] = 12
  index.pop(digests.SEAL)
  (path / "zoo.json").write_text(json.dumps(digests.sealed(index)))
  with pytest.raises(errors.ZooError, match="of 12 weights, and networks have"):
    store.Zoo.open(path)
