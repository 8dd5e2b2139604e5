"""Weight norm, spectral norm and masks are multiplied out, and written back."""

import importlib

import numpy as np
import pytest

from sne_jax import checkpoints, errors
from tests.checkpoints import samples

RNG = np.random.default_rng(0)


def draw(*shape, dtype=np.float32):
  return RNG.normal(size=shape).astype(dtype)


def save(path, arrays):
  if path.suffix == ".pt":
    path.write_bytes(samples.torch_bytes(samples.state_dict(arrays)))
  elif path.suffix == ".msgpack":
    path.write_bytes(samples.flax_bytes(arrays))
  else:
    path.write_bytes(samples.safetensors_bytes(arrays))
  return path


def lengths(v, axis):
  """The norms over all axes but one, or over all."""
  axes = tuple(a for a in range(v.ndim) if a != axis)
  return np.sqrt(np.square(v.astype(np.float64)).sum(axes, keepdims=True))


def normed(v, axis):
  """Direction, length, and their product."""
  g = np.abs(draw(*lengths(v, axis).shape)) + 0.5
  return {"g": g, "v": v}, v * (g / lengths(v, axis))


STYLES = {
  "old": {"g": "0.weight_g", "v": "0.weight_v"},
  "new": {
    "g": "0.parametrizations.weight.original0",
    "v": "0.parametrizations.weight.original1",
  },
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
  ("shape", "axis"),
  [((4, 3), 0), ((4, 3), 1), ((4, 3), None), ((4, 3, 3, 3), 0),
   ((3, 4, 2), 1), ((4, 1), 0), ((1, 4), 0)],
)  # fmt: skip
def test_weight_norm_of_any_axis(style, suffix, shape, axis, tmp_path):
  parts, want = normed(draw(*shape), axis)
  if axis is None and style == "old":
    parts["g"] = parts["g"].reshape(())  # As `dim=None` of PyTorch keeps it.
  named = {STYLES[style][part]: array for part, array in parts.items()}
  path = save(tmp_path / f"a{suffix}", {"0.bias": draw(shape[0]), **named})
  found = checkpoints.read(path)
  assert sorted(found.entries) == ["0.bias", "0.weight"]
  entry = found.entries["0.weight"]
  assert entry.shape == shape and entry.dtype == "float32"
  np.testing.assert_allclose(entry.read(), want, rtol=3e-7)
  assert found.metadata["computed"] == "0.weight by weight norm"


def spectral(weight, axis, noise=0.0):
  """W, u and v of spectral norm, iterated, and the quotient."""
  matrix = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
  left, _, right = np.linalg.svd(matrix.astype(np.float64))
  u, v = left[:, 0], right[0]
  u = u + noise * draw(*u.shape)
  u, v = (a.astype(np.float32) for a in (u / np.linalg.norm(u), v))
  return {"orig": weight, "u": u, "v": v}, weight / (u @ matrix @ v)


SPECTRAL = {
  "old": {p: f"0.weight_{p}" for p in ("orig", "u", "v")},
  "new": {
    "orig": "0.parametrizations.weight.original",
    "u": "0.parametrizations.weight.0._u",
    "v": "0.parametrizations.weight.0._v",
  },
}


@pytest.mark.parametrize("style", SPECTRAL)
@pytest.mark.parametrize(
  ("shape", "axis"),
  [((4, 3), 0), ((4, 4), 0), ((4, 4), 1), ((4, 3, 3, 3), 0),
   ((3, 4, 2, 2), 1), ((4, 4, 3), 0), ((4, 4, 3), 1)],
)  # fmt: skip
def test_spectral_norm_of_any_axis(style, shape, axis, tmp_path):
  parts, want = spectral(draw(*shape), axis, noise=0.1)
  named = {SPECTRAL[style][part]: array for part, array in parts.items()}
  found = checkpoints.read(save(tmp_path / "a.pt", named))
  assert list(found.entries) == ["0.weight"]
  got = found.entries["0.weight"].read()
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_an_axis_that_nothing_settles_is_asked_for(tmp_path):
  whole, v = draw(4, 4, 3), draw(12)
  ways = [np.moveaxis(whole, axis, 0).reshape(4, 12) @ v for axis in (0, 1)]
  u = sum(way / np.linalg.norm(way) for way in ways)  # As near to both.
  arrays = {"0.weight_orig": whole, "0.weight_u": u, "0.weight_v": v}
  found = checkpoints.read(save(tmp_path / "a.pt", arrays))
  with pytest.raises(errors.CheckpointError, match="axis of 4 is settled"):
    found.entries["0.weight"].read()


