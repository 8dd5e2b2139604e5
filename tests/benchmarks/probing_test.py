"""The benchmark of learned inputs: both sides run the same networks."""

import numpy as np
import pytest

from benchmarks import probing, shapes
from sne_jax.networks import families

torch = pytest.importorskip("torch")

COUNT = 2  # Networks: a multiple of the simulated devices.


@pytest.mark.parametrize("name", ["inr", "arch1", "wild_park"])
def test_both_sides_run_the_same(name):
  networks = shapes.park(name, COUNT, 3)
  ours, theirs = probing.Ours(networks), probing.Theirs(networks)
  assert probing.check(ours, theirs) < probing.AGREE
  spec, vector = networks.specs[networks.numbers[0]], networks.weights[0]
  wanted = families.forward(spec, vector, networks.inputs)
  np.testing.assert_allclose(
    theirs.forward()[0].numpy(), wanted, rtol=1e-4, atol=1e-5
  )


def test_other_networks_are_found_out():
  networks = shapes.park("inr", COUNT, 3)
  other = networks._replace(weights=networks.weights[::-1])
  with pytest.raises(ValueError, match="outputs differ"):
    probing.check(probing.Ours(networks), probing.Theirs(other))
