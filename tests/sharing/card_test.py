"""What a model card says."""

import pytest

from sne_jax.sharing import card, folders


def test_a_card_says_all_that_a_stranger_must_know(given):
  page = (given / card.PAGE).read_text()
  for text in (
    *("license: apache-2.0", "# sizes", "The size of weights."),
    *("24 drawn networks.", "Nothing that matters.", "2 trainings"),
    *('from_pretrained("sizes")', "## Where it must not be used"),
    "| test | size | kendall_tau | ",
  ):
    assert text in page, text


def test_figures_are_those_of_the_training(given, predictor):
  facts = folders.read_facts(given)
  each = [
    result["metrics"]["test"]["size"]["mae"] for result in predictor.results
  ]
  found = facts.metrics["test"]["size"]["mae"]
  assert found["value"] == pytest.approx(sum(e["value"] for e in each) / 2)
  assert found["low"] == min(e["low"] for e in each)
  assert found["high"] == max(e["high"] for e in each)
  assert set(facts.metrics) == {"test"} and facts.seeds == 2


def test_what_nobody_said_is_said_to_be_unsaid():
  description = {"targets": ["a"], "classes": ["x", "y"]}
  page = card.page(card.Facts(), description, ())
  assert page.count("Nobody has said so.") == 3
  assert "a probability for each of x, y" in page
  assert "None were given." in page and "license:" not in page


def test_the_best_reference_stands_beside_the_figures():
  one = lambda value: {"value": value, "low": value - 1, "high": value + 1}
  results = {
    "references": {
      "constant": {"test": {"kendall_tau": {"value": None}, "mae": one(3.0)}},
      "ridge": {"test": {"kendall_tau": one(0.5), "mae": one(2.0)}},
      "boosting": {
        "val": {"kendall_tau": one(0.9)},
        "test": {"kendall_tau": one(0.6), "mae": one(2.5), "mse": one(0.0)},
      },
    }
  }
  found = card.references_of(results, ["frequency"])["test"]["frequency"]
  assert found["kendall_tau"]["value"] == 0.6 and found["mae"]["value"] == 2.0
  assert "trees" in found["kendall_tau"]["name"] and set(found) == {
    *("kendall_tau", "mae")
  }
  several = {
    "references": {"ridge": {"test": {"a mae": one(1), "b mae": one(2)}}}
  }
  of_both = card.references_of(several, ["a", "b"])["test"]
  assert of_both["b"]["mae"]["value"] == 2
  metrics = {"test": {"frequency": {"mae": one(1.0), "accuracy": one(1.0)}}}
  facts = card.Facts(metrics=metrics, references={"test": {"frequency": found}})
  page = card.page(facts, {"targets": ["frequency"]}, ())
  assert "| 1 [0, 2] | 2 [1, 3] (ridge regression" in page
  assert "| accuracy | 1 [0, 2] | none |" in page
