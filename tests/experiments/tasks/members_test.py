"""From a zoo to three parts: what is drawn, kept, and refused."""

import dataclasses

import numpy as np
import pytest

from experiments.tasks import members, zoos
from sne_jax import errors
from sne_jax.networks import families
from sne_jax.zoo.inrs import generate
from sne_jax.zoo.store import store, writing

SIZES = ("--train_members=14", "--validation_members=5", "--test_members=5")


@pytest.fixture
def made(write_zoo, tmp_path):
  """Returns `made(**changes)`: a zoo and its path flag."""

  def make(**changes):
    zoo = write_zoo(tmp_path / "zoo", **changes)
    return zoo, f"--zoo={tmp_path / 'zoo'}"

  return make


def opened(options):
  """Opens the only zoo of a run."""
  (source,) = zoos.sources(options.run.zoo)
  return zoos.opened(source, options.zoo)


def own(options=None):
  """Provenance of a zoo that our generator has made."""
  return {
    "generator": generate.GENERATOR,
    "options": options or {"split": None},
  }


def test_a_split_is_drawn_once_and_kept(made, resolve):
  zoo, flag = made()
  data = members.load(resolve(flag, *SIZES), zoo)
  assert {p: len(n.vectors) for p, n in data.parts.items()} == {
    "train": 14,
    "val": 5,
    "test": 5,
  }
  rows = np.concatenate([m.row for m in data.members.values()])
  assert sorted(rows) == list(range(24))
  again = store.Zoo.open(zoo.path)
  for part, found in again.split("default").items():
    np.testing.assert_array_equal(found, data.members[part].row)
  # Targets and weights are those of the members.
  row = int(data.members["test"].row[2])
  np.testing.assert_array_equal(
    data.parts["test"].vectors[2], zoo.vectors([row])[0]
  )
  assert data.parts["test"].targets[2, 0] == zoo.property("frequency")[row]


def test_seeds_of_the_split(made, resolve):
  zoo, flag = made()
  first, same, other = (
    members.load(resolve(flag, *SIZES, f"--split=s{n}", f"--split_seed={s}"), z)
    for n, s in enumerate((0, 0, 1))
    for z in [store.Zoo.open(zoo.path)]
  )
  np.testing.assert_array_equal(
    first.members["test"].row, same.members["test"].row
  )
  assert list(first.members["test"].row) != list(other.members["test"].row)


def test_the_split_of_a_published_zoo_is_kept(made, resolve):
  """Whatever the sizes say: they are those of splits that we draw."""
  parts = {"train": ["n000", "n001"], "val": ["n002", "n003"]}
  parts["test"] = ["n004", "n005", "n006"]
  zoo, flag = made(splits={"default": parts})
  data = members.load(resolve(flag, *SIZES), zoo)
  assert list(data.members["test"].row) == [4, 5, 6]


@pytest.mark.parametrize("change", ["--test_members=4", "--split_seed=1"])
def test_a_split_of_ours_is_not_taken_for_another(change, made, resolve):
  zoo, flag = made(provenance=own())
  members.load(resolve(flag, *SIZES), zoo)
  zoo = store.Zoo.open(zoo.path)
  members.load(resolve(flag, *SIZES), zoo)
  with pytest.raises(ValueError, match="name another with --split"):
    members.load(resolve(flag, *SIZES, change), zoo)
  members.load(resolve(flag, *SIZES, change, "--split=other"), zoo)


def test_the_share_of_the_training_members(made, resolve):
  zoo, flag = made()
  members.load(resolve(flag, *SIZES), zoo)
  zoo = store.Zoo.open(zoo.path)

  def load(share):
    options = resolve(flag, *SIZES, f"--train_share={share}")
    found = members.load(options, zoo).members
    return {part: m.row for part, m in found.items()}

  every, half, quarter = load(1), load(0.5), load(0.25)
  assert (len(half["train"]), len(quarter["train"])) == (7, 4)
  # Less data is a part of more data, and the test is the same.
  assert set(quarter["train"]) < set(half["train"]) < set(every["train"])
  np.testing.assert_array_equal(half["test"], every["test"])


def test_invalid_members_are_left_out(made, resolve):
  valid = np.arange(24) != 7
  zoo, flag = made(valid=valid)
  sizes = ("--train_members=13", "--validation_members=5", "--test_members=5")
  data = members.load(resolve(flag, *sizes), zoo)
  assert 7 not in np.concatenate([m.row for m in data.members.values()])
  with pytest.raises(ValueError, match="has 23 valid members, but .* for 24"):
    members.load(resolve(flag, *SIZES, "--split=other"), zoo)


