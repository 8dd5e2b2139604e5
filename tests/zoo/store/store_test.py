"""The zoo on disk: what is written is read, and every damage is named."""

import json
import os
import pathlib
import shutil
import stat

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from sne_jax import digests, errors
from sne_jax.networks import families
from sne_jax.zoo.store import correct, files, lock, store, writing
from tests import damage

SPECS = (families.inr((1, 3, 1)), families.mlp((2, 2, 2)))  # 10, 12 weights
IDS = ["a0", "a1", "a2", "b0", "b1"]
SPLIT = {"train": ["a0", "b1"], "val": ["a1"], "test": ["b0"]}


def arrays():
  rng = np.random.default_rng(0)
  first = rng.normal(size=(3, SPECS[0].num_weights)).astype(np.float32)
  first[2, 4] = np.nan  # of a2, which is not valid
  second = rng.normal(size=(2, SPECS[1].num_weights)).astype(np.float32)
  return [first, second]


def write(path, **changes):
  given = {
    "specs": SPECS,
    "weights": arrays(),
    "ids": IDS,
    "spec_numbers": [0, 0, 0, 1, 1],
    "rows": [0, 1, 2, 1, 0],
    "valid": [True, True, False, True, True],
    "properties": {
      "accuracy": writing.Property(
        [0.5, 0.25, 0.0, 1.0, np.nan], "share correct on test", "share"
      ),
      "epoch": writing.Property([1, 2, 3, 4, 5], "epochs trained", "epochs"),
      "dataset": writing.Property(list("xxyyx"), "what it saw"),
      "converged": writing.Property([1 > 0] * 4 + [False], "whether it did"),
    },
    "splits": {"default": SPLIT},
    "provenance": {"generator": "test", "options": {"a": 1}},
    "licence": "CC0-1.0",
  }
  return writing.write_zoo(path, **(given | changes))


@pytest.fixture
def path(tmp_path):
  write(tmp_path / "zoo")
  return str(tmp_path / "zoo")


def contents(path):
  return {name: (path / name).read_bytes() for name in sorted(os.listdir(path))}


def test_what_is_written_is_read(path):
  zoo = store.Zoo.open(path)
  assert len(zoo) == 5
  assert zoo.specs == SPECS
  for number, array in enumerate(arrays()):
    np.testing.assert_array_equal(zoo.weights(number), array)
  assert zoo.members["id"].tolist() == IDS
  assert zoo.members["valid"].tolist() == [True, True, False, True, True]
  np.testing.assert_array_equal(
    zoo.property("accuracy"), [0.5, 0.25, 0.0, 1.0, np.nan]
  )
  assert zoo.property("epoch").dtype == np.int64
  assert zoo.property("dataset").tolist() == list("xxyyx")
  assert zoo.property("converged").tolist() == [True] * 4 + [False]
  assert zoo.properties["accuracy"]["units"] == "share"
  assert zoo.provenance == {"generator": "test", "options": {"a": 1}}
  assert zoo.licence == "CC0-1.0"


def test_weights_are_mapped_and_read_only(path):
  zoo = store.Zoo.open(path, verify=False)
  base = zoo.weights(0)
  while not isinstance(base, np.memmap):
    base = base.base
    assert base is not None
  with pytest.raises(ValueError, match="read-only"):
    zoo.weights(0)[0, 0] = 1
  one, other = zoo.vectors([1, 3])
  np.testing.assert_array_equal(one, arrays()[0][1])
  np.testing.assert_array_equal(other, arrays()[1][1])


def test_the_files_are_what_other_programs_expect(path):
  loaded = safetensors.numpy.load_file(f"{path}/weights-1.safetensors")
  np.testing.assert_array_equal(loaded["weights"], arrays()[1])
  saved = f"{path}/theirs.safetensors"
  safetensors.numpy.save_file({"weights": arrays()[1]}, saved)
  np.testing.assert_array_equal(files.map_rows(saved), arrays()[1])
  assert json.loads(pathlib.Path(path, "zoo.json").read_text())["version"] == 2
  assert os.stat(path).st_mode & stat.S_IRUSR


