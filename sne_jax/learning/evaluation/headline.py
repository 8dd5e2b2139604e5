"""What came out, in one plain sentence: how well, against what, on how many."""

import math
from collections.abc import Mapping
from typing import Any

HEADLINES = ("kendall_tau", "accuracy")
"""The metrics that a sentence is about: of numbers, and of classes."""

REFERENCES = {
  "constant": "always saying the same",
  "ridge": "ridge regression on statistics of the weights",
  "logistic": "logistic regression on statistics of the weights",
  "boosting": "boosted trees on statistics of the weights",
}
"""What reports call references, in words."""


def sentence(results: Mapping[str, Any]) -> str:
  """Returns the sentence of a run; empty where it has no such numbers.

  Args:
    results: plain values, as `results.json` holds them: `target`, `sizes`,
      `seeds`, with `metrics` of the part `test`, and `references`.
  """
  rows = [
    seed["metrics"]["test"]
    for seed in results["seeds"]
    if "test" in seed.get("metrics", ())
  ]
  references: dict[str, Any] = {
    str(REFERENCES.get(name) or name): parts["test"]
    for name, parts in (results.get("references") or {}).items()
    if "test" in parts
  }
  clauses = []
  for key in rows[0] if rows else ():
    target, _, metric = key.rpartition(" ")
    if metric in HEADLINES:
      values = [_value(row.get(key)) for row in rows]
      others = {name: _value(row.get(key)) for name, row in references.items()}
      clauses.append(
        _clause(
          *(target or str(results["target"]), metric),
          *(sum(values) / len(values), others),
        )
      )
  if not clauses:
    return ""
  sizes = results["sizes"]
  learned = sizes.get("train", 0) + sizes.get("val", 0)
  return (
    f"On {sizes['test']} test networks that took no part in training"
    f" ({learned} did), {'; '.join(clauses)}."
  )


def _clause(
  target: str, metric: str, value: float, others: Mapping[str, float]
) -> str:
  """Returns what is said of one target."""
  share = metric == "accuracy"
  show = lambda number: f"{number:.0%}" if share else f"{number:.2f}"
  known = {n: v for n, v in others.items() if math.isfinite(v)}
  if not math.isfinite(value):
    text = f"how good the predicted {target} is could not be measured"
  elif share:
    text = f"the predicted {target} is right for {show(value)}"
  else:
    text = (
      f"predicted and true {target} have a Kendall tau of {show(value)} (1 is"
      " the same order, 0 is chance)"
    )
  if not others:
    return f"{text}, and no simple reference was fitted"
  if not known:
    return f"{text}, and no simple reference has such a number"
  best = max(known, key=lambda name: known[name])
  text += f"; the best simple reference, {best}, has {show(known[best])}"
  return f"{text}, and so is no worse" if known[best] >= value else text


def _value(entry: Mapping[str, Any] | None) -> float:
  """Returns the number of `{"value": ...}`; nan where there is none."""
  value = (entry or {}).get("value")
  return math.nan if value is None else float(value)