def test_targets_must_be_numbers_that_are_there(made, resolve):
  values = np.arange(24.0)
  values[5] = np.nan
  zoo, flag = made(
    properties={
      "accuracy": writing.Property(values, "with a hole"),
      "name": writing.Property(["x"] * 24, "a text"),
    }
  )
  load = lambda name: members.load(
    resolve(flag, *SIZES, f"--targets={name}"), store.Zoo.open(zoo.path)
  )
  with pytest.raises(ValueError, match="missing for 1 members .*'n005'"):
    load("accuracy")
  with pytest.raises(ValueError, match="is text.* or --loss=classes"):
    load("name")
  with pytest.raises(errors.ZooError, match="no property 'size'"):
    load("size")


def test_logarithms_of_targets(made, resolve):
  values = 10.0 ** np.arange(-4, 20)
  values[5] = np.nan
  zoo, flag = made(
    properties={
      "rate": writing.Property(values, "with a hole"),
      "signed": writing.Property(np.arange(-3, 21), "not above 0"),
    },
    valid=np.arange(24) != 5,
  )

  def load(*flags):
    options = resolve(
      *(flag, "--train_members=13", "--validation_members=5"),
      *("--test_members=5", *flags),
    )
    return options, members.load(options, store.Zoo.open(zoo.path))

  options, data = load("--targets=rate", "--target_scale=log")
  assert options.run.target_names == ("rate",)
  assert members.target_labels(options.run) == ("log10 rate",)
  for part, networks in data.parts.items():
    np.testing.assert_allclose(
      networks.targets[:, 0], data.members[part].row - 4, atol=1e-12
    )
  options, data = load("--targets=rate")
  assert members.target_labels(options.run) == ("rate",)
  rows = data.members["val"].row
  np.testing.assert_array_equal(data.parts["val"].targets[:, 0], values[rows])
  words = r"'signed' of .* is -3 for 'n000' \(4 members are not above 0\)"
  with pytest.raises(ValueError, match=words):
    load("--targets=rate,signed", "--target_scale=log")


def test_a_part_that_is_missing(made, resolve):
  parts = {"train": ["n000", "n001"], "test": ["n004", "n005"]}
  zoo, flag = made(splits={"default": parts})
  with pytest.raises(ValueError, match="0 valid members in its part 'val'"):
    members.load(resolve(flag, *SIZES), zoo)


def test_a_zoo_of_ours_made_with_other_options(made, resolve):
  options = generate.InrZooOptions(num_networks=24, hidden=4, points=1000)
  table = dataclasses.asdict(options) | {"split": None}
  del table["batch_members"], table["makers"]  # As one maker is written.
  zoo, _ = made(provenance=own(table))
  flags = (f"--zoo=sine:{zoo.path}", "--zoo_num_networks=24", "--zoo_hidden=4")
  assert len(opened(resolve(*flags))) == 24
  with pytest.raises(errors.ZooError, match="max_steps is 1500 there, 9"):
    opened(resolve(*flags, "--zoo_max_steps=9"))


def test_a_sine_zoo_is_made_by_its_name_alone(made, resolve, tmp_path):
  zoo, _ = made()
  with pytest.raises(ValueError, match=f"name it as {zoo.path}"):
    opened(resolve(f"--zoo=sine:{zoo.path}"))
  flags = ("--zoo_num_networks=3", "--zoo_hidden=2", "--zoo_max_steps=1")
  made_here = opened(resolve(f"--zoo=sine:{tmp_path / 'new'}", *flags))
  assert len(made_here) == 3
  by_folder = opened(resolve(f"--zoo={tmp_path / 'new'}"))
  assert by_folder.path == made_here.path


def test_the_fingerprint_names_what_has_changed(made, resolve, write_zoo):
  zoo, flag = made()
  one = members.fingerprint(members.load(resolve(flag, *SIZES), zoo))
  data = members.load(
    resolve(flag, *SIZES, "--train_share=0.5"), store.Zoo.open(zoo.path)
  )
  other = members.fingerprint(data)
  assert [name for name in one if one[name] != other[name]] == ["train members"]
  changed = write_zoo(f"{zoo.path}2", seed=1)
  data = members.load(resolve(f"--zoo={changed.path}", *SIZES), changed)
  assert members.fingerprint(data)["networks"] != one["networks"]


def test_several_architectures(made, resolve):
  specs = (families.inr((1, 4, 1)), families.inr((1, 3, 3, 1)))
  zoo, flag = made(specs=specs, count=12)
  data = members.load(resolve(flag, *SIZES), zoo)
  for networks in data.parts.values():
    for number, vector in zip(networks.numbers, networks.vectors, strict=True):
      assert len(vector) == specs[number].num_weights