def test_split_and_select(path):
  zoo = store.Zoo.open(path)
  assert zoo.splits == ("default",)
  found = {p: n.tolist() for p, n in zoo.split("default").items()}
  assert found == {"train": [0, 4], "val": [1], "test": [3]}
  assert zoo.select().tolist() == [0, 1, 3, 4]
  assert zoo.select(invalid=True).tolist() == [0, 1, 2, 3, 4]
  assert zoo.select(spec=1).tolist() == [3, 4]
  assert zoo.select(split="default").tolist() == [0, 1, 3, 4]
  assert zoo.select(split="default", part="train", spec=0).tolist() == [0]
  assert zoo.select(where={"dataset": "x"}).tolist() == [0, 1, 4]
  assert zoo.select(where={"epoch": [1, 4]}).tolist() == [0, 3]


def test_a_split_leaves_out_invalid_members_unless_asked(path):
  zoo = writing.add_split(path, "all", {"train": IDS})
  assert zoo.split("all")["train"].tolist() == [0, 1, 3, 4]
  assert zoo.split("all", invalid=True)["train"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
  ("call", "words"),
  [
    (lambda z: z.property("loss"), ["'loss'", "'accuracy'", "'dataset'"]),
    (lambda z: z.split("mine"), ["'mine'", "'default'"]),
    (lambda z: z.weights(2), ["no spec 2", "0 to 1"]),
    (lambda z: z.select(spec=-1), ["no spec -1"]),
    (lambda z: z.select(part="train"), ["of no split"]),
    (lambda z: z.select(split="default", part="dev"), ["'dev'", "'val'"]),
    (lambda z: z.select(where={"loss": 1}), ["'loss'"]),
  ],
)
def test_unknown_names_list_what_there_is(path, call, words):
  with pytest.raises(errors.ZooError) as caught:
    call(store.Zoo.open(path))
  for word in words:
    assert word in str(caught.value)


RIGHT = np.random.default_rng(1).random((5, 11)) < 0.5  # 11 is no byte's end.
CLASSES = np.arange(11) % 3


def with_bits(path, **changes):
  return write(path, right=correct.Correct.of(RIGHT, CLASSES), **changes)


def test_bits_that_are_written_are_read(tmp_path, path):
  zoo = with_bits(tmp_path / "bits")
  np.testing.assert_array_equal(zoo.correct.right([3, 0]), RIGHT[[3, 0]])
  np.testing.assert_array_equal(zoo.correct.classes, CLASSES)
  assert store.Zoo.open(path).correct is None  # As of before.


def damage_bits(zoo):
  (file,) = zoo.glob("correct-*")
  file.write_bytes(file.read_bytes()[:-1] + b"\x07")


def shorten_bits(zoo):
  change_index(lambda index: index["correct"].update(images=12))(zoo)


def drop_bits(zoo):
  (file,) = zoo.glob("correct-*")
  file.unlink()


@pytest.mark.parametrize(
  ("damage", "words"),
  [
    (damage_bits, "contents changed"),
    (drop_bits, "file is missing"),
    (shorten_bits, "'classes' is .* where uint8 .12,. is due"),
  ],
)
def test_damaged_bits_are_named(tmp_path, damage, words):
  with_bits(tmp_path / "bits")
  damage(tmp_path / "bits")
  with pytest.raises(errors.ZooError, match=f"correct-.*{words}"):
    store.Zoo.open(tmp_path / "bits")


