"""Splits: disjoint, of the size asked for, a function of ids and seed."""

import numpy as np
import pytest

from sne_jax.zoo.store import splits

IDS = [f"m{n}" for n in range(100)]


def test_counts_are_exact_and_parts_disjoint():
  parts = splits.random_split(
    IDS, seed=0, parts={"train": 60, "val": 15, "test": 20}
  )
  assert {part: len(some) for part, some in parts.items()} == {
    "train": 60,
    "val": 15,
    "test": 20,
  }
  together = np.concatenate(list(parts.values()))
  assert len(set(together)) == 95
  assert set(together) <= set(IDS)


def test_shares_cover_everything():
  parts = splits.random_split(
    IDS[:11], seed=0, parts={"train": 0.7, "val": 0.2, "test": 0.1}
  )
  assert [len(parts[p]) for p in splits.PARTS] == [8, 2, 1]


def test_does_not_depend_on_the_order_of_ids_but_on_the_seed():
  sizes = {"train": 50, "test": 50}
  one = splits.random_split(IDS, seed=3, parts=sizes)
  same = splits.random_split(IDS[::-1], seed=3, parts=sizes)
  other = splits.random_split(IDS, seed=4, parts=sizes)
  np.testing.assert_array_equal(one["train"], same["train"])
  assert set(one["train"]) != set(other["train"])
  overlap = len(set(one["train"]) & set(other["train"]))
  assert 10 < overlap < 40, "seeds give unrelated halves"


def test_is_what_it_was():
  # A change of this list would move members between parts of published splits.
  parts = splits.random_split(IDS[:6], seed=0, parts={"train": 3, "test": 3})
  assert parts["train"].tolist() == ["m0", "m3", "m4"]


def test_members_of_a_group_stay_together():
  groups = [n // 5 for n in range(100)]  # 20 groups of 5
  parts = splits.random_split(
    IDS, seed=0, parts={"train": 0.6, "val": 0.2, "test": 0.2}, groups=groups
  )
  where = {name: part for part, some in parts.items() for name in some}
  for first in range(0, 100, 5):
    assert len({where[name] for name in IDS[first : first + 5]}) == 1
  assert [len(parts[p]) for p in splits.PARTS] == [60, 20, 20]
  # The control: without groups, groups are torn apart.
  torn = splits.random_split(IDS, seed=0, parts={"train": 0.5, "test": 0.5})
  where = {name: part for part, some in torn.items() for name in some}
  assert any(
    len({where[name] for name in IDS[first : first + 5]}) > 1
    for first in range(0, 100, 5)
  )


def test_a_group_goes_where_its_middle_falls():
  # In this order: one member alone, then nine that reach from place 1 to 10.
  parts = splits.random_split(
    IDS[:10],
    seed=0,
    parts={"train": 3, "test": 7},
    groups=["alone"] + ["crowd"] * 9,
  )
  assert parts["train"].tolist() == ["m0"]
  assert len(parts["test"]) == 9


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"parts": {"train": 101}}, "101"),
    ({"parts": {"train": 0.8, "test": 0.3}}, "sum to"),
    ({"parts": {"train": 10, "test": 0.3}}, "all counts"),
    ({"parts": {"dev": 10}}, "dev"),
    ({"parts": {}}, "none"),
    ({"parts": {"train": -1}}, "negative"),
    ({"parts": {"train": 10}, "groups": [1]}, "1 groups for 100 ids"),
    ({"parts": {"train": 99, "val": 1}, "groups": [0] * 100}, "empty"),
  ],
)
def test_bad_requests_are_named(kwargs, message):
  with pytest.raises(ValueError, match=message):
    splits.random_split(IDS, seed=0, **kwargs)


def test_repeated_ids_are_refused():
  with pytest.raises(ValueError, match="unique"):
    splits.random_split(["a", "a"], seed=0, parts={"train": 1})
