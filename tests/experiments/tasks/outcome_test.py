"""What the seeds gave, put together: means, failures, figures."""

import math
import types

import numpy as np
import pytest

from experiments.tasks import members, outcome
from sne_jax.learning.evaluation import references


def entry(seed, value):
  rows = {
    name: {"value": value, "low": value, "high": value}
    for name in outcome.METRICS
  }
  move = {"error": value, "ratio": 10 * value}
  return {
    "seed": seed,
    "metrics": {part: {"frequency": rows} for part in ("val", "test")},
    "predictions": {
      part: [[1.0], [2.0], [3.0], [4.0], [5.0]] for part in ("val", "test")
    },
    "invariance": {
      "variance": 1.0,
      "true permutation": move,
      "shuffled chunks": move,
    },
    "num_params": 7,
    "best_step": 2,
    "train_seconds": 1.0 + seed,
    "networks_per_second": 100.0,
  }


FAILED = {"seed": 9, "failed": "training diverged"}


@pytest.fixture
def run(write_zoo, resolve, tmp_path):
  zoo = write_zoo(tmp_path / "zoo")
  options = resolve(
    *(f"--zoo={zoo.path}", "--train_members=14", "--validation_members=5"),
    *("--test_members=5", "--noreferences"),
  )
  return options, members.load(options, zoo)


def test_failed_seeds_are_in_no_mean(run):
  options, data = run
  seeds = [entry(0, 0.25), FAILED, entry(2, 0.75)]
  results = outcome.collect(options, data, seeds, {"stage": 1.0})
  assert results["summary"]["mse"]["mean"] == 0.5
  assert results["summary"]["mse"]["count"] == 2
  assert results["invariance"]["shuffled chunks, ratio"] == 5.0
  assert results["num_params"] == 7
  assert FAILED in results["seeds"]
  assert results["seconds"]["training seed 2"] == 3.0
  assert results["config"]["RunOptions"]["test_members"] == 5


def test_nothing_has_finished(run, tmp_path):
  options, data = run
  results = outcome.collect(options, data, [FAILED], {})
  assert results["summary"] == {}
  assert math.isnan(results["networks_per_second"])
  outcome.write(tmp_path / "run", options, data, [FAILED], results)
  report = (tmp_path / "run" / "report.md").read_text()
  assert "**Seed 9 failed**" in report
  assert "There are no metrics" in report


def test_report_and_figures(run, tmp_path):
  options, data = run
  seeds = [entry(0, 0.25), FAILED]
  results = outcome.collect(options, data, seeds, {})
  outcome.write(tmp_path / "run", options, data, seeds, results)
  report = (tmp_path / "run" / "report.md").read_text()
  for name in ("predicted_frequency", "error_frequency", "invariance"):
    assert f"figures/{name}.png" in report
    assert (tmp_path / "run" / "figures" / f"{name}.png").stat().st_size > 1000


def test_metrics_of_a_logarithm_say_so(run, tmp_path):
  options, _ = run
  options = options.replaced(target_scale="log")
  data = members.gathered(options)
  results = outcome.collect(options, data, [entry(0, 0.25)], {})
  outcome.write(tmp_path / "run", options, data, [entry(0, 0.25)], results)
  report = (tmp_path / "run" / "report.md").read_text()
  assert "Metrics of the predicted log10 frequency" in report
  assert "figures/predicted_log10_frequency.png" in report


def test_several_targets_have_metrics_of_their_own(run):
  options, data = run
  seed = entry(0, 0.25)
  for part in seed["metrics"].values():
    part["amplitude"] = part["frequency"]
  options = options.replaced(targets="frequency,amplitude")
  results = outcome.collect(options, data, [seed], {})
  assert "frequency mse" in results["summary"]
  assert "amplitude mse" in results["summary"]


def test_references_see_the_same_split(run, monkeypatch):
  options, data = run
  seen = {}

  def fake(parts, **_):
    seen.update(parts)
    predictions = {part: y for part, (_, y) in parts.items()}
    return {"oracle": references.Reference(predictions, {})}

  monkeypatch.setattr(references, "all_references", fake)
  results = outcome.collect(
    options.replaced(references=True), data, [entry(0, 0.5)], {}
  )
  for part, networks in data.parts.items():
    features, targets = seen[part]
    np.testing.assert_array_equal(targets, networks.targets[:, 0])
    assert len(features) == len(networks.vectors)
  assert results["references"]["oracle"]["test"]["mse"]["value"] == 0.0


def test_only_zoos_with_flagged_members_are_named():
  zoos = [
    types.SimpleNamespace(members={"valid": np.array([True, False, False])}),
    types.SimpleNamespace(
      members={"valid": np.ones(2, bool), "converged": np.array([0, 1]) > 0}
    ),
    types.SimpleNamespace(members={"valid": np.ones(2, bool)}),
  ]
  assert members.flagged(["a", "b", "c"], zoos) == [
    "2 members of a are flagged as not valid.",
    "1 members of b are flagged as not converged.",
  ]
