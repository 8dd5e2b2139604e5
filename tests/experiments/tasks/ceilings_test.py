"""Ceilings of tau in results and reports, and one line where there are none."""

import json

import numpy as np
import pytest

from experiments.comparisons import comparison
from experiments.tasks import ceilings, members, outcome
from sne_jax.learning.evaluation import ceilings as estimates
from sne_jax.zoo.store import correct, writing

COUNT, IMAGES = 24, 64


def bits():
  """Half of the networks are coins of their own, the others one class."""
  rng = np.random.default_rng(0)
  classes = np.arange(IMAGES) % 4
  right = rng.random((COUNT, IMAGES)) < np.linspace(0.3, 1, COUNT)[:, None]
  right[::2] = classes == 1
  return right, classes


@pytest.fixture
def run_of(write_zoo, resolve, tmp_path):
  right, classes = bits()
  accuracy = writing.Property(right.mean(axis=1), "of a test")

  def make(*flags, **changes):
    zoo = write_zoo(
      tmp_path / "zoo", properties={"test_accuracy": accuracy}, **changes
    )
    options = resolve(
      *(f"--zoo={zoo.path}", "--train_members=8", "--validation_members=4"),
      *("--test_members=12", "--noreferences", "--targets=test_accuracy"),
      *flags,
    )
    return options, members.load(options, zoo)

  return make


def entry(options, taus=(0.5, 0.6)):
  name = members.target_labels(options.run)[0]
  row = lambda value: {"value": value, "low": value, "high": value}
  return [
    {
      "seed": seed,
      "metrics": {
        part: {name: {"kendall_tau": row(tau), "mse": row(1.0)}}
        for part in ("val", "test")
      },
      "predictions": {
        "val": [[0.5]] * 4,
        "test": np.linspace(0, 1, 12)[:, None].tolist(),
      },
      "invariance": {"variance": 1.0},
      **{"num_params": 7, "train_seconds": 1.0, "networks_per_second": 1.0},
    }
    for seed, tau in enumerate(taus)
  ]


def test_a_run_says_how_high_tau_can_be(run_of, tmp_path):
  right, classes = bits()
  options, data = run_of(right=correct.Correct.of(right, classes))
  results = outcome.collect(options, data, entry(options), {})
  row = results["ceilings"]["test"]
  mine = right[data.members["test"].row]
  same = estimates.collapsed(mine, classes)
  assert row["collapsed"] == (same == 1).sum() > 2
  assert row["kendall_tau"] == estimates.tau_ceiling([mine], [same])
  labels = data.parts["test"].targets[:, 0]
  assert row["ties"] == estimates.tie_ceiling(labels) < 1
  assert row["images"] == IMAGES
  reached = row["models"][ceilings.MEAN]
  assert reached["kendall_tau"] == pytest.approx(0.55)
  assert reached["share"] == pytest.approx(0.55 / row["kendall_tau"])
  outcome.write(tmp_path / "run", options, data, entry(options), results)
  report = (tmp_path / "run" / "report.md").read_text()
  assert "## Ceilings of tau" in report and "mean of the seeds" in report
  # Of a comparison, those that are compared.
  outcomes = {"one": results, "two": results}
  page = comparison.Page(["text"], "runs", compared=["two"])
  comparison.write(tmp_path / "all", options, outcomes, page)
  report = (tmp_path / "all" / "report.md").read_text()
  assert "| test | two" in " ".join(report.split())
  assert "| test | one" not in " ".join(report.split())
  kept = json.loads((tmp_path / "all" / "results.json").read_text())["runs"]
  assert kept["one"]["ceilings"]["test"]["images"] == IMAGES


def test_a_logarithm_has_the_same_ceiling(run_of):
  right = correct.Correct.of(*bits())
  options, data = run_of("--target_scale=log", right=right)
  results = outcome.collect(options, data, entry(options), {})
  assert ceilings.MEAN in results["ceilings"]["test"]["models"]


def test_a_zoo_without_bits_has_one_line(run_of, tmp_path):
  options, data = run_of()
  results = outcome.collect(options, data, entry(options), {})
  assert "ceilings" not in results
  outcome.write(tmp_path / "run", options, data, entry(options), results)
  report = (tmp_path / "run" / "report.md").read_text()
  assert report.count("--label_images") == 1 and "Ceilings" not in report
  page = comparison.Page(["text"], "runs")
  outcomes = {"one": results, "two": results}
  comparison.write(tmp_path / "all", options, outcomes, page)
  report = (tmp_path / "all" / "report.md").read_text()
  assert report.count("--label_images") == 1


def test_other_targets_have_none(run_of):
  right = correct.Correct.of(*bits())
  options, data = run_of(right=right)
  results = {"seeds": [], "references": {}}
  other = options.replaced(targets="train_accuracy")
  assert ceilings.added(results, other, data) is results
