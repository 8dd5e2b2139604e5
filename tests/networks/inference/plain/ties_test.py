"""What a plain chain of layers may claim: nothing that a skip could break."""

import json
import math
import re

import numpy as np
import pytest

from sne_jax.networks import symmetry
from tests.networks.inference.plain_networks import (
  draw,
  holds,
  infer,
  layer,
  linear,
  relu,
)

FREE = {"skips": []}


def sizes(found):
  """Counts of neurons of the groups that may be permuted."""
  return sorted(size for size, _ in found.spec.groups.values())


def dense(names, *widths):
  pairs = zip(names, widths, widths[1:], strict=False)
  return {
    f"{name}.{part}": shape
    for name, into, out in pairs
    for part, shape in layer(out, into).items()
  }


@pytest.mark.parametrize("framework", ["torch", "safetensors"])
@pytest.mark.parametrize("names", ["fc{}", "layers.{}", "blocks.{}.lin"])
def test_a_skip_that_names_do_not_show(names, framework):
  """Hidden layers of one width are tied, whatever joins them."""
  names = [names.format(place) for place in range(5)]
  shapes = dense(names, 3, 8, 12, 8, 8, 2)

  def run(t, x, skips=((0, 2), (2, 3))):
    given = []
    for place, name in enumerate(names):
      x = linear(t, name, relu(x) if place else x)
      x = x + sum(given[a] for a, b in skips if b == place)
      given.append(x)
    return x

  found = holds(shapes, framework, run, (5, 3))
  assert sizes(found) == [8, 12] and set(found.reasons) == {names[0]}
  said = f"the 8 of {names[0]}, {names[2]}, {names[3]}"
  assert any(said in guess for guess in found.guesses)
  assert found.how == "guessed"
  plain = lambda t, x: run(t, x, skips=())
  found = holds(shapes, framework, plain, (5, 3), FREE)
  assert sizes(found) == [8, 8, 8, 12] and not found.guesses
  pairs = [[names[0], names[2]], [names[2], names[3]]]
  found = holds(shapes, framework, run, (5, 3), {"skips": pairs})
  assert sizes(found) == [8, 12]


@pytest.mark.parametrize("names", [("a", "b", "c"), ("l.0", "l.1", "l.2")])
def test_a_skip_from_the_inputs_or_to_the_outputs(names):
  shapes = dense(names, 6, 6, 9, 9)
  a, b, c = names

  def run(t, x):
    x = x + relu(linear(t, a, x))
    x = relu(linear(t, b, x))
    return linear(t, c, x) + x

  found = holds(shapes, "torch", run, (5, 6))
  assert not found.spec.groups
  assert any("as wide as in- or outputs" in guess for guess in found.guesses)


def test_a_skip_from_an_image_that_is_flattened():
  """As many numbers as a dense layer gives may be added to it."""
  shapes = {
    "conv.weight": (4, 3, 1, 1),
    "conv.bias": (4,),
    **dense(("fc1", "out"), 16, 16, 5),
  }

  def run(t, x):
    x = np.einsum("oi,nihw->nohw", t["conv.weight"][:, :, 0, 0], x)
    x = relu(x + t["conv.bias"][:, None, None]).reshape(len(x), 16)
    return linear(t, "out", relu(x + linear(t, "fc1", x)))

  found = holds(shapes, "torch", run, (5, 3, 2, 2))
  assert not found.spec.groups
  assert any("what is flattened" in guess for guess in found.guesses)
  wider = shapes | dense(("fc1", "out"), 16, 12, 5)
  assert sizes(infer(wider, "torch")) == [4, 12]


@pytest.mark.parametrize(
  "names", [("low", "mid", "out"), ("x.0", "x.1", "x.2")]
)
def test_a_layer_that_is_used_twice(names):
  """The file holds it once, or under two names."""
  first, twice, last = names
  shapes = dense(names, 4, 9, 9, 3)

  def run(t, x):
    x = relu(linear(t, first, x))
    for _ in range(2):
      x = relu(linear(t, twice, x))
    return linear(t, last, x)

  assert sizes(holds(shapes, "torch", run, (5, 4))) == [9]


def sequential(count, last):
  """A `Sequential`: layer 2 is used `count` times, under numbers of its own."""
  names = ["net.0", *(f"net.{2 * k + 2}" for k in range(count)), last]

  def run(t, x):
    for place, name in enumerate(names):
      x = linear(t, name, relu(x) if place else x)
    return x

  widths = (4, *(9,) * (count + 1), 3)
  return names, dense(names, *widths), run


def test_a_tensor_of_two_names_is_one_layer_used_twice():
  names, shapes, run = sequential(2, "net.6")
  tied = {
    f"{names[2]}.{part}": f"{names[1]}.{part}" for part in ("weight", "bias")
  }
  found = holds(shapes, "torch", run, (5, 4), tied=tied)
  assert sizes(found) == [9] and found.tied == tied
  levels = {t.name: t.level for t in found.spec.tensors}
  assert levels["net.6.weight"] == 3 and "net.4.weight" not in levels
  # Formats that keep no links: by the numbers.
  tensors = draw(shapes)
  for second, original in tied.items():
    tensors[second] = tensors[original]
  for framework in ("safetensors", "npz", "torch"):
    found = holds(shapes, framework, run, (5, 4), tensors=tensors)
    assert found.tied == tied and sizes(found) == [9]
  # What is all zeros is no copy.
  zeros = {name: np.zeros_like(array) for name, array in tensors.items()}
  assert not infer(shapes, "torch", tensors=zeros).tied


