"""Matrices: which models are trained, and what their tables say."""

import json
import math

import numpy as np
import pytest

from experiments.comparisons import comparison, matrix
from sne_jax.cli.reports import report
from sne_jax.networks import families
from sne_jax.zoo.store import writing

NAMES = ("red", "green", "blue")


@pytest.fixture
def folders(write_zoo, tmp_path):
  """Three zoos of one architecture; the flag that names them."""
  for seed, name in enumerate(NAMES):
    write_zoo(tmp_path / name, specs=(families.inr((1, 4, 1)),), seed=seed)
  return ",".join(str(tmp_path / name) for name in NAMES)


def rows(resolve, folders, *flags):
  options = resolve(f"--zoo={folders}", "--workdir=w", *flags)
  return {
    label: tuple(
      tuple(path.rpartition("/")[2] for path in text.split(",") if path)
      for text in (o.run.zoo, o.run.test_zoos)
    )
    for label, o in matrix.chosen(options).items()
  }


def test_each_trains_on_every_zoo_by_itself(resolve, folders):
  found = rows(resolve, folders, "--matrix=each", "--encoders=sne")
  assert found == {
    "sne: red": (("red",), ("green", "blue")),
    "sne: green": (("green",), ("red", "blue")),
    "sne: blue": (("blue",), ("red", "green")),
  }


def test_others_never_trains_on_what_it_tests(resolve, folders):
  found = rows(resolve, folders, "--matrix=others", "--encoders=mlp")
  assert found == {
    "mlp: all but red": (("green", "blue"), ("red",)),
    "mlp: all but green": (("red", "blue"), ("green",)),
    "mlp: all but blue": (("red", "green"), ("blue",)),
  }


def test_all_trains_once(resolve, folders):
  found = rows(resolve, folders, "--matrix=all", "--encoders=sne")
  assert found == {"sne: all zoos": (NAMES, ())}


def test_columns_may_be_other_zoos(resolve, folders, tmp_path):
  options = resolve(
    f"--zoo={tmp_path / 'red'}",
    f"--test_zoos={tmp_path / 'green'},{tmp_path / 'red'}",
    "--matrix=each",
    "--encoders=sne,mlp:7",
    "--num_steps=5",
    "--workdir=w",
  )
  found = matrix.chosen(options)
  assert [o.train.num_steps for o in found.values()] == [5, 7]
  assert list(found) == ["sne: red", "mlp: red"]
  assert found["mlp: red"].run.test_zoos == str(tmp_path / "green")
  assert found["mlp: red"].run.encoder == "mlp"
  # What is the same for all encoders is done once.
  assert [o.run.references for o in found.values()] == [True, False]


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (("--matrix=every",), "matrix is 'every'; choose one of each"),
    (("--matrix=each", "--variants=components"), "keep one of them"),
    (("--matrix=each", "--encoders=sne,snr"), "encoders names 'snr'"),
    (("--matrix=each", "--targets=a,b"), "name one"),
    (("--matrix=each", "--encoders=sne:many"), "a number of steps"),
  ],
)
def test_what_is_refused(resolve, folders, flags, words):
  with pytest.raises(ValueError, match=words):
    rows(resolve, folders, *flags)


def test_one_zoo_leaves_none_to_train_on(resolve, tmp_path):
  with pytest.raises(ValueError, match="no zoo is left to train on for red"):
    rows(resolve, str(tmp_path / "red"), "--matrix=others")


def test_two_zoos_of_one_name(resolve, tmp_path):
  twice = f"{tmp_path / 'a' / 'red'},{tmp_path / 'b' / 'red'}"
  with pytest.raises(ValueError, match="two zoos are called 'red'"):
    rows(resolve, twice, "--matrix=each")


