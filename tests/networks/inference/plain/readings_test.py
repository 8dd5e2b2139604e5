"""Orders of layers and layouts of kernels: known, or asked for."""

import numpy as np
import pytest

from sne_jax.networks import inference
from tests.networks.inference.plain_networks import (
  conv,
  draw,
  holds,
  infer,
  layer,
  linear,
  named,
  relu,
)


def products(names):
  """The network `relu(x @ w) @ w ...`, kernels [in, out]."""

  def run(t, x):
    for place, name in enumerate(names):
      x = x @ np.float64(t[name]) + t.get(f"b{name[1:]}", 0)
      x = relu(x) if place < len(names) - 1 else x
    return x

  return run


def matrices(*widths):
  """Shapes of `w1, w2, ...` as [in, out]."""
  pairs = zip(widths, widths[1:], strict=False)
  return {f"w{place}": pair for place, pair in enumerate(pairs, start=1)}


def vectors(*widths):
  return {f"b{place}": (n,) for place, n in enumerate(widths, start=1)}


@pytest.mark.parametrize("framework", ["npz", "torch", "safetensors"])
@pytest.mark.parametrize("bias", [True, False])
def test_kernels_that_fit_one_way_are_read_that_way(framework, bias):
  shapes = matrices(4, 9, 9, 3)
  run = products([*shapes])
  shapes |= vectors(9, 9, 3) if bias else {}
  found = holds(shapes, framework, run, (5, 4))
  assert found.spec.tensor("w1").shape == (9, 4)
  assert [t.level for t in found.spec.tensors if len(t.shape) > 1] == [0, 1, 2]
  assert len(found.spec.groups) == 1


@pytest.mark.parametrize("framework", ["npz", "torch", "safetensors"])
@pytest.mark.parametrize(
  "widths", [(8, 8, 8, 8), (4, 16, 4), (6, 9, 6, 9, 6), (8, 8)]
)
def test_kernels_that_fit_both_ways_claim_nothing(framework, widths):
  shapes = matrices(*widths)
  found = infer(shapes, framework)
  assert not found.spec.groups
  hint = '{"layout": "out_in"} or {"layout": "in_out"}'
  assert any(hint in guess for guess in found.guesses)
  settled = {"layout": "in_out", "skips": []}
  run = products([*shapes])
  found = holds(shapes, framework, run, (5, widths[0]), settled)
  assert len(found.spec.groups) == len(widths) - 2 and not found.guesses
  assert found.spec.tensor("w1").shape == widths[1::-1]


def test_a_bias_tells_which_axis_is_the_outputs():
  shapes = matrices(4, 16, 4) | vectors(16, 4)
  found = holds(shapes, "npz", products(["w1", "w2"]), (5, 4))
  assert len(found.spec.groups) == 1
  # Of dense layers that are stored as [in, out] under the usual names, too.
  shapes = named(a={"weight": (4, 16), "bias": (16,)})
  shapes |= named(b={"weight": (16, 4), "bias": (4,)})

  def run(t, x):
    h = relu(x @ np.float64(t["a.weight"]) + t["a.bias"])
    return h @ np.float64(t["b.weight"]) + t["b.bias"]

  found = holds(shapes, "torch", run, (5, 4))
  assert [t.name for t in found.spec.tensors][0] == "a.weight"
  assert found.spec.tensor("a.weight").shape == (16, 4)


def decoder(count, transposed):
  def run(t, x):
    for place in range(count):
      x = conv(t, str(2 * place), x, transposed=place in transposed)
      x = relu(x) if place < count - 1 else x
    return x

  return run


def stored(*sizes, biases=()):
  """Shapes of convolutions `0, 2, ...`, and of their biases."""
  return {
    f"{2 * place}.weight": (*size, 3, 3) for place, size in enumerate(sizes)
  } | {f"{2 * place}.bias": (n,) for place, n in enumerate(biases)}