def test_members_are_labelled_anew_or_not_at_all(tmp_path, monkeypatch):
  path = tmp_path / "bits"
  with_bits(path)
  before = contents(path)
  more = correct.Correct.of(np.ones((5, 20), bool), np.zeros(20))
  new = {"accuracy": np.arange(5) / 8}

  def killed(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patched:
    patched.setattr(writing.atomic, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
      writing.relabel(path, more, new)
  zoo = store.Zoo.open(path)
  assert contents(path).items() >= before.items()
  np.testing.assert_array_equal(zoo.correct.right(range(5)), RIGHT)
  zoo = writing.relabel(path, more, new)
  assert zoo.correct.right([4]).tolist() == [[True] * 20]
  np.testing.assert_array_equal(zoo.property("accuracy"), new["accuracy"])
  assert zoo.property("dataset").tolist() == list("xxyyx")
  now = contents(path)
  same = [name for name in before if now.get(name) == before[name]]
  assert same == ["splits.parquet", "weights-0.safetensors"] + [
    "weights-1.safetensors"
  ]
  assert len(now) == len(before), "files of before are gone"
  assert len(store.Zoo.open(path)) == 5


def test_equal_inputs_give_equal_bytes(tmp_path):
  with_bits(tmp_path / "one")
  with_bits(tmp_path / "two")
  assert contents(tmp_path / "one") == contents(tmp_path / "two")


# Damage. Each takes the folder; the words must be in the message.


def change_index(change):
  """Changes the index, and seals it, as a faulty program would."""

  def damage(path):
    index = json.loads(pathlib.Path(path, "zoo.json").read_text())
    change(index)
    index = digests.sealed(index)
    pathlib.Path(path, "zoo.json").write_text(json.dumps(index))

  return damage


def change_members(change):
  """Changes columns, and the checksum with them."""

  def damage(path):
    file = f"{path}/members.parquet"
    columns = pq.read_table(file).to_pydict()
    change(columns)
    pq.write_table(pa.table(columns), file)
    digest = digests.of_file(file)
    change_index(lambda i: i["members"].update(sha256=digest))(path)

  return damage


def change_splits(rows):
  def damage(path):
    names = ("split", "id", "part")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    file = f"{path}/splits.parquet"
    pq.write_table(pa.table(columns), file)
    digest = digests.of_file(file)
    change_index(lambda i: i["splits"].update(sha256=digest))(path)

  return damage


def flip_bit(file, place):
  def damage(path):
    with open(f"{path}/{file}", "r+b") as handle:
      handle.seek(place, os.SEEK_END)
      byte = handle.read(1)[0]
      handle.seek(place, os.SEEK_END)
      handle.write(bytes([byte ^ 1]))

  return damage


def set_item(column, place, value):
  return change_members(lambda c: c[column].__setitem__(place, value))


def invalidate_nothing(columns):
  columns["valid"] = [True] * 5


def truncate(file, size):
  return lambda path: os.truncate(f"{path}/{file}", size)


def remove(file):
  return lambda path: os.remove(f"{path}/{file}")


def swap_weights(path):
  files.write_rows(f"{path}/weights-0.safetensors", np.zeros((3, 7), "f4"))


def wrong_kind(index):
  index["specs"][0]["spec"]["tensors"][0]["kind"] = "magic"


def newer_spec(index):
  index["specs"][1]["spec"]["version"] = 99


def outside(index):
  index["members"]["file"] = "../members.parquet"


DAMAGES = {
  "no index": (remove("zoo.json"), ["zoo.json", "missing"]),
  "no weights": (
    remove("weights-1.safetensors"),
    ["weights-1.safetensors", "missing"],
  ),
  "no members": (remove("members.parquet"), ["members.parquet", "missing"]),
  "no splits": (remove("splits.parquet"), ["splits.parquet", "missing"]),
  "truncated": (
    truncate("weights-0.safetensors", 150),
    ["weights-0.safetensors", "cut short: 62 bytes of numbers"],
  ),
  "truncated header": (
    truncate("weights-0.safetensors", 20),
    ["weights-0.safetensors", "cut short: 20 bytes"],
  ),
  "empty weights": (truncate("weights-0.safetensors", 0), ["cut short"]),
  "flipped weight": (
    flip_bit("weights-1.safetensors", -5),
    ["weights-1.safetensors", "SHA-256"],
  ),
  "flipped member": (
    flip_bit("members.parquet", -200),
    ["members.parquet", "SHA-256"],
  ),
  "not finite": (
    change_members(invalidate_nothing),
    ["weights-0.safetensors", "1 valid members", "NaN", "'a2'", "not valid"],
  ),
  "wrong shape": (swap_weights, ["(3, 7)", "(3, 10)"]),
  "unknown kind": (change_index(wrong_kind), ["zoo.json", "'magic'"]),
  "newer zoo": (
    change_index(lambda i: i.update(version=3)),
    ["version 3", "up to 2", "newer sne_jax"],
  ),
  "newer spec": (change_index(newer_spec), ["spec 1", "99", "newer sne_jax"]),
  "other format": (change_index(lambda i: i.update(format="x")), ["not the"]),
  "lost field": (change_index(lambda i: i.pop("licence")), ["'licence'"]),
  "outside": (change_index(outside), ["'../members.parquet'", "no name"]),
  "not JSON": (
    lambda path: pathlib.Path(path, "zoo.json").write_text("{"),
    ["zoo.json", "not JSON"],
  ),
  "row out of range": (
    set_item("row", 3, 2),
    ["members.parquet", "'b0'", "row 2", "has 2 rows"],
  ),
  "spec out of range": (set_item("spec", 0, 2), ["'a0'", "spec 2", "2 specs"]),
  "duplicate ids": (set_item("id", 1, "a0"), ["more than once", "'a0'"]),
  "lost column": (change_members(lambda c: c.pop("epoch")), ["'epoch'"]),
  "wrong column": (
    change_members(lambda c: c.update(row=list("abcde"))),
    ["'row'", "type"],
  ),
  "null": (set_item("epoch", 0, None), ["'epoch'", "1 nulls"]),
  "lost member": (
    change_members(lambda c: [column.pop() for column in c.values()]),
    ["4 rows where 5"],
  ),
  "splits not Parquet": (
    lambda path: pathlib.Path(path, "splits.parquet").write_text("x"),
    ["splits.parquet", "SHA-256"],
  ),
  "split of a missing member": (
    change_splits([("s", "a0", "train"), ("s", "z9", "test")]),
    ["splits.parquet", "'s'", "'test'", "1 missing", "'z9'"],
  ),
  "overlapping parts": (
    change_splits([("s", "a0", "train"), ("s", "a0", "test")]),
    ["splits.parquet", "'s'", "more than once", "'a0'"],
  ),
  "unknown part": (change_splits([("s", "a0", "dev")]), ["'dev'", "train"]),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named_in_one_line(path, name):
  damage, words = DAMAGES[name]
  damage(path)
  with pytest.raises(errors.ZooError) as caught:
    store.Zoo.open(path)
  message = str(caught.value)
  assert "\n" not in message
  assert message.startswith(path)
  assert "; " in message, "a remedy follows"
  for word in words:
    assert word in message


def test_verify_is_what_finds_flipped_bits_and_nan(path):
  DAMAGES["flipped weight"][0](path)
  DAMAGES["not finite"][0](path)
  assert len(store.Zoo.open(path, verify=False)) == 5


def test_only_an_existing_folder_opens(tmp_path):
  with pytest.raises(errors.ZooError, match=r"zoo\.json: file is missing"):
    store.Zoo.open(tmp_path / "nowhere")


def test_checks_go_block_by_block(path, monkeypatch):
  monkeypatch.setattr(files, "BLOCK_BYTES", 1)  # one row at a time
  digest, finite = files.scan_rows(
    f"{path}/weights-0.safetensors",
    files.map_rows(f"{path}/weights-0.safetensors"),
  )
  assert digest == digests.of_file(f"{path}/weights-0.safetensors")
  assert finite.tolist() == [True, True, False]


# Writing.


def test_a_zoo_is_never_overwritten(path):
  before = store.Zoo.open(path).members["id"].tolist()
  with pytest.raises(errors.ZooError, match="something is there already"):
    write(path, ids=list("vwxyz"), splits={})
  assert store.Zoo.open(path).members["id"].tolist() == before


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"ids": ["a", "b"]}, ["'spec'", "2 members"]),
    (
      {"ids": ["a0", "a0", "a2", "b0", "b1"], "splits": {}},
      ["more than once", "'a0'"],
    ),
    ({"rows": [0, 1, 2, 3, 0]}, ["'b0'", "row 3"]),
    ({"valid": [True] * 5}, ["NaN", "'a2'"]),
    ({"weights": arrays()[::-1]}, ["(2, 12)", "[N, 10]"]),
    ({"weights": arrays()[:1]}, ["2 specs, 1 weights"]),
    ({"rows": None}, ["spec_numbers and rows"]),
    ({"splits": {"s": {"train": ["q"]}}}, ["'s'", "'q'"]),
    ({"splits": {"s": {"train": ["a0"], "val": ["a0"]}}}, ["'a0'"]),
    ({"properties": {"row": writing.Property([1] * 5, "")}}, ["'row'"]),
    ({"properties": {"x": writing.Property([1] * 4, "")}}, ["'x'", "(4,)"]),
    ({"properties": {"x": writing.Property([1j] * 5, "")}}, ["complex"]),
  ],
)
def test_a_zoo_that_would_not_open_is_not_written(tmp_path, changes, words):
  with pytest.raises(errors.ZooError) as caught:
    write(tmp_path / "zoo", **changes)
  for word in [str(tmp_path / "zoo"), *words]:
    assert word in str(caught.value)
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("call", range(6))
def test_an_interruption_leaves_no_half_zoo(tmp_path, monkeypatch, call):
  real, calls = os.fsync, []

  def fsync(number):
    calls.append(number)
    if len(calls) == call + 1:
      raise KeyboardInterrupt
    real(number)

  monkeypatch.setattr(os, "fsync", fsync)
  with pytest.raises(KeyboardInterrupt):
    write(tmp_path / "zoo")
  assert os.listdir(tmp_path) == []


