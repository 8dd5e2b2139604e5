"""What is said of symmetries: where not exact, and what does nothing."""

import dataclasses
import re

import numpy as np
import pytest

from sne_jax.encoders.sne.options import SNEOptions
from sne_jax.learning.data import pipeline
from sne_jax.learning.evaluation import notes
from sne_jax.networks import chunking, families, inference

RELU = families.mlp((2, 9, 4, 1))
TANH = families.mlp((2, 9, 4, 1), "tanh")
FILE = inference.infer(
  {"0.weight": (9, 2), "0.bias": (9,), "2.weight": (1, 9), "2.bias": (1,)},
  framework="torch",
).spec


def networks_of(*specs):
  numbers = np.arange(len(specs))
  vectors = [np.zeros(spec.num_weights, np.float32) for spec in specs]
  return pipeline.Networks(specs, numbers, vectors, np.zeros((len(specs), 1)))


@pytest.mark.parametrize(
  ("options", "chunks", "said"),
  [
    ({}, {"chunk_size": 34}, []),
    ({"index_features": "neuron"}, {"chunk_size": 34}, ["neuron numbers"]),
    ({"index_features": "chunk"}, {"chunk_size": 34}, ["chunk numbers"]),
    ({"identifiers": "random"}, {"chunk_size": 34}, ["random differ"]),
    ({"chunk_function": "linear"}, {"chunk_size": 34}, ["in their order"]),
    ({}, {"chunk_size": 4}, ["of 4 weights cut neurons apart in 1 of 1"]),
    (
      {"identifiers": "random"},
      {"chunk_size": 4, "linear_rule": "flat"},
      ["random differ", r"cut layers \(linear_rule=flat\) apart in 1 of 1"],
    ),
  ],
)
def test_where_the_invariance_is_not_exact(options, chunks, said):
  lines = notes.of_encoder(
    SNEOptions(**options), chunking.ChunkOptions(**chunks), [RELU, TANH]
  )
  assert len(lines) == len(said)
  for line, pattern in zip(lines, said, strict=True):
    assert re.search(pattern, line)
    assert line.startswith("not exactly invariant")


@pytest.mark.parametrize(
  ("options", "specs", "said"),
  [
    ({}, [TANH], []),
    ({"augment_signs": False}, [FILE, RELU], []),
    ({}, [RELU, TANH, RELU], ["augment_signs does nothing for 2 of 3"]),
    (
      {"augment_scales": 1.0},
      [RELU],
      ["augment_signs does nothing for 1 of 1"],
    ),
    (
      {"augment_scales": 1.0},
      [FILE, TANH],
      [
        "augment_signs, augment_scales: the activation of 1 of 2 training",
        "augment_scales does nothing for 1 of 2",
      ],
    ),
    ({"assume_activation": "tanh"}, [FILE, TANH], []),
    (
      {"augment_signs": False, "augment_pi_shifts": 1},
      [TANH],
      ["augment_pi_shifts does nothing for 1 of 1"],
    ),
  ],
)
def test_which_augmentations_do_nothing(options, specs, said):
  lines = notes.of_data(pipeline.DataOptions(**options), networks_of(*specs))
  assert len(lines) == len(said)
  assert all(line.startswith(s) for line, s in zip(lines, said, strict=True))


def test_an_unknown_activation_comes_with_a_remedy_that_works():
  data = pipeline.DataOptions(batch_size=1)
  (line,) = notes.of_data(data, networks_of(FILE))
  assert "--assume_activation=relu" in line
  rng = np.random.default_rng(0)
  vector = families.random_weights(RELU, rng)[: FILE.num_weights]
  still = pipeline.augmented(FILE, vector, data, rng)
  np.testing.assert_array_equal(still, vector)
  told = pipeline.DataOptions(assume_activation="tanh")
  moved = pipeline.augmented(FILE, vector, told, rng)
  np.testing.assert_array_equal(np.abs(moved), np.abs(vector))
  assert (moved != vector).any()
  with pytest.raises(ValueError, match="assume_activation is 'rlu'"):
    pipeline.DataOptions(assume_activation="rlu")


def test_reordering_does_nothing_to_an_exact_encoder():
  data = pipeline.DataOptions(augment_permutation=True)
  parts = [networks_of(TANH), networks_of(families.mlp((2, 90, 3), "tanh"))]
  chunk = chunking.ChunkOptions(chunk_size=34)
  said = notes.of_training(SNEOptions(), chunk, data, parts[:1], 1.0)
  assert [line.split(":")[0] for line in said] == [
    "augment_permutation does nothing",
    "invariance_weight does nothing",
  ]
  # Where a network that is tested on is cut, it is not exact.
  (line,) = notes.of_training(SNEOptions(), chunk, data, parts, 1.0)
  assert "cut neurons apart in 1 of 2 architectures" in line
  assert notes.of_training(None, chunk, data, parts, 0.0) == []
  unused = dataclasses.replace(
    parts[1], specs=(TANH, *parts[1].specs), numbers=np.zeros(1, int)
  )
  assert notes.of_training(SNEOptions(), chunk, data, [unused], 1.0) == said
