"""First convolutions: of all channels, or of groups, as far as names tell."""

import pytest

from sne_jax.networks import inference


def groups_of(found, name):
  return [[f.group for f in axis] for axis in found.spec.tensor(name).axes]


def test_depthwise_and_grouped_convolutions():
  shapes = {
    "0.weight": (8, 3, 3, 3),
    "2.weight": (8, 1, 3, 3),
    "4.weight": (6, 4, 1, 1),
    "6.weight": (2, 6),
  }
  # Reading 4 of 8 channels could be groups, or the projection of a skip.
  with pytest.raises(inference.AmbiguousError, match='"groups": {"4": 2}'):
    inference.infer(shapes, framework="torch")
  wide = {**shapes, "4.weight": (6, 4, 3, 3)}
  found = inference.infer(wide, framework="torch")
  assert any("convolves each channel alone" in g for g in found.guesses)
  assert any('"groups": {"4": 2}' in g for g in found.guesses)
  assert groups_of(found, "0.weight")[0] == [None]
  found = inference.infer(
    shapes, framework="torch", override={"groups": {"4": 2}}
  )
  channels = found.spec.tensor("0.weight").axes[0]
  assert [f.size for f in channels] == [2, 4]
  assert found.spec.tensor("2.weight").axes[0] == channels
  assert groups_of(found, "2.weight")[1] == [None]
  assert groups_of(found, "4.weight")[1] == [channels[1].group]


GREY = {
  "conv1.weight": (32, 1, 3, 3),
  "conv1.bias": (32,),
  "conv2.weight": (64, 32, 3, 3),
  "conv2.bias": (64,),
  "fc.weight": (10, 1600),
  "fc.bias": (10,),
}


def test_a_first_layer_of_one_channel_reads_grey_images_and_says_so():
  found = inference.infer(GREY, framework="torch")
  assert groups_of(found, "conv1.weight")[0] == ["conv1"]
  doubts = [g for g in found.guesses if "'conv1' reads 1 channel" in g]
  assert len(doubts) == 1 and '{"groups": {"conv1": 1}} settles' in doubts[0]
  # Both remedies that it names work.
  settled = inference.infer(
    GREY, framework="torch", override={"groups": {"conv1": 1}}
  )
  assert groups_of(settled, "conv1.weight")[0] == ["conv1"]
  assert not any("conv1' reads" in g for g in settled.guesses)
  assert '{"groups": {"conv1": 32}}' in doubts[0]
  alone = inference.infer(
    GREY, framework="torch", override={"groups": {"conv1": 32}}
  )
  assert groups_of(alone, "conv1.weight")[0] == [None]
  assert groups_of(alone, "conv2.weight") == [["conv2"], [None], [None], [None]]
  assert not any("conv1' reads" in g for g in alone.guesses)


def test_images_of_three_channels_may_be_six_in_groups():
  shapes = {**GREY, "conv1.weight": (32, 3, 3, 3)}
  found = inference.infer(shapes, framework="torch")
  assert any("'conv1' reads 3 channels" in g for g in found.guesses)
  assert groups_of(found, "conv1.weight")[0] == ["conv1"]
  two = inference.infer(
    shapes, framework="torch", override={"groups": {"conv1": 2}}
  )
  (halves, inner), *_ = two.spec.tensor("conv1.weight").axes
  assert (halves.size, halves.group) == (2, None)
  assert inner.size == 16 and inner.group and inner.per is None


APART = {
  "few channels": {"conv1": (4, 1, 3, 3), "conv2": (64, 4, 3, 3)},
  "one place": {"conv1": (32, 1, 1, 1), "conv2": (64, 32, 3, 3)},
  "a point behind": {"conv1": (32, 1, 3, 3), "conv2": (64, 32, 1, 1)},
  "groups behind": {"conv1": (32, 1, 3, 3), "conv2": (64, 4, 3, 3)},
  "a name": {"dw": (32, 1, 3, 3), "conv2": (64, 32, 3, 3)},
}


@pytest.mark.parametrize("layers", APART.values(), ids=APART)
def test_a_first_layer_that_looks_depthwise_is_not_claimed(layers):
  layers = {**layers, "fc": (10, 1600)}
  shapes = {f"{name}.weight": shape for name, shape in layers.items()}
  shapes |= {f"{name}.bias": shape[:1] for name, shape in layers.items()}
  name = next(iter(layers))
  groups = {name: 1, "conv2": layers[name][0] // layers["conv2"][1]}
  found = inference.infer(
    shapes, framework="torch", override={"groups": {"conv2": groups["conv2"]}}
  )
  assert groups_of(found, f"{name}.weight")[0] == [None]
  assert any(f'"groups": {{"{name}": 1}}' in g for g in found.guesses)
  settled = inference.infer(
    shapes, framework="torch", override={"groups": groups}
  )
  assert groups_of(settled, f"{name}.weight")[0] != [None]
  assert not any(f"'{name}'" in g for g in settled.guesses)


@pytest.mark.parametrize(
  "others", [[(32, 16, 4, 4), (16, 3, 4, 4)], [(5, 32)]], ids=len
)
def test_a_first_transposed_layer_has_no_groups_to_name(others):
  kernels = [(10, 32, 4, 4), *others]
  shapes = {f"{2 * i}.weight": shape for i, shape in enumerate(kernels)}
  found = inference.infer(shapes, framework="torch")
  assert found.guesses == ()
  assert groups_of(found, "0.weight") == [["0"], [None], [None], [None]]
  assert ["0"] in groups_of(found, "2.weight")