def test_zoos_are_put_together(made, resolve, write_zoo, tmp_path):
  shared = families.inr((1, 4, 1))
  made(specs=(families.inr((1, 3, 3, 1)), shared), count=12)
  write_zoo(tmp_path / "two", specs=(shared,), count=24, seed=1)
  write_zoo(tmp_path / "far", specs=(shared,), count=24, seed=2)
  names = f"--zoo={tmp_path / 'zoo'},{tmp_path / 'two'}"
  data = members.gathered(
    resolve(names, f"--test_zoos={tmp_path / 'far'}", *SIZES)
  )
  assert data.names == ("zoo", "two", "far")
  assert data.sizes() == {
    "train": 28,
    "val": 10,
    "test": 10,
    "test on zoo": 5,
    "test on two": 5,
    "test on far": 5,
  }
  # A spec of both is one spec, and every vector and target is its member's.
  assert set(data.parts["train"].specs) == {families.inr((1, 3, 3, 1)), shared}
  for part, networks in data.parts.items():
    zoo, row = data.members[part]
    for place, (z, r) in enumerate(zip(zoo, row, strict=True)):
      found = data.zoos[z]
      spec = found.specs[found.members["spec"][r]]
      assert networks.specs[networks.numbers[place]] == spec
      np.testing.assert_array_equal(
        networks.vectors[place], found.vectors([int(r)])[0]
      )
      assert networks.targets[place, 0] == found.property("frequency")[r]
    np.testing.assert_array_equal(
      data.property(part, "frequency"), networks.targets[:, 0]
    )
  with pytest.raises(ValueError, match="two is in zoo and in test_zoos"):
    members.gathered(resolve(names, f"--test_zoos={tmp_path / 'two'}", *SIZES))


def test_snapshots_choose_members(made, resolve):
  zoo, flag = made(
    properties={
      "frequency": writing.Property(np.arange(24.0), "a number"),
      "epoch": writing.Property(np.arange(24) % 2, "of the snapshot"),
    }
  )
  for wanted, epochs in (("last", {1}), ("0", {0}), ("", {0, 1})):
    zoo = store.Zoo.open(zoo.path)
    data = members.load(resolve(flag, *SIZES, f"--snapshots={wanted}"), zoo)
    found = [data.property(part, "epoch") for part in members.PARTS]
    assert set(np.concatenate(found)) == epochs
  with pytest.raises(ValueError, match="or other --snapshots"):
    members.load(resolve(flag, *SIZES, "--snapshots=7"), zoo)


def test_a_folder_among_several_that_is_not_there(made, resolve, tmp_path):
  _, flag = made()
  with pytest.raises(ValueError, match="there is no zoo .*typo"):
    members.gathered(resolve(flag, f"--test_zoos={tmp_path / 'typo'}", *SIZES))
  assert not (tmp_path / "typo").exists()


MAKES = """
--zoo={zoo}
--architecture=mlp
--num_networks=4
"""


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (("--zoo={made},{later}", "--targets=frequency"), "will be no property"),
    (("--zoo={later},{tmp}/typo",), "typo"),
    (("--zoo={later}", "--test_zoos={tmp}/typo"), "typo"),
    (("--zoo={later},{made}",), "no property 'test_accuracy'"),
    (("--zoo={later},{made}", "--loss=classes"), "no property 'test_accuracy'"),
  ],
)
def test_zoos_that_are_there_are_looked_at_first(
  flags, words, made, resolve, tmp_path, monkeypatch
):
  """Before another is made, which may take hours."""
  made()
  path = tmp_path / "later.flags"
  path.write_text(MAKES.format(zoo=tmp_path / "later"))
  known = {"made": tmp_path / "zoo", "later": path, "tmp": tmp_path}
  given = [flag.format(**known) for flag in flags]
  given = ["--targets=test_accuracy", *given]
  monkeypatch.setattr(zoos, "_make", lambda *_: pytest.fail("it makes one"))
  spawn = lambda *_: pytest.fail("it makes one")
  monkeypatch.setattr(zoos.multiprocessing, "get_context", spawn)
  with pytest.raises(ValueError, match=words):
    members.gathered(resolve(*given, *SIZES))
  assert not (tmp_path / "later").exists()


def test_snapshots_of_a_network_are_one_cluster(made, resolve):
  numbers = np.arange(24) // 3
  named = {"network": writing.Property(numbers, "three snapshots of each")}
  named["frequency"] = writing.Property(np.arange(24.0), "any number")
  zoo, flag = made(properties=named)
  data = members.gathered(resolve(flag, *SIZES))
  assert len(np.unique(data.clusters("train"))) < 14
  for part, found in data.members.items():
    clusters = data.clusters(part)
    networks = zoo.property("network")[found.row]
    assert len(clusters) == len(networks)
    for number in np.unique(clusters):
      assert len(np.unique(networks[clusters == number])) == 1
    assert len(np.unique(clusters)) == len(np.unique(networks))
