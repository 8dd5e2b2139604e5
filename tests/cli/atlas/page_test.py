"""What a page holds: read back as its script reads it."""

import dataclasses

import numpy as np
import pytest

from sne_jax.cli.atlas import content, layouts, packing, page
from sne_jax.networks import families
from tests.cli.atlas import reading

SMALL, LARGE = families.inr((1, 4, 1)), families.inr((1, 3, 3, 1))


def made(count=12, seed=0, specs=(SMALL, LARGE), **changes):
  """An atlas of two architectures in turn, and columns of every kind."""
  rng = np.random.default_rng(seed)
  numbers = np.arange(count) % len(specs)
  values = rng.normal(size=count)
  columns = {
    "predicted frequency": content.Column(values, values - 1, values + 2),
    "frequency": content.Column(np.where(values > 1, np.nan, values)),
    "dataset": content.Column(np.array(["a", "b", "b"] * count)[:count]),
    "good": content.Column(np.arange(count) % 3 == 0),
    "note": content.Column(np.array([""] + ["x"] * (count - 1))),
  }
  fields = {
    "title": "A <b> & c",
    "codes": rng.normal(size=(count, 5)),
    "code_name": "codes",
    "names": [f"net{n}" for n in range(count)],
    "specs": specs,
    "numbers": numbers,
    "vectors": [
      rng.normal(size=specs[n].num_weights).astype(np.float32) for n in numbers
    ],
    "columns": columns,
  }
  return content.Atlas(**fields | changes)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  path = tmp_path_factory.mktemp("page") / "a.html"
  atlas = made()
  page.write(path, atlas)
  return atlas, path.read_text()


def test_a_page_is_alone_and_escapes_text(written):
  _, text = written
  reading.check_alone(text)
  assert "<h1>A &lt;b&gt; &amp; c</h1>" in text and "<b>" not in text
  assert text.count('<script type="module">') == 1


def test_columns_are_what_was_given(written):
  atlas, text = written
  header, arrays = reading.data_of(text)
  assert header["count"] == 12 and header["names"] == atlas.names
  named = {c["name"]: (n, c) for n, c in enumerate(header["columns"])}
  place, column = named["predicted frequency"]
  given = atlas.columns["predicted frequency"]
  for what, values in zip(
    ("column", "low", "high"),
    (given.values, given.low, given.high),
    strict=True,
  ):
    np.testing.assert_array_equal(
      arrays[f"{what}/{place}"], values.astype(np.float32)
    )
  assert column["interval"] and column["inTip"] and column["words"] is None
  place, column = named["frequency"]
  assert not column["interval"] and f"low/{place}" not in arrays
  np.testing.assert_array_equal(
    arrays[f"column/{place}"],
    atlas.columns["frequency"].values.astype(np.float32),
  )
  place, column = named["dataset"]
  assert column["words"] == ["b", "a"]  # The most frequent first.
  words = np.array(column["words"])[arrays[f"column/{place}"]]
  np.testing.assert_array_equal(words, atlas.columns["dataset"].values)
  place, column = named["good"]
  assert column["words"] == ["no", "yes"]
  place, _ = named["note"]
  assert arrays[f"column/{place}"].tolist() == [page.MISSING] + [0] * 11


def test_networks_find_their_weights(written):
  atlas, text = written
  header, arrays = reading.data_of(text)
  for network in range(12):
    number, row = arrays["spec"][network], arrays["row"][network]
    spec = atlas.specs[number]
    said = header["specs"][number]
    assert said["parameters"] == spec.num_weights
    assert len(said["rows"]) == len(spec.tensors)
    first = atlas.vectors[network][: spec.tensors[0].size]
    mean, deviation = arrays[f"ranges/{number}"][row, 0, 2:]
    np.testing.assert_allclose(
      (mean, deviation), (first.mean(), first.std()), rtol=1e-5
    )


def test_neighbours_are_those_of_the_codes(written):
  atlas, text = written
  header, arrays = reading.data_of(text)
  scaled = layouts.standardised(atlas.codes)
  apart = np.linalg.norm(scaled[:, None] - scaled[None], axis=-1)
  np.fill_diagonal(apart, np.inf)
  order = np.argsort(apart, axis=1)[:, : header["neighbours"]]
  np.testing.assert_array_equal(arrays["near"], order)
  np.testing.assert_allclose(
    arrays["far"], np.take_along_axis(apart, order, 1), rtol=1e-4
  )


def test_a_column_of_many_words_colours_nothing():
  names = np.array([f"run{n}" for n in range(page.WORDS + 1)])
  atlas = made(len(names))
  columns = {
    "many": content.Column(names),
    "one": content.Column(np.full(len(names), "same")),
    "few": content.Column(np.where(names < "run4", "a", "b")),
  }
  header, _ = page.described(dataclasses.replace(atlas, columns=columns))
  assert [c["colours"] for c in header["columns"]] == [False, False, True]


def test_weights_are_bounded_for_every_number_of_networks(monkeypatch):
  deep = families.inr((1, *[2] * 12, 1))  # 26 tensors.
  monkeypatch.setattr(page, "WEIGHTS_BYTES", 40 * 36 * 6)
  _, arrays = page.described(made(40, specs=(deep,)))
  assert arrays["counts/0"].shape == (40, 6, 20)
  size = arrays["counts/0"].nbytes + arrays["ranges/0"].nbytes
  assert size <= page.WEIGHTS_BYTES


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"names": ["a"]}, "12 codes, but 1 of names"),
    (
      {"codes": np.full((12, 2), np.nan)},
      "codes of 12 networks are",
    ),
    ({"columns": {"x": content.Column(np.ones(3))}}, "3 of column x"),
  ],
)
def test_what_is_not_of_all_networks_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    made(**changes)


def test_a_block_reads_back_whatever_the_lengths():
  arrays = {
    "a": np.arange(3, dtype=np.uint8),
    "b": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "c": np.array([-5, 1 << 30], np.int32),
    "d": np.zeros((0, 4), np.uint16),
    "e": np.arange(5, dtype=">u2").astype(np.uint16),
  }
  for lead in ("", "x", "äöü", "xxxxxxx"):
    header, found = reading.unpacked(packing.packed({"lead": lead}, arrays))
    assert header == {"lead": lead}
    for name, array in arrays.items():
      assert found[name].shape == array.shape
      np.testing.assert_array_equal(found[name], array)
  assert packing.packed({}, arrays) == packing.packed({}, arrays)
  with pytest.raises(ValueError, match="'a' is of type float64; give one of"):
    packing.packed({}, {"a": np.zeros(2)})