def test_pruned_weights_are_those_that_are_left(tmp_path):
  whole, mask = draw(4, 3), (RNG.random((4, 3)) > 0.5).astype(np.float32)
  arrays = {"0.bias": draw(4), "0.weight_orig": whole, "0.weight_mask": mask}
  found = checkpoints.read(save(tmp_path / "a.pt", arrays))
  np.testing.assert_array_equal(found.entries["0.weight"].read(), whole * mask)
  assert list(found.entries) == ["0.bias", "0.weight"]


def test_weight_norm_of_flax(tmp_path):
  kernel, scale = draw(3, 4), np.abs(draw(4)) + 1
  tree = {
    "params": {
      "Dense_0": {"kernel": kernel, "bias": draw(4)},
      "WeightNorm_0": {"Dense_0/kernel/scale": scale},
    }
  }
  found = checkpoints.read(save(tmp_path / "a.msgpack", tree))
  name = "params/Dense_0/kernel"
  assert sorted(found.entries) == ["params/Dense_0/bias", name]
  want = kernel * scale / np.linalg.norm(kernel, axis=0)
  np.testing.assert_allclose(found.entries[name].read(), want, rtol=1e-6)


def test_weight_norm_of_flax_in_orbax(tmp_path):
  ocp = pytest.importorskip("orbax.checkpoint")
  kernel, scale = draw(3, 4), np.abs(draw(4)) + 1
  tree = {
    "params": {
      "Dense_0": {"kernel": kernel},
      "WeightNorm_0": {"Dense_0/kernel/scale": scale},
    }
  }
  with ocp.StandardCheckpointer() as saver:
    saver.save(tmp_path / "saved", tree)
  found = checkpoints.read(tmp_path / "saved")
  want = kernel * scale / np.linalg.norm(kernel, axis=0)
  (entry,) = found.entries.values()
  np.testing.assert_allclose(entry.read(), want, rtol=1e-6)


def test_spectral_norm_of_flax_is_a_doubt(tmp_path):
  tree = {
    "params": {"Dense_0": {"kernel": draw(3, 4), "bias": draw(4)}},
    "batch_stats": {
      "SpectralNorm_0": {
        "Dense_0/kernel/u": draw(1, 4),
        "Dense_0/kernel/sigma": np.float32(2).reshape(()),
      }
    },
  }
  path = save(tmp_path / "a.msgpack", tree)
  with pytest.raises(errors.CheckpointError, match="in as many steps"):
    checkpoints.load(path)


def test_half_and_double_keep_their_dtypes(tmp_path):
  for dtype, rtol in ((np.float16, 2e-3), (np.float64, 1e-12)):
    v = draw(4, 3).astype(dtype)
    parts, want = normed(v, 0)
    arrays = {"0.weight_g": parts["g"].astype(dtype), "0.weight_v": v}
    path = save(tmp_path / f"{np.dtype(dtype)}.pt", arrays)
    entry = checkpoints.read(path).entries["0.weight"]
    assert entry.dtype == np.dtype(dtype).name
    np.testing.assert_allclose(entry.read(), want, rtol=rtol)


