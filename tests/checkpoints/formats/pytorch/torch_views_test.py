"""Tensors that are more than a view: marked, sparse, quantised. No PyTorch.

`torch_test.py` compares with PyTorch where that is installed.
"""

import numpy as np
import pytest

from sne_jax import errors
from sne_jax.checkpoints import limits, reading
from tests.checkpoints import samples
from tests.checkpoints.samples import Call, Global, Storage, tensor, view

REAL = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
WANT = {
  "neg": -REAL,
  "conj": REAL * np.complex64(1 - 2j),
  "both": REAL * np.complex64(-1 + 2j),
  "coo": np.array([[0, 0, 5], [2, 0, 0]], np.float32),
  "hybrid": np.concatenate([REAL[::-1], 0 * REAL]),
  "csr": np.array([[0, 0, 1], [2, 4, 0]], np.float32),
  "csc": np.array([[0, 0, 2], [1, 0, 4]], np.float32),
  "bsr": np.array([[0, 0, 0, 1, 2, 3], [4, 5, 6, 0, 0, 0]], np.float32),
  "scaled": (10 * REAL + 3) * np.float32(0.5),
  "channels": (10 * REAL + [[-1], [1]]) * np.array([[0.5], [2]]),
  "stateful": REAL,
  "attributed": REAL,
}


def read(tmp_path, obj, **options):
  path = tmp_path / "a.pt"
  path.write_bytes(samples.torch_bytes(obj))
  return reading.read(path, **options)


@pytest.mark.parametrize("name", samples.forms())
def test_every_form_is_read_as_torch_reads_it(name, tmp_path):
  entry = read(tmp_path, {"w": samples.forms()[name]}).entries["w"]
  want = np.asarray(WANT[name])
  assert entry.shape == want.shape
  np.testing.assert_array_equal(entry.read(), want)


def test_a_negated_view_is_another_tensor(tmp_path):
  storage = Storage(REAL.reshape(-1))
  plain = lambda flags=(): view(storage, (2, 3), (3, 1), flags=flags)
  made = {"a": plain(), "b": plain(["neg"]), "c": plain(["neg"]), "d": plain()}
  found = read(tmp_path, made)
  ties = {name: entry.tied_to for name, entry in found.entries.items()}
  assert ties == {"a": None, "b": None, "c": "b", "d": "a"}


def test_marks_of_untyped_storages_count_too(tmp_path):
  found = read(tmp_path, {"w": tensor(np.array([1, 2], np.uint16), ["neg"])})
  np.testing.assert_array_equal(found.entries["w"].read(), [65535, 65534])


@pytest.mark.parametrize(
  ("array", "flags"),
  [(REAL, {"conj": True}), (REAL > 2, {"neg": True}), (REAL, {"odd": True}),
   (REAL, [1])],
)  # fmt: skip
def test_marks_that_mean_nothing_are_refused(array, flags, tmp_path):
  bad = tensor(array)
  bad.args = (*bad.args, flags)
  with pytest.raises(errors.CheckpointError, match="with the marks"):
    read(tmp_path, {"w": bad})


def test_layers_that_pytorch_has_quantised(tmp_path):
  whole = samples.quantised(REAL.astype(np.int8), "per_tensor_affine", 0.5, 0)
  packed = "0._packed_params."
  tree = {
    "0.scale": tensor(np.float32(1).reshape(())),
    f"{packed}dtype": Global("torch", "qint8"),
    f"{packed}_packed_params": (whole, tensor(np.ones(2, np.float32))),
  }
  found = read(tmp_path, tree)
  weight = found.entries[f"{packed}_packed_params.0"]
  np.testing.assert_array_equal(weight.read(), REAL / 2)
  assert len(found.entries) == 3


V = np.ones(3, np.float32)