def test_a_second_name_that_a_file_dropped_leaves_a_gap():
  names, shapes, run = sequential(2, "net.6")
  kept = {n: s for n, s in shapes.items() if "net.4" not in n}

  def twice(t, x):
    again = {n.replace("2", "4"): a for n, a in t.items() if "net.2" in n}
    return run(t | again, x)

  assert sizes(holds(kept, "safetensors", twice, (5, 4))) == [9]


@pytest.mark.parametrize("framework", ["torch", "safetensors"])
@pytest.mark.parametrize("start", ["", "net.", "model.body."])
def test_a_sequential_is_free(start, framework):
  names = [f"{start}{place}" for place in (0, 2, 5)]
  shapes = dense(names, 4, 9, 9, 4)

  def run(t, x):
    for place, name in enumerate(names):
      x = linear(t, name, relu(x) if place else x)
    return x

  found = holds(shapes, framework, run, (5, 4))
  assert sizes(found) == [9, 9]
  (guess,) = found.guesses
  assert "no skips are expected" in guess
  settled = holds(shapes, framework, run, (5, 4), FREE)
  assert settled.spec == found.spec and not settled.guesses
  assert symmetry.log_order(found.spec) == pytest.approx(
    2 * math.log(math.factorial(9))
  )


@pytest.mark.parametrize("framework", ["torch", "safetensors"])
@pytest.mark.parametrize("start", ["", "layers."])
def test_skips_in_what_looks_like_a_sequential(start, framework):
  """No name shows them: it is said, and what is to be written holds."""
  names = [f"{start}{place}" for place in (0, 2, 4, 6)]

  def run(t, x, last=False):
    x = linear(t, names[0], x)
    for name in names[1:3]:
      x = x + linear(t, name, relu(x))
    return (x if last else 0) + linear(t, names[3], relu(x))

  for out in (3, 9):  # As wide as the outputs, these may be added to as well.
    shapes = dense(names, 5, 9, 9, 9, out)
    (guess,) = infer(shapes, framework).guesses
    *_, text = re.findall(r'\{"skips".*?\}', guess)
    given = json.loads(text)
    assert given["skips"][:2] == [names[:2], names[1:3]]
    found = holds(
      shapes, framework, lambda t, x, o=out: run(t, x, o > 3), (4, 5), given
    )
    assert sizes(found) == ([9] if out == 3 else [])
  # Of other widths nothing can be added.
  assert not infer(dense(names, 5, 9, 8, 7, 3), framework).guesses


def test_a_sequential_as_wide_as_its_inputs():
  shapes = dense(["0", "2"], 9, 9, 3)
  (guess,) = infer(shapes, "torch").guesses
  assert '{"opaque": true} if the inputs are' in guess


def test_square_kernels_of_a_sequential():
  """All square: [out, in] is a convention, and the other way can be said."""
  names = ["0", "2", "4"]
  shapes = dense(names, 9, 9, 9, 9)
  hints = '{"layout": "out_in"} settles it, or {"layout": "in_out"} if'

  def run(t, x):
    for place, name in enumerate(names):
      x = relu(x) if place else x
      x = x @ np.float64(t[f"{name}.weight"]) + t[f"{name}.bias"]
    return x

  found = infer(shapes, "torch")
  assert sizes(found) == [9, 9] and hints in " ".join(found.guesses)
  for way in ("in_out", "out_in"):
    settled = infer(shapes, "torch", {"layout": way, "skips": []})
    assert sizes(settled) == [9, 9] and not settled.guesses
  found = holds(shapes, "torch", run, (5, 9), {"layout": "in_out"})
  assert sizes(found) == [9, 9]
  # Kernels that are not square show it; what claims nothing needs no word.
  for widths in ((4, 9, 9, 9), (9, 9, 9, 4)):
    assert hints not in " ".join(infer(dense(names, *widths), "torch").guesses)
  names = ["fc1", "fc2", "fc3"]
  found = infer(dense(names, 9, 9, 9, 9), "torch")
  assert not found.spec.groups and hints not in " ".join(found.guesses)


def test_between_two_lists_a_skip_may_lead():
  names = ["encoder.0", "encoder.2", "decoder.0", "decoder.2", "head"]
  shapes = dense(names, 3, 9, 5, 9, 5, 2)

  def run(t, x):
    code = linear(t, names[1], relu(linear(t, names[0], x)))
    again = linear(t, names[3], relu(linear(t, names[2], code)))
    return linear(t, names[4], relu(code + again))

  assert sizes(holds(shapes, "torch", run, (5, 3))) == [5, 9, 9]


def test_lists_that_are_no_sequential():
  """Without gaps there may be skips; named parts are modules of one's own."""
  for names in (["n.0", "n.1", "n.2"], ["n.0.l", "n.2.l", "n.4.l"]):
    assert sizes(infer(dense(names, 4, 9, 9, 3), "torch")) == [9]
  # Neither lists of other frameworks nor arrays of other names are known.
  shapes = {
    f"{n}.w": s for n, s in zip("024", ((9, 4), (9, 9), (3, 9)), strict=True)
  }
  assert sizes(infer(shapes, "torch")) == [9]
  npz = {f"{name}eight": shape for name, shape in shapes.items()}
  assert sizes(infer(npz, "npz")) == [9]


def test_another_name_for_a_layer_of_a_list():
  """`self.first = self.net[0]` beside the list: one tensor, one use."""
  names, shapes, run = sequential(1, "net.4")
  shapes |= {f"first.{part}": s for part, s in layer(9, 4).items()}
  tied = {f"first.{part}": f"net.0.{part}" for part in ("weight", "bias")}
  found = holds(shapes, "torch", run, (5, 4), tied=tied)
  assert found.tied == tied
