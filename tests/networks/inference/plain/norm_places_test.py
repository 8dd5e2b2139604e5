"""Norms stand where names, order and widths agree, and nowhere else."""

import numpy as np
import pytest

from sne_jax.networks import inference
from tests.networks.inference.plain_networks import (
  batch_norm,
  conv,
  group_norm,
  holds,
  infer,
  layer,
  linear,
  named,
  norm,
  relu,
)


def behind(found):
  """The layer that each norm belongs to, by the norm's name."""
  return {
    t.name.rpartition(".")[0]: t.of and t.of.removesuffix(".weight")
    for t in found.spec.tensors
    if t.kind == "norm_var"
  }


@pytest.mark.parametrize("framework", ["torch", "safetensors"])
@pytest.mark.parametrize(
  ("layers", "norms"),
  [
    (("convs.0", "convs.1"), ("norms.0", "norms.1")),
    (("fc1", "fc2"), ("bn1", "bn2")),
    (("body.lin_a0", "body.lin_a1"), ("body.n0", "body.n1")),
    (("enc.3.lin", "enc.4.lin"), ("bns.3", "bns.4")),
  ],
)
def test_norms_that_are_defined_after_all_layers(framework, layers, norms):
  """By the file's order both would be behind the last layer."""
  (a, b), (m, n) = layers, norms
  parts = {a: layer(16, 6), b: layer(16, 16), m: norm(16), n: norm(16)}
  shapes = named(**parts, head=layer(3, 16))

  def run(t, x):
    x = relu(batch_norm(t, m, linear(t, a, x)))
    return linear(t, "head", relu(batch_norm(t, n, linear(t, b, x))))

  found = holds(shapes, framework, run, (4, 6))
  assert behind(found) == {m: a, n: b}
  found = holds(shapes, framework, run, (4, 6), {"skips": []})
  assert len(found.spec.groups) == 2


@pytest.mark.parametrize("names", [("_0", "_1", "_3"), ("bn_in", "fc1", "fc2")])
def test_norms_before_the_first_layer_belong_to_the_inputs(names):
  first, one, two = (name.lstrip("_") for name in names)
  parts = (norm(6), layer(16, 6), layer(3, 16))
  shapes = named(**dict(zip(names, parts, strict=True)))

  def run(t, x):
    return linear(t, two, relu(linear(t, one, batch_norm(t, first, x))))

  for framework in ("torch", "safetensors"):
    found = holds(shapes, framework, run, (4, 6))
    assert behind(found) == {first: None}
    assert found.spec.tensor(f"{first}.bias").level == 0
    assert found.spec.tensor(f"{one}.weight").level == 1
    assert len(found.spec.groups) == 1


def preactivated(t, x):
  x = conv(t, "conv0", x)
  for place in (1, 2):
    x = conv(t, f"conv{place}", relu(batch_norm(t, f"bn{place}", x)))
  return linear(t, "fc", x.mean((2, 3)))


PREACTIVATED = named(
  conv0=layer(8, 3, 3, 3),
  bn1=norm(8),
  conv1=layer(8, 8, 3, 3),
  bn2=norm(8),
  conv2=layer(8, 8, 3, 3),
  fc=layer(4, 8),
)


def test_preactivation_is_read_off_the_order_of_a_file():
  found = holds(PREACTIVATED, "torch", preactivated, (2, 3, 4, 4))
  assert behind(found) == {"bn1": "conv0", "bn2": "conv1"}


def test_preactivation_without_an_order_is_refused():
  with pytest.raises(inference.AmbiguousError) as error:
    infer(dict(sorted(PREACTIVATED.items())), "safetensors")
  right = {"bn1": "conv0", "bn2": "conv1"}
  assert '{"norm_behind": {"bn1": "conv0", "bn2": "conv1"}}' in str(error.value)
  override = {"norm_behind": right, "skips": [], "layout": "out_in"}
  shape = (2, 3, 4, 4)
  found = holds(PREACTIVATED, "safetensors", preactivated, shape, override)
  assert behind(found) == right and len(found.spec.groups) == 3


def test_widths_tell_preactivation():
  """`bn1` of 3 channels fits before `conv1` alone."""
  shapes = named(
    bn1=norm(3),
    bn2=norm(8),
    conv1=layer(8, 3, 3, 3),
    conv2=layer(5, 8, 3, 3),
  )

  def run(t, x):
    x = conv(t, "conv1", relu(batch_norm(t, "bn1", x)))
    return conv(t, "conv2", relu(batch_norm(t, "bn2", x)))

  found = holds(shapes, "safetensors", run, (2, 3, 4, 4))
  assert behind(found) == {"bn1": None, "bn2": "conv1"}


def test_a_layer_has_one_norm():
  """Two norms, two hidden layers: each has one, whatever they are called."""
  shapes = named(
    a=layer(9, 4), b=layer(9, 9), out=layer(2, 9), first=norm(9), second=norm(9)
  )
  found = infer(shapes, "torch", {"order": ["a", "b", "out"]})
  assert behind(found) == {"first": "a", "second": "b"}
  three = shapes | named(third=norm(9))
  with pytest.raises(inference.AmbiguousError, match="no place for the norms"):
    infer(three, "torch", {"order": ["a", "b", "out"]})


