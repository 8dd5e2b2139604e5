"""The first sentence of a report."""

import re

import pytest

from sne_jax.learning.evaluation import headline


def results(metrics, references, **changes):
  plain = lambda row: {name: {"value": v} for name, v in row.items()}
  return {
    "target": "accuracy",
    "sizes": {"train": 210, "val": 45, "test": 45},
    "seeds": [
      {"seed": n, "metrics": {"test": plain(row)}}
      for n, row in enumerate(metrics)
    ]
    + [{"seed": 9, "failed": "it diverged"}],
    "references": {n: {"test": plain(row)} for n, row in references.items()},
  } | changes


def test_it_says_how_well_against_what_and_on_how_many():
  found = headline.sentence(
    results(
      [{"mse": 1.0, "kendall_tau": 0.8}, {"mse": 1.0, "kendall_tau": 0.9}],
      {
        "constant": {"kendall_tau": None},
        "ridge": {"kendall_tau": 0.5},
        "boosting": {"kendall_tau": 0.61},
      },
    )
  )
  assert found == (
    "On 45 test networks that took no part in training (255 did), predicted and"
    " true accuracy have a Kendall tau of 0.85 (1 is the same order, 0 is"
    " chance); the best simple reference, boosted trees on statistics of the"
    " weights, has 0.61."
  )


@pytest.mark.parametrize(
  ("metrics", "references", "words"),
  [
    (
      {"accuracy": 0.8, "balanced_accuracy": 0.1},
      {"constant": {"accuracy": 0.8}},
      "accuracy is right for 80%; the best simple reference, always saying the"
      " same, has 80%, and so is no worse.",
    ),
    ({"kendall_tau": None}, {}, "could not be measured, and no simple ref"),
    ({"kendall_tau": 0.5}, {}, "0.50 .*and no simple reference was fitted"),
    (
      {"a kendall_tau": 0.5, "b kendall_tau": 0.25},
      {"ridge": {"a kendall_tau": 0.4, "b kendall_tau": 0.3}},
      "true a have .* 0.50 .*has 0.40; predicted and true b have .* 0.25 .*"
      "has 0.30, and so is no worse",
    ),
  ],
)
def test_what_else_it_says(metrics, references, words):

  found = headline.sentence(results([metrics], references))
  assert re.search(words, found), found


def test_it_says_nothing_of_other_numbers():
  assert not headline.sentence(results([{"r_squared": 1.0}], {}))
  assert not headline.sentence(results([], {}))
