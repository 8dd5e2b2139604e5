"""Learning without labels: three methods behind one interface."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from sne_jax.encoders import table
from sne_jax.learning.selfsup import contrast, methods, pretraining, views
from sne_jax.networks import chunking, families, symmetry

FAST = {"xla_backend_optimization_level": "0"}
SPEC = families.mlp((3, 6, 4, 2), "tanh")
WEIGHTS = np.random.default_rng(0).standard_normal((6, SPEC.num_weights))
WEIGHTS = (3 * WEIGHTS + 1).astype(np.float32)
ENCODERS = {
  "sane": {"width": 4, "hidden": 8, "blocks": 1, "heads": 2, "window": 4},
  "hyper_representation": {
    **{"width": 4, "token_width": 8, "blocks": 1, "heads": 2},
    **{"feed_forward": 8, "dropout": 0.0, "attention_dropout": 0.0},
  },
  "sne": {
    **{"width": 8, "heads": 2, "chunk_function": "product"},
    **{"layer_function": "deepsets", "layer_blocks": 0},
    **{"network_function": "deepsets", "network_blocks": 0},
    **{"identifiers": "content", "index_features": "none"},
  },
}


@functools.cache
def started(name):
  """Returns a method, parameters, and the compiled loss of params and key."""
  method = methods.build(described(name))
  jit = lambda f: jax.jit(f, compiler_options=FAST)
  loss = jit(lambda *args: method.loss(*args, False))
  return method, jit(method.init)(0), loss


def described(method, encoder=None, view=None, **changes):
  own = ENCODERS[method] | (encoder or {})
  return pretraining.describe(
    method,
    SPEC,
    WEIGHTS,
    encoder=table.row(method).options(**own),
    chunk=chunking.ChunkOptions(
      chunk_size=8, linear_rule="neuron", conv_rule="neuron"
    ),
    view=views.ViewOptions(**(view or {"relative_noise": 0.1})),
    losses=contrast.ContrastOptions(),
    options=methods.PretrainOptions(
      projection=4, head_layers=1, head_width=6, **changes
    ),
  )


@pytest.mark.parametrize(
  "name",
  [
    "sane",
    "sne",
    pytest.param("hyper_representation", marks=pytest.mark.slow),
  ],
)
def test_methods_have_one_interface(name):
  method, params, loss_of = started(name)
  description = json.loads(json.dumps(described(name)))  # Plain values.
  x = pretraining.prepared(description, WEIGHTS)
  batch = methods.Batch(x, method.template(len(x)))
  loss, parts = loss_of(params, batch, jax.random.key(1))
  assert np.isfinite(loss) and parts
  # Other views, another loss; the same key, the same loss.
  assert loss == loss_of(params, batch, jax.random.key(1))[0]
  assert loss != loss_of(params, batch, jax.random.key(2))[0]
  codes = method.encode(params, x)
  assert len(codes) == len(WEIGHTS)
  # Networks are encoded each for itself, and in parts.
  many = np.concatenate([x] * 12)
  found = method.encode(params, many)
  assert found.shape == (72, codes.shape[1])
  np.testing.assert_allclose(found[-6:], codes, rtol=1e-4, atol=1e-5)
  assert (method.reconstruct is None) == (name == "sne")
  if method.reconstruct is not None:
    assert method.reconstruct(params, x).shape == x.shape


def test_codes_of_sne_do_not_change_when_neurons_are_permuted():
  rng = np.random.default_rng(1)
  moved = np.stack([w[symmetry.draw_permutation(SPEC, rng)] for w in WEIGHTS])
  change = {}
  for name in ("sne", "sane"):
    method, params, _ = started(name)
    one, other = (
      method.encode(params, pretraining.prepared(described(name), w))
      for w in (WEIGHTS, moved)
    )
    change[name] = np.abs(one - other).max() / np.abs(one).max()
  assert change["sne"] < 1e-4
  assert change["sane"] > 1e-3  # The control.


def test_networks_are_standardised_by_those_of_the_description_alone():
  description = described("sane")
  x = pretraining.prepared(description, WEIGHTS)
  assert abs(x.mean()) < 0.05 and abs(x.std() - 1) < 0.05
  shifted = pretraining.prepared(description, WEIGHTS + 10)
  assert shifted.mean() > 1  # Measured once; not on what is given.


def test_aligned_networks_do_not_depend_on_the_order_of_neurons():
  description = described("sane", align=True)
  rng = np.random.default_rng(1)
  moved = np.stack([w[symmetry.draw_permutation(SPEC, rng)] for w in WEIGHTS])
  assert np.abs(moved - WEIGHTS).max() > 0.1
  x, y = (pretraining.prepared(description, w) for w in (WEIGHTS, moved))
  np.testing.assert_array_equal(x[0], y[0])  # The reference itself.
  distance = lambda a: np.square(a - x[0]).sum()
  assert distance(x) < distance(
    pretraining.prepared(described("sane"), WEIGHTS)
  )


def test_the_first_view_can_be_canonical():
  first, second = methods.view_pair(described("sane"))
  assert first == second and first.permute
  first, second = methods.view_pair(described("sane", canonical_first=True))
  assert not first.permute and second.permute
  assert first.relative_noise == second.relative_noise == 0.1


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"table_tokens": 5}, "token positions has 5 entries.*needs 12"),
    ({"table_rows": 3}, "row positions has 3 entries.*needs 6"),
    ({"window": 8, "whole": True}, "12 tokens, more than the 8 of the window"),
    ({"whole": True}, "whole pads networks to the window, but window is 0"),
    ({"standardise": "twice"}, "standardise is 'twice'; choose one of"),
    ({"projection": 0}, "projection is 0; must be at least 1"),
  ],
)
def test_what_does_not_fit_is_refused(changes, words):
  with pytest.raises(ValueError, match=words):
    changes = {"projection": 4} | changes
    options = methods.PretrainOptions(**changes)
    description = described("sane")
    description["options"] = dataclasses.asdict(options)
    methods.build(description)


def test_a_folder_without_a_pretraining_is_named(tmp_path):
  with pytest.raises(ValueError, match="holds no pretrained.json; name the"):
    pretraining.Pretrained.load(tmp_path)
  path = tmp_path / pretraining.FILE
  path.write_text(json.dumps(described("sane")))
  with pytest.raises(ValueError, match="has not finished"):
    pretraining.Pretrained.load(tmp_path)