def test_norms_by_hand():
  shapes = named(fc1=layer(6, 6), fc2=layer(6, 6), norm=norm(6))
  with pytest.raises(inference.AmbiguousError, match='{"norm_behind": {"norm"'):
    infer(shapes, "safetensors")
  for layer_name, of in (("", None), ("fc1", "fc1"), ("fc2", "fc2")):
    override = {"norm_behind": {"norm": layer_name}}
    assert behind(infer(shapes, "safetensors", override)) == {"norm": of}
  for wrong, said in (({"norm": "fc3"}, "got 'fc3'"), ({"n": "fc1"}, "has n")):
    with pytest.raises(ValueError, match=said):
      infer(shapes, "safetensors", {"norm_behind": wrong})
  narrow = named(fc1=layer(5, 6), fc2=layer(2, 5), norm=norm(6))
  with pytest.raises(inference.AmbiguousError, match="6 channels does not fit"):
    infer(narrow, "torch", {"norm_behind": {"norm": "fc1"}})


@pytest.mark.parametrize(
  ("names", "alike"),
  [
    (("layers.0", "layers.1", "layers.3"), False),
    (("0", "1", "3"), False),
    (("layernorms.conv1", "layernorms.norm1", "out"), False),
    (("conv1", "bn1", "out"), False),
    (("conv1", "gn1", "out"), False),
    (("conv1", "layer_norm1", "out"), True),
    (("convs.0", "lns.0", "out"), True),
    (("body.conv", "body.LayerNorm", "out"), True),
  ],
)
@pytest.mark.parametrize("dense", [True, False])
def test_norms_of_groups_are_no_layer_norms(names, alike, dense):
  """The word must stand at the end of the module's own name."""
  one, middle, two = names
  kernel = () if dense else (3, 3)
  parts = {one: layer(8, 3, *kernel), middle: norm(8, running=False)}
  shapes = named(**parts, **{two: layer(2, 8, *kernel)})
  play = linear if dense else conv
  shape = (4, 3) if dense else (2, 3, 4, 4)

  def run(t, x, groups=1 if alike else 4):
    x = group_norm(t, middle, play(t, one, x), groups)
    return play(t, two, relu(x))

  found = holds(shapes, "torch", run, shape)
  assert bool(found.spec.groups) == alike
  if not alike:
    hint = f'{{"norm_groups": {{"{middle}": 1}}}}'
    assert any(hint in guess for guess in found.guesses)
    known = {"norm_groups": {middle: 4}}
    assert holds(shapes, "torch", run, shape, known).spec.groups


def test_a_scale_alone_is_no_norm_of_groups():
  """`PReLU` of one number, or of one for each neuron."""
  run = lambda t, x: linear(
    t, "2", np.where((h := linear(t, "0", x)) > 0, h, h * t["1.weight"])
  )
  for width in (1, 8):
    shapes = named(_0=layer(8, 3), _1={"weight": (width,)}, _2=layer(1, 8))
    found = holds(
      shapes,
      "torch",
      lambda t, x, w=width: run({"1.weight": np.full(w, 0.5)} | t, x),
      (4, 3),
    )
    assert len(found.spec.groups) == 1
    assert ("1.weight" in found.left_out) == (width == 1)


def test_norms_that_are_called_as_their_layers_are():
  """`w1, b1, gamma1, beta1` of NumPy: a layer and a norm."""
  shapes = {"w1": (4, 9), "b1": (9,), "w2": (9, 2), "b2": (2,)}
  statistics = dict.fromkeys(("gamma1", "beta1", "mean1", "var1"), (9,))

  def run(t, x):
    x = x @ np.float64(t["w1"]) + t["b1"] - t["mean1"]
    x = x / np.sqrt(t["var1"] + 1e-5) * t["gamma1"] + t["beta1"]
    return relu(x) @ np.float64(t["w2"]) + t["b2"]

  found = holds(shapes | statistics, "npz", run, (5, 4))
  assert len(found.spec.groups) == 1
  assert found.spec.tensor("var1").of == "w1"


def test_numbers_of_flax_count_each_kind():
  """`LayerNorm_0` may be behind `Dense_1`, but not if there is one for each."""
  shapes = {f"params/Dense_{i}/kernel": (8, 8) for i in (1, 2)}
  shapes |= {"params/Dense_0/kernel": (4, 8), "params/Dense_3/kernel": (8, 2)}
  one = {"params/LayerNorm_0/scale": (8,)}
  with pytest.raises(inference.AmbiguousError, match="more than one place"):
    infer(shapes | one, "flax")
  three = {f"params/LayerNorm_{i}/scale": (8,) for i in range(3)}
  levels = {t.name: t.level for t in infer(shapes | three, "flax").spec.tensors}
  assert [levels[name] for name in three] == [1, 3, 5]


@pytest.mark.parametrize("framework", ["torch", "safetensors", "npz"])
def test_a_norm_may_stand_on_what_a_layer_flattens(framework):
  """4 channels of 2 places are 8 numbers, as many as the layer gives."""
  shapes = named(
    conv1=layer(4, 3, 3), norm2=norm(8), fc2=layer(8, 8), fc3=layer(3, 8)
  )
  override = {"flatten": "channels_first"}
  with pytest.raises(
    inference.AmbiguousError, match="on all 8 numbers"
  ) as info:
    infer(shapes, framework, override)
  assert '{"norm_behind": {"norm2": "fc2"}}' in str(info.value)
  override["norm_behind"] = {"norm2": "fc2"}
  assert behind(infer(shapes, framework, override)) == {"norm2": "fc2"}
  # Of another size, or in a file whose order puts it behind, it is behind.
  shapes = named(
    conv1=layer(4, 3, 3), norm2=norm(9), fc2=layer(9, 8), fc3=layer(3, 9)
  )
  assert behind(infer(shapes, framework, override)) == {"norm2": "fc2"}
  shapes = named(
    conv1=layer(4, 3, 3), fc2=layer(8, 8), norm2=norm(8), fc3=layer(3, 8)
  )
  if framework == "torch":
    assert behind(infer(shapes, framework, {"flatten": "channels_first"}))
