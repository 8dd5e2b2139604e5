"""In which order the layers of a plain network stand, or what asks for it."""

import json
import re

import pytest

from sne_jax.networks import inference
from tests.networks.inference.plain_networks import (
  draw,
  holds,
  infer,
  layer,
  levels,
  linear,
  named,
  relu,
)


def test_the_order_of_numbers_counts_for_more_than_that_of_a_file():
  shapes = named(
    l__2=layer(9, 7), l__1=layer(7, 7), l__0=layer(7, 4), l__3=layer(2, 9)
  )

  def run(t, x):
    for place in range(4):
      x = linear(t, f"l.{place}", relu(x))
    return x

  found = holds(shapes, "torch", run, (3, 4))
  assert [t.level for t in found.spec.tensors] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_layers_that_are_made_in_another_order_than_used():
  """As many in- as outputs: the file's order fits, and is not the true one."""
  shapes = named(top=layer(4, 16), low=layer(16, 4))
  run = lambda t, x: linear(t, "top", relu(linear(t, "low", x)))
  found = holds(shapes, "torch", lambda t, x: run(t, x), (3, 4), None)
  assert not found.spec.groups
  assert any('{"order": ["low", "top"]}' in guess for guess in found.guesses)
  settled = {"order": ["low", "top"]}
  assert len(holds(shapes, "torch", run, (3, 4), settled).spec.groups) == 1
  # What is called an output is one.
  shapes = named(out=layer(4, 16), low=layer(16, 4))
  run = lambda t, x: linear(t, "out", relu(linear(t, "low", x)))
  assert len(holds(shapes, "torch", run, (3, 4)).spec.groups) == 1


def test_many_kinds_of_names():
  """More kinds than orders are tried for: what begins may be any of them."""
  names = ["a", "b", "c", "d", "e", "f", "g"]
  shapes = named(**dict.fromkeys(names, layer(4, 4)), z=layer(4, 4))
  assert not infer(shapes, "torch").spec.groups
  tensors = draw(shapes)
  assert set(infer(shapes, "torch", tensors=tensors).left_out) == set()


def test_layers_may_stand_by_number_rather_than_by_kind():
  # conv0, pw0, conv1 fits, and so does pw0, conv0, conv1.
  shapes = {
    "conv0.weight": (6, 1, 3, 3),
    "conv1.weight": (8, 6, 3, 3),
    "fc.weight": (3, 8),
    "pw0.weight": (6, 6, 1, 1),
  }
  with pytest.raises(inference.AmbiguousError, match="more than one order"):
    infer(shapes, "safetensors")
  order = ["conv0", "pw0", "conv1", "fc"]
  found = inference.infer(
    shapes, framework="safetensors", override={"order": order}
  )
  levels = [found.spec.tensor(f"{name}.weight").level for name in order]
  assert levels == [0, 1, 2, 3]


def dense(*layers):
  """Dense layers: (name, out, in)."""
  shapes = {f"{name}.weight": (out, into) for name, out, into in layers}
  return shapes | {f"{name}.bias": (out,) for name, out, _ in layers}


def test_a_layer_without_a_number_may_be_the_last():
  # Sorted by name, `fc` comes before `fc1`.
  shapes = dense(("fc1", 4, 3), ("fc", 3, 4))
  assert levels(infer(shapes, "torch"), "fc1", "fc") == [0, 1]
  with pytest.raises(inference.AmbiguousError, match="more than one order"):
    infer(dict(sorted(shapes.items())), "safetensors")
  # Made first, it may still be used last.
  with pytest.raises(inference.AmbiguousError, match="more than one order"):
    infer(dict(sorted(shapes.items())), "torch")
  apart = dense(("fc", 3, 4), ("fc1", 4, 5))
  assert levels(infer(apart, "safetensors"), "fc1", "fc") == [0, 1]


def test_an_output_between_other_layers_is_no_chain():
  shapes = dense(("layers.0", 4, 3), ("extra", 4, 3), ("out", 3, 4))
  with pytest.raises(inference.AmbiguousError, match="stands between others"):
    infer(shapes, "torch")
  order = ["extra", "out", "layers.0"]
  found = inference.infer(shapes, framework="torch", override={"order": order})
  assert levels(found, *order) == [0, 1, 2]
  # Nor if they stand in just this order in the file: it was made so.
  shapes = dense(*((n, *shapes[f"{n}.weight"]) for n in order))
  with pytest.raises(inference.AmbiguousError, match="stands between others"):
    infer(shapes, "torch")


