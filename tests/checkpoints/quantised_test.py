"""Weights of few bits are read as what they stand for, or not at all."""

import ml_dtypes
import numpy as np
import pytest

from sne_jax import checkpoints, errors
from tests.checkpoints import samples

E4, E5 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2
RNG = np.random.default_rng(0)


def small(*shape, dtype=E4):
  if np.dtype(dtype).kind in "iu":
    return RNG.integers(-127, 127, shape).astype(dtype)
  return (RNG.normal(size=shape) * 50).astype(dtype)


def scale(*shape):
  return (RNG.random(shape) * 0.01 + 0.001).astype(np.float32)


def save(path, arrays):
  if path.suffix == ".pt":
    path.write_bytes(samples.torch_bytes(samples.state_dict(arrays)))
  else:
    path.write_bytes(samples.safetensors_bytes(arrays))
  return path


def spread(s, shape, block):
  """The scale of every number, one after the other."""
  out = np.empty(shape, np.float32)
  for at in np.ndindex(shape):
    out[at] = s[tuple(i // b for i, b in zip(at, block, strict=True))]
  return out


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("dtype", [E4, E5, np.int8])
@pytest.mark.parametrize(
  ("shape", "scales", "block"),
  [
    ((6, 4), (), (6, 4)),
    ((6, 4), (1,), (6, 4)),
    ((6, 4), (6,), (1, 4)),
    ((6, 4), (6, 1), (1, 4)),
    ((6, 4), (1, 4), (6, 1)),
    ((4, 4), (4,), (1, 4)),
    ((8, 4), (2, 2), (4, 2)),
    ((7, 10), (2, 3), (4, 4)),
    ((6, 64), (6, 2), (1, 32)),
    ((6, 4, 3, 3), (6, 1, 1, 1), (1, 4, 3, 3)),
    ((6, 4, 3, 3), (6,), (1, 4, 3, 3)),
    ((6,), (), (6,)),
  ],
)
def test_scales_of_tensors_channels_and_blocks(
  dtype, suffix, shape, scales, block, tmp_path
):
  w, s = small(*shape, dtype=dtype), scale(*scales)
  arrays = {"fc.weight": w, "fc.weight_scale": s}
  path = save(tmp_path / f"a{suffix}", arrays)
  if len(shape) == 1 and dtype is np.int8:
    return  # Whole numbers in a vector are no weights.
  found = checkpoints.read(path)
  assert list(found.entries) == ["fc.weight"]
  entry = found.entries["fc.weight"]
  assert entry.dtype == "float32" and entry.shape == shape
  if s.ndim < len(shape) or 1 in s.shape:
    padded = s.reshape(s.shape + (1,) * (len(shape) - s.ndim))
    padded = padded if s.size > 1 else s.reshape((1,) * len(shape))
    want = w.astype(np.float32) * padded
    if padded.shape[-1] not in (1, shape[-1]):
      want = w.astype(np.float32) * spread(s, shape, block)
  else:
    want = w.astype(np.float32) * spread(s, shape, block)
  np.testing.assert_array_equal(entry.read(), want)


@pytest.mark.parametrize(
  ("name", "beside", "result", "factor"),
  [
    ("a.weight", "a.weight_scale_inv", "a.weight", 1),
    ("a.weight", "a.scale_weight", "a.weight", 1),
    ("a.weight._data", "a.weight._scale", "a.weight", 1),
    ("weight", "weight_scale", "weight", 1),
    ("a.w1", "a.w1_scale", "a.w1", 1),
    ("a.in_proj_weight", "a.in_proj_weight_scale", "a.in_proj_weight", 1),
    ("a.weight", "a.SCB", "a.weight", 1 / 127),
  ],
)
def test_names_of_scales(name, beside, result, factor, tmp_path):
  w, s = small(6, 4, dtype=np.int8), scale(6)
  found = checkpoints.read(
    save(tmp_path / "a.safetensors", {name: w, beside: s, "b": scale(3)})
  )
  assert list(found.entries) == [result, "b"]
  want = w * (s * np.float32(factor))[:, None]
  np.testing.assert_allclose(found.entries[result].read(), want, rtol=1e-6)


def test_blocks_of_128_by_the_name_that_has_them(tmp_path):
  w, s = small(192, 130), scale(2, 2)
  path = save(tmp_path / "a.safetensors", {"w": w, "w_scale_inv": s})
  want = w.astype(np.float32) * spread(s, w.shape, (128, 128))
  got = checkpoints.read(path).entries["w"].read()
  np.testing.assert_array_equal(got, want)
  # By another name they might as well be two blocks of 96.
  path = save(tmp_path / "b.safetensors", {"w": w, "w_scale": s})
  with pytest.raises(errors.CheckpointError, match="what it belongs to"):
    checkpoints.load(path)


def test_a_zero_point_is_taken_off(tmp_path):
  w, s = small(6, 4, dtype=np.int8), scale(6, 1)
  zero = np.arange(6, dtype=np.int8).reshape(6, 1)
  arrays = {"a.weight": w, "a.weight_scale": s, "a.weight_zero_point": zero}
  found = checkpoints.read(save(tmp_path / "a.safetensors", arrays))
  want = (w.astype(np.float32) - zero) * s
  np.testing.assert_array_equal(found.entries["a.weight"].read(), want)


def mlp(dtype=E4, scales="weight_scale", shape=lambda rows: (rows,)):
  arrays = {}
  for name, (rows, columns) in {"fc1": (16, 6), "fc2": (4, 16)}.items():
    arrays[f"{name}.weight"] = small(rows, columns, dtype=dtype)
    arrays[f"{name}.{scales}"] = scale(*shape(rows))
    arrays[f"{name}.bias"] = scale(rows)
  return arrays


@pytest.mark.parametrize("dtype", [E4, E5, np.int8])
@pytest.mark.parametrize("shape", [lambda n: (n,), lambda n: ()])
def test_a_network_of_few_bits(dtype, shape, tmp_path):
  arrays = mlp(dtype, shape=shape)
  arrays |= {f"fc{n}.input_scale": scale() for n in (1, 2)}
  network = checkpoints.load(save(tmp_path / "a.safetensors", arrays))
  assert network.spec.num_weights == 16 * 7 + 4 * 17
  assert len(network.spec.tensors) == 4 and len(network.spec.groups) == 1
  said = network.tensors.metadata["left_out"]
  assert "fc1.input_scale (a scale of activations)" in said
  first = network.spec.unflatten(network.weights())
  s = arrays["fc1.weight_scale"].reshape(-1, 1)
  want = arrays["fc1.weight"].astype(np.float32) * s
  got = next(a for a in first.values() if a.shape == (16, 6))
  np.testing.assert_array_equal(got, want)


def test_nothing_is_rounded_anew(tmp_path):
  network = checkpoints.load(save(tmp_path / "a.safetensors", mlp()))
  weights = network.weights()
  with pytest.raises(ValueError, match="rounded anew; leave `like` out"):
    network.inferred.scatter(weights, network.tensors.entries)
  plain = network.inferred.scatter(weights)
  assert plain["fc1.weight"].dtype == np.float32
  np.testing.assert_array_equal(network.inferred.gather(plain), weights)


def test_plain_casts_are_numbers_as_they_are(tmp_path):
  arrays = {
    "0.weight": small(4, 3),
    "0.bias": small(4),
    "2.weight": small(2, 4),
  }
  network = checkpoints.load(save(tmp_path / "a.safetensors", arrays))
  assert network.spec.num_weights == 24
  assert network.tensors.entries["0.weight"].dtype == "float8_e4m3fn"


def doubts():
  """Arrays of a network whose first layer is in doubt, and words of it."""
  rest = {"fc2.weight": scale(16, 16), "fc3.weight": scale(4, 16)}
  w8, q8 = small(16, 6), small(16, 6, dtype=np.int8)
  ints = small(2, 16, dtype=np.int32)
  cases = {
    "scale": {"fc1.weight": w8, "fc1.scale": scale(16)},
    "amax": {"fc1.weight": w8, "fc1.amax": scale()},
    "wrong shape": {"fc1.weight": w8, "fc1.weight_scale": scale(6)},
    "two": {
      "fc1.weight": w8,
      "fc1.weight_scale": scale(16),
      "fc1.weight_scale_inv": scale(16),
    },
    "second": {
      "fc1.weight": w8,
      "fc1.weight_scale": scale(16),
      "fc1.weight_scale_2": scale(),
    },
    "zero point": {
      "fc1.weight": w8,
      "fc1.weight_scale": scale(16),
      "fc1.weight_zero_point": np.zeros(2, np.int8),
    },
    "no scale": {"fc1.weight": q8},
    "int16": {"fc1.weight": q8.astype(np.int16)},
    "int64": {"fc1.weight": q8.astype(np.int64)},
    "bool": {"fc1.weight": q8 > 0},
    "bytes": {"fc1.weight": q8.view(np.uint8), "fc1.weight_scale": q8[:, :1]},
    "gptq": {"fc1.qweight": ints, "fc1.qzeros": ints, "fc1.scales": scale(16)},
    "nf4": {
      "fc1.weight": q8.view(np.uint8).reshape(-1, 1),
      "fc1.weight.absmax": scale(3),
      "fc1.weight.quant_map": scale(16),
    },
    "packed": {
      "fc1.weight_packed": ints,
      "fc1.weight_packed_scale": scale(2),
    },
  }
  return {name: (arrays | rest) for name, arrays in cases.items()}


@pytest.mark.parametrize("name", doubts())
def test_what_is_not_certain_is_refused_and_can_be_left_out(name, tmp_path):
  path = save(tmp_path / "a.safetensors", doubts()[name])
  with pytest.raises(errors.CheckpointError, match=r"'fc1\.\w+' is kept in"):
    checkpoints.load(path)
  try:
    checkpoints.load(path)
  except errors.CheckpointError as error:
    line = str(error)
  names = line.partition('"leave_out": [')[2].partition("]")[0].split(", ")
  remedy = {"leave_out": [word.strip('"') for word in names]}
  found = checkpoints.load(path, override=remedy)
  assert [t.shape for t in found.spec.tensors] == [(16, 16), (4, 16)]


def test_one_layer_without_its_scale_is_a_doubt(tmp_path):
  arrays = mlp()
  del arrays["fc2.weight_scale"]
  path = save(tmp_path / "a.safetensors", arrays)
  with pytest.raises(errors.CheckpointError, match="'fc2.weight' is kept"):
    checkpoints.load(path)
  # ComfyUI marks such files; without any scale it says that they are missing.
  marked = {n: a for n, a in mlp().items() if "scale" not in n}
  marked["scaled_fp8"] = np.zeros(2, E4)
  path = save(tmp_path / "b.safetensors", marked)
  with pytest.raises(errors.CheckpointError, match="its scale is not in the"):
    checkpoints.load(path)


def test_scales_of_other_frameworks_are_not_believed(tmp_path):
  tree = {"dense": {"kernel": small(3, 4, dtype=np.int8),
                    "kernel_scale": scale(4)}}  # fmt: skip
  path = tmp_path / "a.msgpack"
  path.write_bytes(samples.flax_bytes({"params": tree}))
  with pytest.raises(errors.CheckpointError, match="is kept in int8"):
    checkpoints.load(path)


def test_what_they_take_is_counted(tmp_path):
  arrays = {"a.weight": small(64, 64), "a.weight_scale": scale(64)}
  path = save(tmp_path / "a.safetensors", arrays)
  assert checkpoints.read(path)
  with pytest.raises(errors.CheckpointError, match="max_total_bytes"):
    checkpoints.read(path, limits=checkpoints.Limits(max_total_bytes=1 << 13))
