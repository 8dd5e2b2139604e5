"""What is known of members before they are trained."""

import numpy as np

from sne_jax.zoo.classifiers import draws, properties
from sne_jax.zoo.classifiers import options as image_options

BUILT = ("depth", "widths", "kernels", "num_skips")


def test_how_a_network_is_built():
  options = image_options.ImageZooOptions(
    num_networks=30,
    architecture="wild_park,mlp,residual",
    members_per_architecture=2,
  )
  drawn = draws.draw_networks(options, (1, 8, 8), 10)
  numbers = np.array([4, 4, *range(30)])  # Two snapshots of one, first.
  found = properties.columns(drawn, "digits", numbers, np.arange(len(numbers)))
  shown = {"network": numbers, "epoch": np.arange(32)}
  for name, values in shown.items():
    np.testing.assert_array_equal(found[name], values)
  for place, number in enumerate(numbers):
    spec = drawn.specs[drawn.spec[number]]
    assert found["architecture"][place] == drawn.architecture[number]
    weights = [t for t in spec.tensors if t.name.endswith("weight")]
    kernels = [t.shape[2] for t in weights if len(t.shape) == 4]
    assert {name: found[name][place] for name in BUILT} == {
      "depth": len(weights),
      "widths": ",".join(str(t.shape[0]) for t in weights),
      "kernels": ",".join(map(str, kernels)) or "none",
      "num_skips": len(spec.skips),
    }
  by_name = dict(zip(found["architecture"], range(32), strict=True))
  residual = [found[name][by_name["residual"]] for name in BUILT]
  assert residual == [6, "16,16,16,16,16,10", "3,3,3,3,3", 2]
  mlp = [found[name][by_name["mlp"]] for name in BUILT]
  assert mlp == [3, "32,32,10", "none", 0]
  park = found["architecture"] == "wild_park"
  for name in BUILT:
    assert len(set(found[name][park])) > 1, name
  assert set(found) < set(properties.PROPERTIES)