def test_an_output_that_is_made_first_is_not_read_as_the_first():
  # out(concat(x, fc1(fc0(x)))): as a chain it would be 9 -> 3 -> 4 -> 6.
  shapes = dense(("out", 3, 9), ("fc0", 4, 3), ("fc1", 6, 4))
  for framework in ("torch", "safetensors"):
    with pytest.raises(inference.AmbiguousError, match="do not bear out"):
      infer(shapes, framework)
  # x -> blocks -> fc, where fc -> blocks would fit, too.
  shapes = dense(("fc", 3, 8), ("blocks.0.fc", 6, 3), ("blocks.1.fc", 8, 6))
  with pytest.raises(inference.AmbiguousError, match="more than one order"):
    infer(shapes, "torch")
  order = ["blocks.0.fc", "blocks.1.fc", "fc"]
  found = inference.infer(shapes, framework="torch", override={"order": order})
  assert levels(found, *order) == [0, 1, 2]
  # Of head, body and tail the head is the first.
  shapes = dense(("head", 8, 3), ("body.0", 8, 8), ("tail", 3, 8))
  assert levels(infer(shapes, "torch"), "head", "body.0", "tail") == [0, 1, 2]


def test_a_bare_last_layer_is_not_the_first_before_numbered_ones():
  # fc(concat(x, layers.0(x))): as a chain it would be 7 -> 3 -> 4.
  shapes = dense(("fc", 3, 7), ("layers.0", 4, 3))
  for framework in ("torch", "safetensors"):
    with pytest.raises(inference.AmbiguousError, match="do not bear out"):
      infer(shapes, framework)
  point = {"fc.weight": (3, 7, 1, 1), "conv0.weight": (4, 3, 3, 3)}
  with pytest.raises(inference.AmbiguousError, match="do not bear out"):
    infer(point, "torch")
  order = ["fc", "layers.0"]
  found = inference.infer(shapes, framework="torch", override={"order": order})
  assert levels(found, *order) == [0, 1]
  # Images, and what is called an input, may begin so.
  shapes = named(conv=layer(4, 1, 3, 3), fc1=layer(8, 4), fc2=layer(3, 8))
  assert levels(infer(shapes, "torch"), "conv", "fc1", "fc2") == [0, 1, 2]
  shapes = dense(("input", 4, 7), ("layers.0", 5, 4))
  assert levels(infer(shapes, "torch"), "input", "layers.0") == [0, 1]


def test_a_last_layer_that_is_made_first_keeps_its_number():
  # fc3(concat(x, fc2(fc1(x)))): as a chain it would be 7 -> 3 -> 4 -> 4.
  shapes = dense(("fc3", 3, 7), ("fc1", 4, 3), ("fc2", 4, 4))
  with pytest.raises(inference.AmbiguousError, match="numbers that fall"):
    infer(shapes, "torch")
  order = ["fc3", "fc1", "fc2"]
  found = inference.infer(shapes, framework="torch", override={"order": order})
  assert levels(found, *order) == [0, 1, 2]


def test_a_bare_name_is_not_the_first_in_the_order_of_a_file_alone():
  # fc(concat(x, fc2(fc1(x)))), with fc made first.
  shapes = dense(("fc", 3, 7), ("fc1", 4, 3), ("fc2", 4, 4))
  with pytest.raises(inference.AmbiguousError, match="before its like"):
    infer(shapes, "torch")
  order = ["fc", "fc1", "fc2"]
  found = inference.infer(shapes, framework="torch", override={"order": order})
  assert levels(found, *order) == [0, 1, 2]


def test_lists_of_a_tree_are_told_apart_by_their_names():
  """A bare number does not say which list it counts."""
  shapes = {
    "convs/0/kernel": (3, 3, 4, 8),
    "convs/0/bias": (8,),
    "deconvs/0/kernel": (2, 2, 8, 4),
    "deconvs/0/bias": (4,),
    "head/kernel": (8, 3),
    "head/bias": (3,),
  }
  with pytest.raises(inference.AmbiguousError, match="more than one order"):
    infer(shapes, "orbax", {"flatten": "channels_last"})


@pytest.mark.parametrize(
  "names",
  [
    ("convs.0", "pws.0", "convs.1"),
    ("as.0", "as.1", "bs.0", "as.2", "bs.1"),
    ("x.lins.0", "x.lins.1", "x.outs.0", "x.lins.2"),
  ],
)
def test_lists_by_kind_may_alternate(names):
  shapes = dense(*((name, 4, 4) for name in sorted(names)), ("fc", 3, 4))
  for framework in ("torch", "safetensors"):
    with pytest.raises(inference.AmbiguousError, match="more than one order"):
      infer(shapes, framework)
  order = [*names, "fc"]
  found = inference.infer(shapes, framework="torch", override={"order": order})
  assert levels(found, *order) == [*range(len(order))]
  # Widths that leave one way settle it.
  widths = range(9, 9 - len(names), -1)
  apart = [(n, w - 1, w) for n, w in zip(names, widths, strict=True)]
  names = sorted(names)
  apart = [(n, *shape) for n, (_, *shape) in zip(names, apart, strict=True)]
  apart = dense(*apart, ("fc", 3, apart[-1][1]))
  assert levels(infer(apart, "torch"), *names) == [*range(len(names))]