def test_averages_are_of_cells_then_of_seeds():
  table = {
    ("a", "a"): {0: 0.9, 1: 0.7},
    ("a", "b"): {0: 0.1, 1: 0.3},
    ("b", "a"): {0: 0.5, 1: 0.5},
  }
  found = matrix.averages(table)
  assert math.isclose(found["within"]["mean"], 0.8)
  assert math.isclose(found["cross"]["mean"], 0.35)
  assert math.isclose(found["all"]["mean"], (0.5 + 0.5) / 2)
  # The interval is over seeds: 0.3 and 0.4 for "cross".
  spread = np.std([0.3, 0.4], ddof=1) / math.sqrt(2) * 12.706
  assert math.isclose(found["cross"]["high"] - 0.35, spread, rel_tol=1e-3)


def test_what_is_another_data_set_and_what_another_architecture():
  kinds = {
    name: {"dataset": [d], "architecture": [a]}
    for name, d, a in (("a", "x", "cnn"), ("b", "y", "cnn"), ("c", "x", "vit"))
  }
  table = {("a", "a"): {0: 0.9}, ("a", "b"): {0: 0.5}, ("a", "c"): {0: 0.1}}
  found = {k: v["mean"] for k, v in matrix.averages(table, kinds).items()}
  assert found.pop("all") == pytest.approx(0.5)
  assert found == pytest.approx(
    {"within": 0.9, "other data set": 0.5, "other architecture": 0.1}
    | {"cross": 0.3}
  )


def test_of_all_zoos_together_what_was_trained_on_is_within():
  table = {(matrix.ALL, "a"): {0: 0.9}, (matrix.ALL, "b"): {0: 0.5}}
  found = matrix.averages(table, trained={"a", "b"})
  assert found["within"]["mean"] == pytest.approx(0.7) and "cross" not in found
  found = matrix.averages(table, trained={"a"})
  assert (found["within"]["mean"], found["cross"]["mean"]) == (0.9, 0.5)


def test_a_cell_that_is_missing_leaves_no_average():
  found = matrix.averages({("a", "b"): {0: None}, ("a", "c"): {0: 0.5}})
  assert math.isnan(found["cross"]["mean"])


@pytest.mark.slow
def test_the_smallest_matrix(launch, folders, tmp_path):
  flags = (
    *("--matrix=each", "--encoders=stat_pool", "--targets=frequency"),
    *("--references=true", "--num_steps=2"),
  )
  two, names = folders.rpartition(",")[0], NAMES[:2]
  ended = launch(tmp_path / "run", two, *flags)
  assert not ended.code, ended.error
  found = json.loads((tmp_path / "run" / "results.json").read_text())
  assert found["rows"] == found["columns"] == list(names)
  models = {"stat_pool", "constant", "ridge", "boosting"}
  for metric in matrix.METRICS:
    assert set(found["cells"][metric]) == models
    for cells in found["cells"][metric].values():
      assert set(cells) == {f"{r} -> {c}" for r in names for c in names}
  # A cell is what the model's own report says of that part.
  own = json.loads(
    (tmp_path / "run" / "stat_pool__red" / "results.json").read_text()
  )
  for part, column in (("test", "red"), ("test on green", "green")):
    values = [s["metrics"][part]["mae"]["value"] for s in own["seeds"]]
    cell = found["cells"]["mae"]["stat_pool"][f"red -> {column}"]
    assert math.isclose(cell["mean"], np.mean(values))
  assert found["cells"]["kendall_tau"]["constant"]["red -> red"]["mean"] is None
  text = (tmp_path / "run" / "report.md").read_text()
  assert "figures/kendall_tau.png" in text and "| within" in text
  (cost,) = found["models"]["stat_pool: red"]["costs"]
  assert own["costs"] == [cost] and cost["seconds_per_network"] > 0
  assert report.number(cost["seconds_per_network"]) in text
  assert (tmp_path / "run" / "figures" / "kendall_tau.png").stat().st_size
  # Finished models are not trained again: their files are left as they are.
  results = tmp_path / "run" / "stat_pool__red" / "seed0" / "result.json"
  before = results.stat().st_mtime_ns
  again = launch(tmp_path / "run", two, *flags)
  assert not again.code and results.stat().st_mtime_ns == before
  assert (
    json.loads((tmp_path / "run" / "results.json").read_text())["cells"]
    == (found["cells"])
  )


