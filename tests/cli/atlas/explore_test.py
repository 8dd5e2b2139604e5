"""`sne-jax explore`, of a zoo, and of a run and its zoo."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest
from absl import flags

import sne_jax
from sne_jax.cli import config, main
from sne_jax.cli.atlas import predicting
from sne_jax.cli.commands import explore
from sne_jax.encoders.baselines import stat_nn
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.evaluation import judgement
from sne_jax.networks import families
from sne_jax.zoo.store import store, writing
from tests.cli.atlas import reading

SPECS = families.inr((1, 4, 1)), families.inr((1, 3, 3, 1))
TARGET = "log10 size"


def launch(*arguments):
  """Runs the command; returns its exit code and what it says."""
  values = flags.FlagValues()
  main.define_flags(explore, values)
  out, err, code = io.StringIO(), io.StringIO(), 0
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    try:
      rest = config.parse(
        ["program", *map(str, arguments)], values, positional=True
      )
      code = config.guarded(
        lambda argv: explore.main(argv, values), rest, values
      )
    except SystemExit as ended:
      code = ended.code
  return int(code or 0), out.getvalue(), err.getvalue()


def refused(*arguments):
  code, out, err = launch(*arguments)
  assert code == 2 and not out and err.count("\n") == 1, err
  return err


def write_zoo(path, count=15, seed=0, **more):
  rng = np.random.default_rng(seed)
  weights = [
    rng.normal(size=(count, s.num_weights)).astype(np.float32) for s in SPECS
  ]
  total = 2 * count
  valid = np.ones(total, bool)
  valid[3] = False  # Is not shown.
  properties = {
    "note": np.array(["x", "y"])[np.arange(total) % 2],
    "size": np.concatenate([np.abs(w).mean(axis=1) for w in weights]).astype(
      float
    ),
  } | more
  ids = [f"m{n:02d}" for n in range(total)]
  parts = {"train": ids[::2], "val": ids[1::4], "test": ids[3::4]}
  return writing.write_zoo(
    path,
    specs=SPECS,
    weights=weights,
    spec_numbers=np.repeat([0, 1], count),
    rows=np.tile(np.arange(count), 2),
    properties={
      name: writing.Property(values, f"the {name}", "")
      for name, values in properties.items()
    },
    ids=ids,
    valid=valid,
    splits={"default": parts},
  )


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
  path = tmp_path_factory.mktemp("explore") / "zoo"
  write_zoo(path)
  return path


@pytest.fixture(scope="module")
def trained(zoo):
  """A run, as it lies on the disk, and its predictor."""
  workdir = zoo.parent / "run"
  parts = {}
  for part in ("train", "val", "test"):
    networks = Networks.from_zoo(zoo, "size", part=part)
    sizes = {TARGET: np.log10(networks.targets[:, 0])}
    parts[part] = Networks.of(networks, sizes)
  predictor = sne_jax.fit(
    *(parts["train"], parts["val"]),
    tests={"test": parts["test"]},
    workdir=workdir,
    encoder="stat_pool",
    options=stat_nn.StatOptions(width=4, layers=1),
    data=sne_jax.DataOptions(batch_size=4),
    training=sne_jax.TrainOptions(num_steps=4, eval_every=2, log_every=2),
    devices=1,
  )
  results = {"headline": "It went well.", "zoos": {"zoo": {"path": "../zoo"}}}
  (workdir / "results.json").write_text(json.dumps(results))
  return workdir, predictor


def values_of(text):
  """Returns the columns of a page by name; words as words."""
  header, arrays = reading.data_of(text)
  found = {}
  for place, column in enumerate(header["columns"]):
    values = arrays[f"column/{place}"]
    if column["words"]:
      words = np.array([*column["words"], ""])
      values = words[np.minimum(values, len(words) - 1)]
    found[column["name"]] = values
  return header, arrays, found


def test_a_zoo_is_shown_by_its_statistics(zoo, tmp_path):
  out = tmp_path / "new" / "a.html"
  code, said, _ = launch(zoo, f"--out={out}", "--layouts=pca", "--title=Mine")
  assert code == 0 and said.startswith(f"29 networks in {out} (")
  text = out.read_text()
  reading.check_alone(text)
  assert "<h1>Mine</h1>" in text and "nothing was learned" in text
  header, _, found = values_of(text)
  opened = store.Zoo.open(zoo)
  rows = opened.select()
  assert header["names"] == list(opened.members["id"][rows])
  np.testing.assert_allclose(found["size"], opened.property("size")[rows], 1e-6)
  assert list(found)[0] == "size"  # Numbers before words.
  assert found["note"].tolist() == list(opened.property("note")[rows])
  parts = opened.split("default")
  for part, members in parts.items():
    assert set(np.array(header["names"])[found["part"] == part]) == set(
      opened.members["id"][members]
    )
  assert set(found["architecture"]) == {"2 dense", "3 dense"}


def test_a_run_says_what_it_predicts(trained, zoo, tmp_path):
  workdir, predictor = trained
  out = tmp_path / "a.html"
  code, _, err = launch(workdir, f"--out={out}", "--layouts=pca")
  assert code == 0, err
  text = out.read_text()
  assert "It went well." in text
  header, arrays, found = values_of(text)
  opened = store.Zoo.open(zoo)
  rows = opened.select()
  pairs = [
    (opened.specs[opened.members["spec"][row]], vector)
    for row, vector in zip(rows, opened.vectors(rows), strict=True)
  ]
  judged = predictor.judge(pairs)
  predicted = found[f"predicted {TARGET}"]
  np.testing.assert_allclose(predicted, judged.predictions[:, 0], 1e-5)
  place = [c["name"] for c in header["columns"]].index(f"predicted {TARGET}")
  np.testing.assert_allclose(arrays[f"low/{place}"], judged.low[:, 0], 1e-5)
  np.testing.assert_allclose(arrays[f"high/{place}"], judged.high[:, 0], 1e-5)
  np.testing.assert_allclose(found["novelty"], judged.unlike, 1e-4)
  truth = np.log10(opened.property("size")[rows])
  np.testing.assert_allclose(
    found[f"error of {TARGET}"], judged.predictions[:, 0] - truth, atol=1e-5
  )


def test_a_run_shows_another_zoo(trained, tmp_path):
  workdir, _ = trained
  write_zoo(tmp_path / "other", 4, seed=1)
  write_zoo(tmp_path / "third", 3, seed=2, more=np.arange(6))
  out = tmp_path / "a.html"
  zoos = f"--zoo={tmp_path / 'other'},{tmp_path / 'third'}"
  code, said, err = launch(
    workdir, zoos, f"--out={out}", "--layouts=pca", "--colour=more"
  )
  assert code == 0 and said.startswith("12 networks in"), err
  header, _, found = values_of(out.read_text())
  assert list(found)[0] == "more"
  assert header["names"][:2] == ["other/m00", "other/m01"]
  assert found["zoo"].tolist() == ["other"] * 7 + ["third"] * 5
  assert np.isnan(found["more"][:7]).all()
  assert found["more"][7:].tolist() == [0, 1, 2, 4, 5]


def test_of_too_many_networks_some_are_drawn_and_it_is_said(zoo, tmp_path):
  out = tmp_path / "a.html"
  for seed in (0, 1, 0):
    code, said, _ = launch(
      *(zoo, f"--out={out}", "--layouts=pca", "--most=6"),
      f"--draw_seed={seed}",
    )
    assert code == 0 and said.startswith("6 networks")
    assert "A draw of 6 of 29 networks." in out.read_text()
    names = reading.data_of(out.read_text())[0]["names"]
    first = names if not seed else first
    assert (names == first) == (not seed)


def test_classes_are_named_and_judged():
  probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
  truth = {"kind": np.array(["a", "a", "b"])}
  none = np.full(3, np.nan)
  judged = judgement.Judgement(probabilities, *[none] * 6)
  columns = predicting.predicted(("kind",), ("a", "b"), judged, truth)
  assert columns["predicted kind"].values.tolist() == ["a", "b", "b"]
  assert columns["probability of it"].values.tolist() == [0.9, 0.6, 0.8]
  assert columns["rightly predicted"].values.tolist() == [True, False, True]


def test_bad_input_is_one_line(trained, zoo, tmp_path):
  workdir, _ = trained
  out = tmp_path / "page" / "a.html"
  page = f"--out={out}"
  assert "got 0: sne-jax explore runs/own" in refused(page)
  assert f"no folder {tmp_path}/x;" in refused(tmp_path / "x", page)
  assert "neither a run nor a zoo" in refused(tmp_path, page)
  assert "must end with .html" in refused(zoo, "--out=a.png")
  assert "choose of pca, tsne, umap" in refused(zoo, page, "--layouts=x")
  assert "colour is 'sise'; choose of" in refused(zoo, page, "--colour=sise")
  assert "holds no zoo.json" in refused(workdir, page, f"--zoo={tmp_path}")
  assert "leave --zoo out" in refused(zoo, page, f"--zoo={zoo}")
  copy = tmp_path / "copy"
  shutil.copytree(workdir, copy)
  assert "say with --zoo where it is now" in refused(copy, page)
  (copy / "results.json").unlink()
  assert "does not say which zoo it was about" in refused(copy, page)
  assert not out.exists()
  assert not [p for p in tmp_path.glob("page/*")]