@pytest.mark.parametrize(
  ("shapes", "transposed", "groups"),
  [
    # Biases show all.
    (stored((8, 6), (6, 4), (4, 1), biases=(6, 4, 1)), (0, 1, 2), 2),
    (stored((6, 1), (9, 6), (9, 6), (6, 1), biases=(6, 9, 6, 1)), (2, 3), 3),
    # The next layer shows it: (9, 6) after 9 channels gives 6 or nothing.
    (stored((9, 1), (9, 6), (2, 6)), (1,), 2),
    # What is square may be the one or the other.
    (stored((9, 3), (9, 9), (9, 9), (2, 9)), (1,), 1),
    (stored((9, 3), (9, 9), (9, 9), (2, 9)), (), 1),
    (stored((8, 8), (8, 8), (8, 8)), (0, 1, 2), 0),
    # A last layer of one channel, or one for each of eight.
    (stored((8, 1), (8, 8), (8, 1)), (2,), 0),
    # Groups of channels, or a way back.
    (stored((8, 3), (8, 4), (2, 4)), (1,), 0),
  ],
)
def test_transposed_convolutions(shapes, transposed, groups):
  run = decoder(sum("weight" in name for name in shapes), transposed)
  first = shapes["0.weight"][0 if 0 in transposed else 1]
  found = holds(shapes, "torch", run, (2, first, 4, 4))
  assert len(found.spec.groups) == groups
  names = [f"{2 * place}.weight" for place in transposed]
  if any("transposed" in guess for guess in found.guesses) and names:
    settled = {"transposed": names}
    found = holds(shapes, "torch", run, (2, first, 4, 4), settled)
    assert len(found.spec.groups) == len(run_names(shapes)) - 1


def run_names(shapes):
  return [name for name in shapes if name.endswith("weight")]


def mlx(t, x):
  for place in range(2):
    x = relu(conv(t, f"layers.{place}", x, last=True))
  return linear(t, "fc", x.mean((2, 3)))


def test_kernels_of_mlx():
  """[out, height, width, in], in safetensors of the usual names."""
  shapes = named(
    layers__0=layer(8, 3, 3, 1), layers__1=layer(6, 3, 3, 8), fc=layer(2, 6)
  )
  found = holds(shapes, "safetensors", mlx, (2, 1, 5, 5))
  assert len(found.spec.groups) == 2
  assert found.spec.tensor("layers.1.weight").shape == (6, 8, 3, 3)
  # Three channels and a kernel of three places: which is which?
  shapes = named(
    layers__0=layer(3, 3, 3, 1), layers__1=layer(6, 3, 3, 3), fc=layer(2, 6)
  )
  narrow = named(
    layers__0=layer(3, 3, 3, 3), layers__1=layer(3, 3, 3, 3), fc=layer(2, 3)
  )
  found = holds(shapes, "safetensors", mlx, (2, 1, 5, 5))
  assert not found.spec.groups
  found = holds(narrow, "safetensors", mlx, (2, 3, 5, 5))
  assert not found.spec.groups
  assert any('or {"layout": "mlx"}' in guess for guess in found.guesses)
  settled = {"layout": "mlx", "skips": []}
  assert holds(narrow, "safetensors", mlx, (2, 3, 5, 5), settled).spec.groups


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
  found = holds(shapes, "torch", lambda t, x: run(t, x), (3, 4), NOTHING)
  assert not found.spec.groups
  assert any('{"order": ["low", "top"]}' in guess for guess in found.guesses)
  settled = {"order": ["low", "top"]}
  assert len(holds(shapes, "torch", run, (3, 4), settled).spec.groups) == 1
  # What is called an output is one.
  shapes = named(out=layer(4, 16), low=layer(16, 4))
  run = lambda t, x: linear(t, "out", relu(linear(t, "low", x)))
  assert len(holds(shapes, "torch", run, (3, 4)).spec.groups) == 1


NOTHING = None