def test_one_tensor_under_two_names_stays_one(tmp_path):
  v, g = samples.tensor(draw(4, 4)), samples.tensor(np.ones((4, 1), np.float32))
  other = samples.tensor(np.ones((4, 1), np.float32))
  obj = samples.Ordered(
    {
      **{"0.weight_g": g, "0.weight_v": v, "2.weight_g": g, "2.weight_v": v},
      **{"4.weight_g": other, "4.weight_v": v, "raw": v},
    }
  )
  (tmp_path / "a.pt").write_bytes(samples.torch_bytes(obj))
  found = checkpoints.read(tmp_path / "a.pt")
  ties = {name: entry.tied_to for name, entry in found.entries.items()}
  assert ties == {"0.weight": None, "2.weight": "0.weight", "4.weight": None,
                  "raw": None}  # fmt: skip


def mlp(style):
  """An MLP of 3-5-5-2 whose layers are reparametrised."""
  arrays, want = {}, {}
  for number, (rows, columns) in enumerate(((5, 3), (5, 5), (2, 5))):
    name = f"{2 * number}."
    weight = draw(rows, columns)
    if style in STYLES:
      parts, want[f"{name}weight"] = normed(weight, 0)
      names = STYLES[style]
    else:
      parts, want[f"{name}weight"] = spectral(weight, 0)
      names = SPECTRAL[style.removeprefix("spectral ")]
    want[f"{name}bias"] = arrays[f"{name}bias"] = draw(rows)
    arrays |= {names[p].replace("0.", name, 1): a for p, a in parts.items()}
  return arrays, want


@pytest.mark.parametrize("style", ["old", "new", "spectral old"])
def test_what_is_written_back_computes_the_same(style, tmp_path):
  arrays, want = mlp(style)
  path = save(tmp_path / "a.pt", arrays)
  network = checkpoints.load(path)
  weights = network.weights()
  assert network.spec.num_levels == 3 and len(network.spec.groups) == 2
  numbers = np.concatenate([array.ravel() for array in want.values()])
  np.testing.assert_allclose(np.sort(weights), np.sort(numbers), rtol=1e-5)
  moved = weights * 1.5
  for like in (None, network.tensors.entries):
    back = network.inferred.scatter(moved, like)
    assert sorted(back) == sorted(arrays)
    save(tmp_path / "b.pt", back)
    again = checkpoints.load(tmp_path / "b.pt")
    assert again.spec == network.spec
    np.testing.assert_allclose(again.weights(), moved, rtol=1e-5)


@pytest.mark.parametrize(
  ("extra", "words"),
  [
    ({"2.parametrizations.weight.original": (3, 4)}, "is code"),
    ({"2.parametrizations.weight.original": (3, 4),
      "2.parametrizations.weight.0.base": (3, 4)}, "is code"),
    ({"2.weight_orig": (3, 4)}, "is code"),
    ({"2.weight_g": (2, 1), "2.weight_v": (3, 4)}, "do not fit"),
    ({"2.weight_g": (3, 4), "2.weight_v": (3, 4)}, "do not fit"),
    ({"2.weight_orig": (3, 4), "2.weight_u": (5,), "2.weight_v": (4,)},
     "do not fit"),
    ({"2.weight": (3, 4), "2.weight_g": (3, 1), "2.weight_v": (3, 4)},
     "do not fit"),
  ],
)  # fmt: skip
def test_what_is_not_settled_is_refused_and_can_be_left_out(
  extra, words, tmp_path
):
  arrays = {"0.weight": draw(4, 3), "0.bias": draw(4), "2.bias": draw(3)}
  arrays |= {name: draw(*shape) for name, shape in extra.items()}
  path = save(tmp_path / "a.pt", arrays)
  assert len(checkpoints.read(path).entries) == len(arrays), "listed, though"
  with pytest.raises(errors.CheckpointError, match=words) as caught:
    checkpoints.load(path)
  line = str(caught.value)
  assert "\n" not in line and line.startswith(str(path))
  names = line.partition('"leave_out": [')[2].partition("]")[0].split(", ")
  remedy = {"leave_out": [name.strip('"') for name in names]}
  found = checkpoints.load(path, override=remedy)
  assert [t.shape for t in found.spec.tensors] == [(4, 3), (4,)]