def test_a_later_row_is_looked_at_before_the_first_is_trained(
  launch, write_zoo, tmp_path
):
  """Blue networks know a class that the red ones do not have."""
  for name, kinds in (("red", "xy"), ("blue", "xyz")):
    text = [kinds[n % len(kinds)] for n in range(24)]
    kind = writing.Property(text, "a text")
    write_zoo(tmp_path / name, properties={"kind": kind})
  flags = ("--matrix=each", "--targets=kind", "--loss=classes")
  flags += ("--monitor=accuracy", "--encoders=stat_pool")
  for first in ("red", "blue"):
    other = {"red": "blue", "blue": "red"}[first]
    zoos = f"{tmp_path / other},{tmp_path / first}"
    ended = launch(tmp_path / "run", zoos, *flags)
    assert "trained on red" in ended.error and "'z'" in ended.error
    assert not list((tmp_path / "run").glob("*/seed*"))


def test_costs_and_maps_of_all_models(resolve, folders, tmp_path):
  options = resolve(f"--zoo={folders}", "--matrix=all", "--encoders=sne,mlp")
  empty = {"seeds": [], "sizes": {}, "num_params": 1, "seconds": {}}
  empty |= {"networks_per_second": 1, "references": {}, "zoos": {}}
  outcomes = {
    f"{name}: all zoos": empty
    | {
      "environment": {},
      "costs": [{"model": name, "seconds_per_network": seconds}],
      "maps": {"mixing of zoo": mixed},
    }
    for name, seconds, mixed in (("sne", 0.25, 0.125), ("mlp", 0.5, 0.75))
  }
  page = matrix.page(options, outcomes)
  comparison.write(tmp_path / "run", options, outcomes, page)
  models = json.loads((tmp_path / "run" / "results.json").read_text())["models"]
  for label, results in outcomes.items():
    for name in ("costs", "maps"):
      assert models[label][name] == results[name]
  text = (tmp_path / "run" / "report.md").read_text()
  rows = [
    line.split("|") for line in text.splitlines() if ": all zoos " in line
  ]
  assert [[c.strip() for c in row[1:-1]] for row in rows] == [
    ["sne: all zoos", "0.25", "n/a"],
    ["mlp: all zoos", "0.5", "n/a"],
    ["sne: all zoos", "0.125"],
    ["mlp: all zoos", "0.75"],
  ]
  for words in (
    "## Cost of a prediction",
    "## Mixing of the codes",
    "of zoo |",
  ):
    assert words in text


def test_costs_of_images_are_those_of_a_row():
  outcomes = {
    "mlp: red": {
      "costs": [
        {"model": "mlp", "seconds_per_network": 0.25},
        {"model": "9 images", "seconds_per_network": 2, "flops_per_network": 7},
      ]
    },
    "sne: red": {"costs": [{"model": "sne", "seconds_per_network": 0.5}]},
    "sne: blue": {},
  }
  (_, _, table) = matrix._cost_section(outcomes)
  cells = [
    [c.strip() for c in line.split("|")[1:-1]] for line in table.split("\n")
  ]
  assert cells[2:] == [
    ["mlp: red", "0.25", "n/a"],
    ["9 images: red", "2", "7"],
    ["sne: red", "0.5", "n/a"],
  ]
  assert matrix._cost_section({}) == matrix._map_section(outcomes) == []


def test_a_reference_without_a_part_is_missing_there(resolve, folders):
  options = resolve(f"--zoo={folders}", "--matrix=each", "--encoders=mlp")
  value = {"mae": {"value": 0.5}}
  results = {"seeds": [], "references": {"few images": {"test": value}}}
  found = matrix.cells(options, {"mlp: red": results})["mae"]["few images"]
  assert found == {
    ("red", "red"): {-1: 0.5},
    ("red", "green"): {-1: None},
    ("red", "blue"): {-1: None},
  }
  assert math.isnan(matrix.averages(found)["cross"]["mean"])
