"""Zip archives: names, sizes and members that are not what they seem."""

import copy
import io
import stat
import zipfile

import numpy as np
import pytest

from sne_jax import errors
from sne_jax.checkpoints import limits, reading
from sne_jax.checkpoints.formats import archive
from tests.checkpoints import samples

GOOD = samples.npz_bytes({"w": np.ones(3)})


def build(edit, pack=zipfile.ZIP_STORED):
  """An archive of one sound array and what `edit(archive)` adds."""
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w", pack) as made:
    made.writestr("w.npy", samples.npy_bytes(np.ones(3)))
    edit(made)
  return file.getvalue()


def refuse(tmp_path, data, message, **options):
  path = tmp_path / "a.npz"
  path.write_bytes(data)
  with pytest.raises(errors.CheckpointError, match=message) as caught:
    reading.read(path, limits=limits.Limits(**options))
  assert "\n" not in str(caught.value)
  assert [p.name for p in tmp_path.iterdir()] == ["a.npz"], (
    "nothing is unpacked"
  )


@pytest.mark.parametrize(
  "name",
  [
    *("../x.npy", "a/../../x.npy", "/etc/x.npy", "..\\x.npy", "C:/x.npy"),
    *("C:\\x.npy", "a/..", "//host/x.npy"),
  ],
)
def test_names_that_lead_out_are_refused(name, tmp_path):
  data = build(lambda made: made.writestr(name, b"x"))
  refuse(tmp_path, data, "leads out of its folder")


def test_links_are_refused(tmp_path):
  def edit(made):
    info = zipfile.ZipInfo("link.npy")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    made.writestr(info, "/etc/passwd")

  refuse(tmp_path, build(edit), "'link.npy' is a link")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path):
  data = build(lambda made: made.writestr("w.npy", b"other"))
  refuse(tmp_path, data, "two members are called 'w.npy'")


def test_members_that_share_bytes_are_refused(tmp_path):
  def edit(made):
    for name in ("x.npy", "y.npy"):
      twin = copy.copy(made.filelist[0])
      twin.filename = name
      made.filelist.append(twin)

  refuse(tmp_path, build(edit), "overlap")


def alter(**fields):
  def edit(made):
    for name, value in fields.items():
      setattr(made.filelist[0], name, value)

  return edit


@pytest.mark.parametrize(
  ("edit", "message"),
  [
    (alter(flag_bits=1), "encrypted"),
    (alter(compress_type=zipfile.ZIP_BZIP2), "method 12"),
    (alter(compress_type=99), "method 99"),
    (alter(file_size=9), "two sizes"),
    (alter(file_size=9000, compress_size=9000), "leaves the archive"),
    (alter(header_offset=5), "not where it should be"),
  ],
)
def test_false_lists_of_members_are_refused(edit, message, tmp_path):
  refuse(tmp_path, build(edit), message)


def test_a_bomb_is_refused_before_it_unpacks(tmp_path):
  size = limits.Limits().free_bytes + 1
  bomb = lambda made: made.writestr("bomb.npy", bytes(size))
  data = build(bomb, zipfile.ZIP_DEFLATED)
  assert len(data) < size / 500
  refuse(tmp_path, data, "unpacks from .* raise max_ratio")


def test_many_small_bombs_are_refused(tmp_path):
  arrays = {str(n): np.zeros(2000) for n in range(20)}
  data = samples.npz_bytes(arrays, pack=True)
  small = {"free_bytes": 20_000, "max_ratio": 20.0}
  refuse(tmp_path, data, "unpacks to more than 20 times", **small)


def test_a_member_that_lies_about_its_size_is_refused(tmp_path):
  array = samples.npy_bytes(np.zeros(5000))
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
    made.writestr("w.npy", array + bytes(10_000))
    made.filelist[0].file_size = len(array)
  path = tmp_path / "a.npz"
  path.write_bytes(file.getvalue())
  found = reading.read(path)
  with pytest.raises(errors.CheckpointError, match="damaged"):
    found.entries["w"].read()


def test_lists_of_members_are_counted_before_they_are_parsed(tmp_path):
  data = build(lambda made: [made.writestr(f"{n}.npy", b"") for n in range(99)])
  refuse(tmp_path, data, "raise max_header_bytes", max_header_bytes=1000)
  refuse(tmp_path, data, "100 members", max_entries=50)


@pytest.mark.parametrize("cut", [4, 30, 100, len(GOOD) - 30, len(GOOD) - 1])
def test_a_cut_archive_is_refused(cut, tmp_path):
  refuse(tmp_path, GOOD[:cut], "zip archive")


def test_bytes_before_an_archive_do_not_shift_it(tmp_path):
  path = tmp_path / "a.npz"
  path.write_bytes(GOOD)
  budget = archive.Budget(str(path), limits.Limits())
  found = archive.Archive(str(path), budget)
  offset = found.offset("w.npy")
  assert offset is not None
  assert GOOD[offset:].startswith(b"\x93NUMPY")
  assert found.read("w.npy") == GOOD[offset:][: found.members["w.npy"]]