@pytest.mark.parametrize(
  "bad",
  [
    samples.sparse("sparse_coo", [[0, 1, 9]], V, shape=(4,)),
    samples.sparse("sparse_coo", [[0, 1, -1]], V, shape=(4,)),
    samples.sparse("sparse_coo", [[0, 1]], V, shape=(4,)),
    samples.sparse("sparse_coo", [[0.0, 1, 2]], V, shape=(4,)),
    samples.sparse("sparse_coo", [0, 1, 2], V, shape=(4,)),
    samples.sparse("sparse_coo", [[0, 1, 2]], V, shape=(-4,)),
    samples.sparse("sparse_csr", [0, 1, 3], [2, 0, 3], V, shape=(2, 3)),
    samples.sparse("sparse_csr", [0, 4, 3], [2, 0, 1], V, shape=(2, 3)),
    samples.sparse("sparse_csr", [0, 1, 2], [2, 0, 1], V, shape=(2, 3)),
    samples.sparse("sparse_csr", [0, 1, 3], [2, 0, 1], V, shape=(9, 3)),
    samples.sparse("sparse_bsr", [0, 1], [0], V.reshape(1, 1, 3), shape=(1, 4)),
    samples.sparse(
      "sparse_csr", [[0, 1]], [[0]], V[:1].reshape(1, 1), shape=(1, 1, 3)
    ),
    samples.sparse("sparse_odd", [[0, 1, 2]], V, shape=(4,)),
    samples.quantised(REAL.astype(np.int8), "per_tensor_affine", 1, 0),
    samples.quantised(REAL.astype(np.int8), "per_channel_affine", V, V, 0),
    samples.quantised(REAL.astype(np.int8), "per_channel_affine", V, V, 7),
    samples.quantised(REAL.astype(np.int8), "per_row", V, V, 7),
    Call("torch._utils", "_rebuild_sparse_tensor", (Global("torch", "int8"),)),
    Call("torch._tensor", "_rebuild_from_type_v2", (1, 2, 3, 4)),
    Call(
      "torch._tensor",
      "_rebuild_from_type_v2",
      (Global("torch", "Size"), Global("torch", "Tensor"), ((1,),), None),
    ),
  ],
)
def test_parts_that_do_not_fit_are_one_line(bad, tmp_path, monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "torch", None)
  with pytest.raises(errors.CheckpointError) as caught:
    read(tmp_path, {"w": bad}).entries["w"].read()
  assert str(caught.value).startswith(str(tmp_path))
  assert len(str(caught.value)) < 400


def test_a_class_of_tensors_of_others_is_not_believed(tmp_path, monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "torch", None)
  plain = tensor(REAL)
  other = Global("torchao.dtypes", "AffineQuantizedTensor")
  bad = Call(
    "torch._tensor",
    "_rebuild_from_type_v2",
    (plain.function, other, plain.args, None),
  )
  with pytest.raises(errors.CheckpointError, match="AffineQuantizedTensor"):
    read(tmp_path, {"w": bad})


def test_what_sparse_tensors_take_when_dense_is_counted(tmp_path):
  huge = samples.sparse("sparse_coo", [[0], [0]], V[:1], shape=(1 << 20,) * 2)
  with pytest.raises(errors.CheckpointError, match="raise max_"):
    read(tmp_path, {"w": huge})
  small = samples.sparse("sparse_coo", [[0], [0]], V[:1], shape=(9, 9))
  with pytest.raises(errors.CheckpointError, match="raise max_total"):
    read(tmp_path, {"w": small}, limits=limits.Limits(max_total_bytes=323))
  assert read(tmp_path, {"w": small}).num_numbers == 81


def test_a_view_that_repeats_is_no_part_of_a_sparse_tensor(tmp_path):
  bad = samples.sparse("sparse_coo", [[0]], V[:1], shape=(4,))
  layout, (places, values, *rest) = bad.args
  one = places.args[0]
  places, values = (
    view(part.args[0], shape, (0,) * len(shape))
    for part, shape in ((places, (1, 1 << 40)), (values, (1 << 40,)))
  )
  assert one is places.args[0]
  bad.args = (layout, (places, values, *rest))
  with pytest.raises(errors.CheckpointError, match="what are no tensors"):
    read(tmp_path, {"w": bad})