def test_square_kernels_beside_swapped_ones():
  """`Sequential` of modules of one's own, which are `x @ weight + bias`."""
  parts = {"0": (4, 9), "2": (9, 9), "4": (9, 3)}
  shapes = {f"{n}.weight": size for n, size in parts.items()}
  shapes |= {f"{n}.bias": size[1:] for n, size in parts.items()}

  def run(t, x):
    for name in parts:
      x = relu(x) @ np.float64(t[f"{name}.weight"]) + t[f"{name}.bias"]
    return x

  assert len(holds(shapes, "torch", run, (5, 4)).spec.groups) == 1
  settled = {"layout": "in_out"}
  assert len(holds(shapes, "torch", run, (5, 4), settled).spec.groups) == 2


def test_what_fits_in_no_order_names_the_layout_that_does():
  shapes = {"gc1.weight": (14, 6), "gc2.weight": (6, 3)}
  with pytest.raises(inference.AmbiguousError) as error:
    infer(shapes, "torch")
  assert '{"layout": "in_out"} would fit' in str(error.value)
  found = infer(shapes, "torch", {"layout": "in_out"})
  assert found.spec.tensor("gc1.weight").shape == (6, 14)


def test_no_layout_is_named_that_makes_square_kernels_oblong():
  """Heads side by side, of one place each, are no chain of 64 x 1 places."""
  shapes = {
    "lin0.weight": (1, 64, 1, 1),
    "lin1.weight": (1, 96, 1, 1),
    "lin2.weight": (1, 32, 1, 1),
  }
  with pytest.raises(inference.AmbiguousError) as error:
    infer(shapes, "torch")
  assert "would fit" not in str(error.value)
  assert '{"opaque": true}' in str(error.value)


def test_layouts_that_there_are_not():
  with pytest.raises(ValueError, match="choose one of out_in"):
    infer(matrices(2, 3), "npz", {"layout": "rows"})


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


@pytest.mark.parametrize("last", [False, True])
def test_strips_are_flattened_in_no_known_order(last):
  """Sounds as images of one column; some code turns them before it reads."""
  shapes = {
    "conv1.weight": (6, 1, 5, 1),
    "conv2.weight": (8, 6, 3, 1),
    "head.weight": (3, 8 * 4),
  }

  def column(x, kernel):
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2], 2)
    return np.einsum("bitk,oik->bot", windows, kernel[..., 0])

  def run(t, x):
    for name in ("conv1", "conv2"):
      x = relu(column(x, t[f"{name}.weight"]))
    flat = (x.transpose(0, 2, 1) if last else x).reshape(len(x), -1)
    return flat @ t["head.weight"].T

  found = holds(shapes, "torch", run, (5, 1, 10))
  assert sorted(size for size, _ in found.spec.groups.values()) == [6]
  assert "order that is not known" in " ".join(found.guesses)
  way = "channels_last" if last else "channels_first"
  found = holds(shapes, "torch", run, (5, 1, 10), {"flatten": way})
  assert sorted(size for size, _ in found.spec.groups.values()) == [6, 8]


def dense(*layers):
  """Dense layers: (name, out, in)."""
  shapes = {f"{name}.weight": (out, into) for name, out, into in layers}
  return shapes | {f"{name}.bias": (out,) for name, out, _ in layers}


def levels(found, *names):
  return [found.spec.tensor(f"{name}.weight").level for name in names]


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


def test_a_projection_is_not_read_the_other_way_round():
  # x + point3(x) of 8 and 4 channels: as [in, out] `point3` would fit behind.
  shapes = {
    "conv1.weight": (8, 3, 3, 3),
    "conv2.weight": (4, 8, 3, 3),
    "conv3.weight": (4, 4, 3, 3),
    "point3.weight": (4, 8, 1, 1),
    "fc.weight": (3, 64),
  }
  for framework in ("torch", "safetensors"):
    with pytest.raises(inference.AmbiguousError, match="in no order"):
      infer(shapes, framework)
  swapped = {"transposed": ["point3.weight"], "order": []}
  swapped["order"] = ["conv1", "conv2", "conv3", "point3", "fc"]
  found = inference.infer(shapes, framework="torch", override=swapped)
  assert levels(found, *swapped["order"]) == [0, 1, 2, 3, 4]


