"""Orders of layers and layouts of kernels: known, or asked for."""

import json

import numpy as np
import pytest

from sne_jax.networks import inference
from tests.networks.inference.plain_networks import (
  conv,
  holds,
  infer,
  layer,
  levels,
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
  swapped = {"transposed": ["point3.weight"], "order": [], "places": 8}
  swapped["order"] = ["conv1", "conv2", "conv3", "point3", "fc"]
  found = inference.infer(shapes, framework="torch", override=swapped)
  assert levels(found, *swapped["order"]) == [0, 1, 2, 3, 4]


def test_a_kernel_of_one_place_is_no_oblong_one_of_mlx():
  # Two groups of 3 channels; as [out, h, w, in] it would be 3 by 1 places.
  shapes = {
    "layers.0.weight": (6, 3, 3, 3),
    "layers.0.bias": (6,),
    "layers.1.weight": (6, 3, 1, 1),
    "layers.1.bias": (6,),
    "out.weight": (3, 6),
  }
  for framework in ("torch", "safetensors"):
    with pytest.raises(
      inference.AmbiguousError, match='"groups": {"layers.1": 2}'
    ):
      infer(shapes, framework)
    found = inference.infer(
      shapes, framework=framework, override={"groups": {"layers.1": 2}}
    )
    assert found.spec.tensor("layers.1.weight").shape == (6, 3, 1, 1)


def test_oblong_kernels_of_mlx_are_asked_for():
  shapes = {"conv1.weight": (8, 3, 1, 3), "conv2.weight": (4, 3, 1, 8)}
  shapes |= {"conv1.bias": (8,), "conv2.bias": (4,)}
  with pytest.raises(inference.AmbiguousError, match='{"layout": "mlx"}'):
    infer(shapes, "safetensors")
  found = infer(shapes, "safetensors", {"layout": "mlx"})
  assert found.spec.tensor("conv2.weight").shape == (4, 8, 3, 1)


def test_places_that_are_no_square_are_refused():
  # 3 and 4 channels joined, of 16 places, are no 4 channels of 28.
  shapes = {"conv.weight": (4, 3, 3, 3), "out.weight": (3, 112)}
  with pytest.raises(inference.AmbiguousError, match='{"places": 28}'):
    infer(shapes, "torch")
  settled = inference.infer(shapes, framework="torch", override={"places": 28})
  assert [*settled.spec.groups] == ["conv"]
  square = infer({**shapes, "out.weight": (3, 64)}, "torch")
  assert [*square.spec.groups] == ["conv"]


def test_images_that_may_be_joined_before_a_flattening_are_not_claimed():
  # 8 of 9 places, or 4 and 8 joined, of 6; and 4 of 16, or 12 and 4 of 4.
  for inputs, last, wide, places in ((4, 8, 72, [3]), (12, 4, 64, [3, 3])):
    shapes = {
      "conv1.weight": (16, inputs, *places),
      "conv2.weight": (last, 16, *places),
      "fc.weight": (3, wide),
    }
    found = infer(shapes, "torch")
    assert not found.spec.groups
    hint = json.dumps({"places": wide // last})
    assert any(hint in guess for guess in found.guesses)
    settled = infer(shapes, "torch", json.loads(hint))
    assert len(settled.spec.groups) == 2
    # In a list numbered as a Sequential is, nothing is joined.
    names = {"conv1": "0", "conv2": "2", "fc": "5"}
    listed = {
      f"{names[name.split('.')[0]]}.weight": shape
      for name, shape in shapes.items()
    }
    assert len(infer(listed, "torch").spec.groups) == 2


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
