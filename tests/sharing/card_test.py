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
