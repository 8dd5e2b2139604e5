"""Training without labels from Python, and beginning where it has ended."""

import dataclasses

import numpy as np
import pytest

import sne_jax
from sne_jax.learning.selfsup import pretraining, views
from sne_jax.networks import families

SPEC = families.mlp((2, 4, 1))
SNE = sne_jax.SNEOptions(
  width=8,
  heads=2,
  chunk_function="linear",
  identifiers="none",
  index_features="none",
  layer_function="deepsets",
  layer_blocks=0,
  network_function="deepsets",
  network_blocks=0,
)
SHARED = {
  "chunks": sne_jax.ChunkOptions(
    chunk_size=6, linear_rule="neuron", conv_rule="neuron"
  ),
  "data": sne_jax.DataOptions(batch_size=4),
  "training": sne_jax.TrainOptions(num_steps=3, eval_every=3),
  "devices": 1,
}
PRETRAIN = {
  "encoder": SNE,
  "view": views.ViewOptions(relative_noise=0.1),
  **SHARED,
}


@pytest.fixture(scope="module")
def parts():
  rng = np.random.default_rng(0)
  weights = [rng.normal(size=SPEC.num_weights) for _ in range(16)]
  sizes = [np.abs(w).mean() for w in weights]
  return sne_jax.Networks.of([(SPEC, w) for w in weights], sizes).split(0.7)


@pytest.fixture(scope="module")
def pretrained(parts, tmp_path_factory):
  folder = tmp_path_factory.mktemp("pretrained") / "seed0"
  return sne_jax.pretrain(*parts, workdir=folder, **PRETRAIN), folder


def test_a_pretraining_is_kept_in_memory_or_in_a_folder(pretrained, parts):
  model, folder = pretrained
  weights = np.stack(parts[1].vectors)
  codes = model.encode(weights)
  assert codes.shape == (5, 8) and model.results["best_step"] == 3
  loaded = pretraining.Pretrained.load(folder)
  np.testing.assert_allclose(loaded.encode(weights), codes, rtol=1e-5)
  again = sne_jax.pretrain(*parts, workdir=folder, **PRETRAIN)  # Not trained.
  assert again.results == loaded.results
  first = sne_jax.pretrain(*parts, untrained=True, **PRETRAIN)
  assert np.abs(first.encode(weights) - codes).max() > 1e-4


def test_fit_begins_where_a_pretraining_has_ended(pretrained, parts):
  model, folder = pretrained
  given = {"options": SNE, **SHARED, "init_from": str(folder.parent)}
  still = sne_jax.OptimizerOptions(learning_rate=1e-12, weight_decay=0.0)
  found = sne_jax.fit(*parts, optimizer=still, **given)
  np.testing.assert_allclose(
    found.encode(parts[1]), model.encode(np.stack(parts[1].vectors)), rtol=1e-4
  )
  with pytest.raises(ValueError, match=r"width is 8 in .*, and 4 here"):
    changed = dataclasses.replace(SNE, width=4)
    sne_jax.fit(*parts, **given | {"options": changed})
  with pytest.raises(ValueError, match=r"seed1 holds no pretrained\.json"):
    sne_jax.fit(*parts, seeds=2, **given)


def test_what_is_refused(pretrained, parts):
  train, val = parts
  with pytest.raises(ValueError, match=r"encoder\.width: 8 there, 4 now"):
    changed = {"encoder": dataclasses.replace(SNE, width=4)}
    sne_jax.pretrain(train, val, workdir=pretrained[1], **PRETRAIN | changed)
  with pytest.raises(ValueError, match="batch_size is 99, but there are 11"):
    data = {"data": sne_jax.DataOptions(batch_size=99)}
    sne_jax.pretrain(train, val, **PRETRAIN | data)
  other = families.mlp((2, 3, 1))
  odd = sne_jax.Networks.of([(other, np.ones(other.num_weights))], [1.0])
  with pytest.raises(ValueError, match="one architecture, got .* and "):
    sne_jax.pretrain(train, odd, **PRETRAIN)
  with pytest.raises(ValueError, match="sane takes SANECoderOptions"):
    sne_jax.pretrain(train, val, **PRETRAIN | {"method": "sane"})
  with pytest.raises(ValueError, match="method is 'snae'"):
    sne_jax.pretrain(train, val, **PRETRAIN | {"method": "snae"})