@pytest.mark.parametrize("framework", ["flax", "orbax"])
def test_numbers_of_nested_calls_count_from_the_outermost(framework):
  """Dense(8)(relu(Dense(16)(x))) makes `Dense_0` of the last layer."""

  def kernels(*sizes):
    return {f"params/Dense_{i}/kernel": size for i, size in enumerate(sizes)}

  # A chain 16, 8, 16 by number, and 8, 16, 8 by calls; two blocks likewise.
  for sizes in (((16, 8), (8, 16)), ((16, 8), (8, 16)) * 2):
    with pytest.raises(
      inference.AmbiguousError, match="more than one order"
    ) as info:
      infer(kernels(*sizes), framework)
    for text in re.findall(r'{"order": \[.*?\]}', str(info.value)):
      found = infer(kernels(*sizes), framework, json.loads(text))
      assert found.spec.num_levels == len(sizes)
  # What fits by calls alone is named, not taken.
  with pytest.raises(
    inference.AmbiguousError, match=r'"Dense_1", "Dense_0"\]} would fit'
  ):
    infer(kernels((8, 3), (5, 8)), framework)
  # Of one width the claims hold either way, and the doubt is said.
  found = infer(kernels((5, 8), (8, 8), (8, 8), (8, 3)), framework)
  assert any("from the outermost" in guess for guess in found.guesses)
  deep = [(16, 8), (8, 16)] * 30
  with pytest.raises(inference.AmbiguousError, match="more than one order"):
    infer(kernels(*deep), framework)
  # Numbers that leave no other way, and names that a person gave, are orders.
  assert len(infer(kernels((5, 8), (8, 7), (7, 3)), framework).spec.groups) == 2
  own = {"params/fc0/kernel": (16, 8), "params/fc1/kernel": (8, 16)}
  assert len(infer(own, framework).spec.groups) == 1


def test_lists_of_transposed_and_other_convolutions_may_alternate():
  # `deconvs.0` as [out, h, w, in] of MLX would fit after `convs.0`.
  shapes = {
    "convs.0.weight": (6, 6, 1, 1),
    "convs.1.bias": (6,),
    "convs.1.weight": (6, 6, 3, 3),
    "deconvs.0.weight": (3, 6, 2, 2),
    "deconvs.1.weight": (6, 6, 2, 2),
    "fcs.0.bias": (6,),
    "fcs.0.weight": (6, 3456),
    "head.weight": (3, 6),
  }
  with pytest.raises(inference.AmbiguousError, match="more than one order"):
    infer(shapes, "safetensors")


def test_lists_of_one_sequence_each_do_not_alternate():
  names = ("phi.0", "phi.2", "rho.0", "rho.2", "rho.4")
  shapes = dense(*((name, 4, 4) for name in names))
  assert levels(infer(shapes, "torch"), *names) == [0, 1, 2, 3, 4]


def test_numbers_that_count_all_layers_are_their_order():
  # conv2 + an input joined to it: deconv3 would fit before it.
  shapes = {
    "deconv1.weight": (1, 8, 2),
    "conv2.weight": (8, 8, 3),
    "deconv3.weight": (16, 8, 2),
    "fc4.weight": (3, 8),
  }
  for framework in ("torch", "safetensors"):
    with pytest.raises(inference.AmbiguousError, match="in no order"):
      infer(shapes, framework)
  shapes = dense(("b2", 4, 4), ("a1", 4, 4), ("b4", 4, 4), ("c3", 4, 4))
  order = ("a1", "b2", "c3", "b4")
  assert levels(infer(shapes, "safetensors"), *order) == [0, 1, 2, 3]


def test_an_order_that_is_not_the_file_s_is_asked_for():
  names = ("c1", "p1", "c2", "p2")
  shapes = dense(*((name, 4, 4) for name in names), ("out", 3, 4))
  order = ("out", "c1", "p1", "c2", "p2")  # Made first, and used last.
  moved = dense(*((n, *shapes[f"{n}.weight"]) for n in order))
  with pytest.raises(inference.AmbiguousError, match="more than one order"):
    infer(moved, "torch")
  assert levels(infer(shapes, "torch"), *names, "out") == [0, 1, 2, 3, 4]
