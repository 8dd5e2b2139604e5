"""A heap of texts whose sizes lead nowhere is refused, not followed."""

import struct
import zipfile

import numpy as np
import pytest

from sne_jax import errors
from sne_jax.checkpoints import reading
from sne_jax.checkpoints.formats import hdf5_heaps

h5py = pytest.importorskip("h5py")


def heap(path):
  """Writes a file with texts of any length; returns its bytes, and a place."""
  with h5py.File(path, "w") as file:
    file.create_dataset("layers/a/vars/0", data=np.ones((3, 2), np.float32))
    file["layers/a"].attrs["name"] = "dense"
    file["layers"].attrs["name"] = "a name that is longer"
  data = bytearray(path.read_bytes())
  (place,) = [data.index(hdf5_heaps.SIGNATURE)]
  return data, place


def objects(data, place):
  """Places of the objects of a heap."""
  (size,) = struct.unpack_from("<Q", data, place + 8)
  at, found = place + 16, []
  while at + 16 <= place + size:
    index, _, _, taken = struct.unpack_from("<HHIQ", data, at)
    found.append(at)
    at += 16 + (taken + 7) // 8 * 8 if index else taken
  assert at <= place + size
  return found


@pytest.mark.parametrize("size", [0, 8, 1 << 40, (1 << 64) - 16])
@pytest.mark.parametrize("kind", ["h5", "stored", "deflated"])
def test_sizes_that_lead_nowhere_are_refused(kind, size, tmp_path):
  path = tmp_path / "a.h5"
  data, place = heap(path)
  assert len(reading.read(path).entries) == 1
  *_, last = objects(data, place)  # Free space, which takes its head as well.
  struct.pack_into("<Q", data, last + 8, size)
  path.write_bytes(data)
  if kind != "h5":
    path = tmp_path / "a.keras"
    pack = zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", pack) as file:
      file.writestr("config.json", "{}")
      file.writestr("model.weights.h5", bytes(data))
  with pytest.raises(errors.CheckpointError, match="heap of texts is damaged"):
    reading.read(path)


def test_sound_heaps_are_sound_however_much_is_read(tmp_path):
  data, place = heap(tmp_path / "a.h5")
  assert len(objects(data, place)) == 3
  for count in range(8, 600, 7):
    assert hdf5_heaps.is_sound(bytes(data[place : place + count]))
