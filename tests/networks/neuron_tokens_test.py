"""Neuron tokens: what is in them by hand, and exact inverses."""

import numpy as np
import pytest

from sne_jax.networks import families, neuron_tokens

TINY = families.tiny_specs()
SMALL = families.architecture("schuerholt", (1, 28, 28))


@pytest.mark.parametrize("kind", neuron_tokens.KINDS)
@pytest.mark.parametrize("name", TINY)
def test_round_trip_is_exact_for_every_family(name, kind):
  spec = TINY[name]
  layout = neuron_tokens.layout(spec, kind)
  weights = np.random.default_rng(0).standard_normal((2, spec.num_weights))
  found = neuron_tokens.tokenise(layout, weights)
  np.testing.assert_array_equal(
    neuron_tokens.detokenise(layout, found), weights
  )


def test_tokens_of_a_small_network_by_hand():
  spec = families.mlp((2, 2, 1))
  # w0 = [[0, 1], [2, 3]], b0 = [4, 5], w1 = [[6, 7]], b1 = [8]
  weights = np.arange(9.0)
  rows = neuron_tokens.tokenise(neuron_tokens.layout(spec), weights)
  np.testing.assert_array_equal(rows[0], [[0, 1, 4], [2, 3, 5]])
  np.testing.assert_array_equal(rows[1], [[6, 7, 8]])
  layout = neuron_tokens.layout(spec, "neuron_in_out")
  both = neuron_tokens.tokenise(layout, weights)
  np.testing.assert_array_equal(both[0], [[0, 1, 4, 6], [2, 3, 5, 7]])
  np.testing.assert_array_equal(both[1], rows[1])
  # 6 is in two tokens: the inverse takes their mean; 8 is in one.
  changed = (both[0] + 1.0, both[1])
  found = neuron_tokens.detokenise(layout, changed)
  np.testing.assert_array_equal(found, [1, 2, 3, 4, 5, 6, 6.5, 7.5, 8])


def test_the_published_layouts():
  layout = neuron_tokens.layout(SMALL)
  assert (len(layout), SMALL.num_weights) == (48, 2464)
  assert [i.shape for i in layout.layers] == [
    *((8, 26), (6, 201), (4, 25), (20, 37), (10, 21))
  ]
  unterthiner = families.architecture("arch1", (1, 28, 28))
  assert len(neuron_tokens.layout(unterthiner)) == 58
  assert unterthiner.num_weights == 4970
  # Every weight is in one row; the published index file has some twice.
  for spec in (SMALL, unterthiner):
    index = neuron_tokens.layout(spec).layers
    flat = np.concatenate([i.reshape(-1) for i in index])
    assert sorted(flat.tolist()) == list(range(spec.num_weights))


def test_outgoing_weights_pass_a_flattening():
  spec = families.cnn((1, 5, 5), (2,), 2, num_classes=3, head="flatten")
  layout = neuron_tokens.layout(spec, "neuron_in_out")
  # 4 + 1 incoming; 3 classes read 16 places of each channel.
  assert layout.layers[0].shape == (2, 5 + 48)
  start = spec.offsets[2]
  channel = (layout.layers[0][:, 5:] - start) % 32 // 16
  np.testing.assert_array_equal(channel, [[0] * 48, [1] * 48])


def test_bad_input_is_named():
  layout = neuron_tokens.layout(SMALL)
  with pytest.raises(ValueError, match="unknown kind 'layer'"):
    neuron_tokens.layout(SMALL, "layer")
  with pytest.raises(ValueError, match="2464 weights"):
    neuron_tokens.tokenise(layout, np.zeros(3))
  found = neuron_tokens.tokenise(layout, np.zeros(2464))
  with pytest.raises(ValueError, match="do not fit"):
    neuron_tokens.detokenise(layout, found[1:])