def test_a_zoo_appears_whole_in_one_rename(tmp_path, monkeypatch):
  real, seen = os.rename, []

  def rename(source, target):
    assert len(store.read_zoo(source, name=source, verify=True)) == 5
    seen.append((target, os.path.exists(target)))
    real(source, target)

  monkeypatch.setattr(os, "rename", rename)
  write(tmp_path / "zoo")
  assert seen == [(str(tmp_path / "zoo"), False)]


def test_add_split(path):
  zoo = writing.add_split(path, "b", {"train": ["b1"], "test": ["b0"]})
  assert zoo.splits == ("b", "default")
  assert store.Zoo.open(path).split("b")["test"].tolist() == [3]
  assert zoo.split("default")["train"].tolist() == [0, 4]
  same = writing.add_split(path, "b", {"test": ["b0"], "train": ["b1"]})
  assert same.splits == ("b", "default")
  with pytest.raises(errors.ZooError, match="another split 'b' exists"):
    writing.add_split(path, "b", {"train": ["b0"]})
  zoo = writing.add_split(path, "b", {"train": ["b0"]}, replace=True)
  assert zoo.split("b")["train"].tolist() == [3]
  with pytest.raises(errors.ZooError, match="'nobody'"):
    writing.add_split(path, "c", {"train": ["nobody"]})
  with pytest.raises(errors.ZooError, match="more than once"):
    writing.add_split(path, "c", {"train": ["a0"], "val": ["a0"]})
  assert store.Zoo.open(path).splits == ("b", "default")