def test_places_that_are_no_square_are_not_claimed():
  # 3 and 4 channels joined, of 16 places, are no 4 channels of 28.
  shapes = {"conv.weight": (4, 3, 3, 3), "out.weight": (3, 112)}
  found = infer(shapes, "torch")
  assert not found.spec.groups
  assert any('{"places": 28}' in guess for guess in found.guesses)
  settled = inference.infer(shapes, framework="torch", override={"places": 28})
  assert [*settled.spec.groups] == ["conv"]
  square = infer({**shapes, "out.weight": (3, 64)}, "torch")
  assert [*square.spec.groups] == ["conv"]


def test_one_channel_of_places_that_are_no_square_is_no_evidence():
  # fc reads x and conv(x): seven numbers are seven places of one channel, too.
  shapes = {
    "conv1.weight": (4, 3, 3, 3),
    "conv2.weight": (1, 4, 3, 3),
    "fc.weight": (3, 7),
  }
  with pytest.raises(inference.AmbiguousError, match="one channel of 7 places"):
    infer(shapes, "torch")
  found = infer(shapes, "torch", {"places": 7})
  assert levels(found, "conv1", "conv2", "fc") == [0, 1, 2]
  assert infer({**shapes, "fc.weight": (3, 9)}, "torch").spec.num_levels == 3


@pytest.mark.parametrize("count", [2, 3])
def test_a_few_places_of_a_sequence_may_be_statistics(count):
  # Mean and spread of each channel, one behind the other.
  shapes = {
    "conv.weight": (8, 5, 5),
    "fc.weight": (3, 8 * count),
    "fc.bias": (3,),
  }

  def run(t, x):
    windows = np.lib.stride_tricks.sliding_window_view(x, 5, 2)
    y = np.einsum("bilk,oik->bol", windows, np.float64(t["conv.weight"]))
    pools = [y.mean(-1), y.std(-1), y.max(-1)][:count]
    return linear(t, "fc", np.concatenate(pools, 1))

  found = holds(shapes, "torch", run, (4, 5, 9))
  assert any('"flatten": "channels_last"' in guess for guess in found.guesses)
  settled = {"flatten": "channels_last"}
  assert holds(shapes, "torch", run, (4, 5, 9), settled).spec.groups
  many = {**shapes, "fc.weight": (3, 8 * 4)}
  assert infer(many, "torch").spec.groups


def test_sequences_of_mlx_are_not_taken_for_granted():
  # A kernel [8, 1, 3] that reads what one of [3, 9, 1] gives, in MLX's way.
  shapes = {"fc.weight": (3, 9, 1), "conv0.weight": (8, 1, 3)}
  with pytest.raises(inference.AmbiguousError, match="in no order"):
    infer(shapes, "safetensors")
  found = inference.infer(
    shapes,
    framework="safetensors",
    override={"layout": "mlx", "order": ["fc", "conv0"]},
  )
  assert levels(found, "fc", "conv0") == [0, 1]


def test_an_order_that_is_not_the_file_s_is_asked_for():
  names = ("c1", "p1", "c2", "p2")
  shapes = dense(*((name, 4, 4) for name in names), ("out", 3, 4))
  order = ("out", "c1", "p1", "c2", "p2")  # Made first, and used last.
  moved = dense(*((n, *shapes[f"{n}.weight"]) for n in order))
  with pytest.raises(inference.AmbiguousError, match="more than one order"):
    infer(moved, "torch")
  assert levels(infer(shapes, "torch"), *names, "out") == [0, 1, 2, 3, 4]