def test_names_that_only_look_so_are_let_alone(tmp_path):
  arrays = {"g": draw(3), "v": draw(3), "a.b_g": draw(3, 1), "a.b_v": draw(3),
            "fc.weight_u": draw(3), "fc.weight_g": draw(3, 1)}  # fmt: skip
  found = checkpoints.read(save(tmp_path / "a.safetensors", arrays))
  assert list(found.entries) == list(arrays)
  assert not any(entry.doubt for entry in found.entries.values())


def test_what_is_multiplied_out_is_counted(tmp_path):
  arrays = {"0.weight_g": draw(4, 1), "0.weight_v": draw(4, 3)}
  path = save(tmp_path / "a.safetensors", arrays)
  # Parts of 64 bytes together; the result has 48.
  assert checkpoints.read(path, limits=checkpoints.Limits(max_total_bytes=64))
  with pytest.raises(errors.CheckpointError, match="max_total_bytes"):
    checkpoints.read(path, limits=checkpoints.Limits(max_total_bytes=63))


# With PyTorch, where it is installed -----------------------------------------


def torch_layers():
  torch = pytest.importorskip("torch")
  importlib.import_module("torch.nn.utils.prune")
  utils, new = torch.nn.utils, torch.nn.utils.parametrizations
  torch.manual_seed(0)
  nn = torch.nn
  made = {
    "old": utils.weight_norm(nn.Linear(3, 4)),
    "old, dim 1": utils.weight_norm(nn.Linear(3, 4), dim=1),
    "old, no dim": utils.weight_norm(nn.Linear(3, 4), dim=None),
    "new": new.weight_norm(nn.Conv2d(3, 4, 3)),
    "new, dim 1": new.weight_norm(nn.ConvTranspose2d(3, 4, 3), dim=1),
    "new, no dim": new.weight_norm(nn.Conv1d(3, 4, 3), dim=None),
    "spectral": utils.spectral_norm(nn.Linear(3, 4)),
    "spectral, square": utils.spectral_norm(nn.Conv2d(4, 4, 3)),
    "spectral, up": utils.spectral_norm(nn.ConvTranspose2d(4, 4, 3)),
    "spectral new": new.spectral_norm(nn.Linear(4, 4)),
    "spectral new, up": new.spectral_norm(nn.ConvTranspose1d(4, 4, 3)),
    "cell": utils.weight_norm(nn.LSTM(3, 4), "weight_hh_l0"),
    "pruned": utils.prune.random_unstructured(nn.Linear(3, 4), "weight", 0.5),
  }
  for name, layer in made.items():
    if "spectral" in name:  # Some steps of training, which iterate.
      for _ in range(3):
        layer(inputs(torch, name, layer))
    layer.eval()
  return torch, made


def inputs(torch, name, layer):
  channels = 4 if name.startswith("spectral ") or "spectral," in name else 3
  return torch.randn(2, channels, *[8] * (layer.weight.dim() - 2))


NAMES = (
  *("old", "old, dim 1", "old, no dim", "new", "new, dim 1", "new, no dim"),
  *("spectral", "spectral, square", "spectral, up"),
  *("spectral new", "spectral new, up", "cell", "pruned"),
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_weights_equal_those_of_torch(name, tmp_path):
  torch, made = torch_layers()
  layer = made[name]
  torch.save(layer.state_dict(), tmp_path / "a.pt")
  key = "weight_hh_l0" if name == "cell" else "weight"
  if name != "cell":  # Hooks compute the weights before a call.
    layer(inputs(torch, name, layer))
  want = getattr(layer, key).detach().numpy()
  got = checkpoints.read(tmp_path / "a.pt").entries[key].read()
  np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-7)