STEPS = ((os, "fsync"), (os, "remove"), (pathlib.Path, "replace"))
"""All that changes the files of a zoo."""


def version_1(path):
  """Takes out of a zoo what zoos of version 1 did not have."""
  file = pathlib.Path(path, "zoo.json")
  index = json.loads(file.read_text())
  del index["splits"], index["sha256"]
  file.write_text(json.dumps(index | {"version": 1}))


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("what", ["split", "labels"])
def test_a_kill_leaves_the_old_zoo_or_the_new_one(
  tmp_path, monkeypatch, what, old
):
  """Before and behind everything that changes the folder."""
  more = correct.Correct.of(np.ones((5, 20), bool), np.zeros(20))

  def change(path):
    if what == "labels":
      return writing.relabel(path, more, {"accuracy": np.arange(5) / 8})
    return writing.add_split(path, "b", {"train": ["b1"], "test": ["b0"]})

  with_bits(tmp_path / "zoo")
  if old:
    version_1(tmp_path / "zoo")
  first = damage.plain(read_all(tmp_path / "zoo"))
  new = shutil.copytree(tmp_path / "zoo", tmp_path / "new")
  change(new)
  second, files = damage.plain(read_all(new)), contents(new)
  assert first != second
  found, number = [], 0
  while not found or killed:
    path = shutil.copytree(tmp_path / "zoo", tmp_path / f"killed{number}")
    calls, killed = [], False

    def dying(real, number=number, calls=calls):
      def call(*args):
        if str(args[0]).endswith(".lock"):  # It ends with a process.
          return real(*args)
        for after in (False, True):
          calls.append(real)
          if len(calls) == number + 1:
            raise KeyboardInterrupt
          if not after:
            result = real(*args)
        return result

      return call

    with monkeypatch.context() as patch:
      for owner, name in STEPS:
        patch.setattr(owner, name, dying(getattr(owner, name)))
      try:
        change(path)
      except KeyboardInterrupt:
        killed = True
    found.append(damage.plain(read_all(path)))
    assert found[-1] in (first, second)
    if not killed:
      assert found[-1] == second
    change(path)
    assert damage.plain(read_all(path)) == second
    assert len(contents(path)) == len(files), "a stray file"
    number += 1
  assert first in found and number > 8


def read_all(path):
  """Returns all that a zoo says."""
  zoo = store.Zoo.open(path)
  splits = {name: zoo.split(name, invalid=True) for name in zoo.splits}
  weights = [zoo.weights(number) for number in range(len(zoo.specs))]
  bits = None if zoo.correct is None else tuple(zoo.correct)
  known = (zoo.properties, zoo.provenance, zoo.licence)
  return zoo.specs, zoo.members, splits, weights, bits, known


@pytest.fixture
def zoos(tmp_path):
  """A zoo with a split that was added, and another of equal shapes."""
  paths = [tmp_path / "zoo", tmp_path / "other"]
  for path, sign in zip(paths, (1, -1), strict=True):
    with_bits(path, weights=[sign * array for array in arrays()])
    writing.add_split(path, "b", {"train": ["b1"], "test": ["b0"]})
  return paths


def check_damage(zoos, count):
  table = damage.flips(zoos[0], read_all, count)
  assert len(table) == 6
  for name, found in table.items():
    assert found[damage.REFUSED], name
    if name != "zoo.json":  # Blanks between its values say nothing.
      assert not found[damage.HARMLESS], name
  found = damage.outcomes(*zoos, read_all)
  assert all(kind[1] == damage.REFUSED for kind in found)
  return table, found


def test_damage_of_a_zoo_is_refused(zoos):
  check_damage(zoos, 12)


@pytest.mark.slow
def test_every_damage_of_a_zoo_is_refused(zoos):
  table, found = check_damage(zoos, damage.PLACES)
  print(damage.lines(table), *found.items(), sep="\n")  # noqa: T201


def test_zoos_of_version_1_are_read_with_nothing_claimed(path):
  version_1(path)
  zoo = store.Zoo.open(path)
  assert zoo.splits == ("default",)
  zoo = writing.add_split(path, "b", {"train": ["b1"]})
  assert zoo.splits == ("b", "default")
  index = json.loads(pathlib.Path(path, "zoo.json").read_text())
  assert index["version"] == 2 and index["splits"]["rows"] == 5
  assert not pathlib.Path(path, "splits.parquet").exists()


def test_bits_of_a_split_of_version_1_take_one_line(path):
  """What is no text any more is no raw error of the library."""
  version_1(path)
  file = pathlib.Path(path, "splits.parquet")
  data = file.read_bytes()
  for place in range(0, len(data), 9):
    flipped = bytes([data[place] ^ 128])
    file.write_bytes(data[:place] + flipped + data[place + 1 :])
    try:
      store.Zoo.open(path, verify=False)
    except errors.ZooError as error:
      assert "\n" not in str(error)
  file.write_bytes(data)


def test_a_lock_excludes_and_ends(tmp_path):
  folder = tmp_path / "zoo"
  with (
    lock.folder_lock(folder),
    pytest.raises(errors.ZooError, match=f"process {os.getpid()}"),
    lock.folder_lock(folder),
  ):
    pass
  with lock.folder_lock(folder):
    pass
  assert os.listdir(tmp_path) == []


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
  (tmp_path / "zoo.lock").write_text("999999")
  with lock.folder_lock(tmp_path / "zoo"):
    pass
