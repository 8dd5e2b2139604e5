"""What is said of a model that is given away, and the page that says it.

Dimensions: none.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sne_jax.learning.evaluation.headline import REFERENCES
from sne_jax.version import VERSION

FILE = "card.json"
PAGE = "README.md"
SMALL = ("mae",)
"""Metrics that are good where they are small."""
SHOWN = ("kendall_tau", "r_squared", "mae", "accuracy", "macro_f1")
"""Metrics that a page shows, where they were measured."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
  """The facts on a model card.

  Attributes:
    name: of the model.
    summary: what it predicts, of which networks, in one sentence.
    zoo: which networks it was trained on.
    limits: where it must not be used.
    licence: of the parameters, as SPDX writes it.
    made_by: the command that makes it.
    revision: of the code that has trained it.
    version: of the library that has written it.
    metrics: what was measured, by part, then target, then metric: `value`,
      `low` and `high`, the ends of a 95 % interval.
    references: the same of the best simple reference of each, with its `name`.
    seeds: how many trainings it is the mean of.
  """

  name: str = ""
  summary: str = ""
  zoo: str = ""
  limits: str = ""
  licence: str = ""
  made_by: str = ""
  revision: str = ""
  version: str = VERSION
  metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  references: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  seeds: int = 1


def of(values: Mapping[str, Any]) -> Facts:
  """Returns the facts that plain values say.

  Raises:
    ValueError: a name is none of a fact.
  """
  names = [field.name for field in dataclasses.fields(Facts)]
  for name in values:
    if name not in names:
      raise ValueError(
        f"a model card has no fact {name!r}; there are {', '.join(names)}"
      )
  return Facts(**values)


def text(facts: Facts) -> str:
  """Returns what `FILE` holds."""
  return json.dumps(dataclasses.asdict(facts), indent=2) + "\n"


def metrics_of(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Returns what was measured of seeds, as `Facts.metrics`.

  Of several seeds: the mean of their values, and the outermost ends of their
  intervals.

  Args:
    results: of each seed, of `fit`; those that failed have no metrics.
  """
  done = [result["metrics"] for result in results if "metrics" in result]
  found: dict[str, Any] = {}
  for part, targets in (done[0] if done else {}).items():
    if part in ("train", "val"):
      continue
    for target, metrics in targets.items():
      for metric, first in metrics.items():
        if metric not in SHOWN or not isinstance(first, Mapping):
          continue
        each = [one[part][target][metric] for one in done]
        place = found.setdefault(part, {}).setdefault(target, {})
        place[metric] = {
          "value": sum(one["value"] for one in each) / len(each),
          "low": min(one["low"] for one in each),
          "high": max(one["high"] for one in each),
        }
  return found


def references_of(
  results: Mapping[str, Any], targets: Sequence[str]
) -> dict[str, Any]:
  """Returns the best simple reference of each metric, as `Facts.references`.

  Args:
    results: what `results.json` of a run holds; its `references` have metrics
      by name and part, and where there are several targets, `TARGET METRIC`.
    targets: of the model.
  """
  found: dict[str, Any] = {}
  for name, parts in (results.get("references") or {}).items():
    for part, metrics in parts.items():
      for key, one in metrics.items():
        target, _, metric = key.rpartition(" ")
        target = target or targets[0]
        if part in ("train", "val") or metric not in SHOWN:
          continue
        if not isinstance(one, Mapping) or one.get("value") is None:
          continue
        place = found.setdefault(part, {}).setdefault(target, {})
        best = place.get(metric)
        sign = -1 if metric in SMALL else 1
        if best is None or sign * one["value"] > sign * best["value"]:
          ends = {end: one[end] for end in ("value", "low", "high")}
          place[metric] = {"name": REFERENCES.get(name, name), **ends}
  return found


def page(
  facts: Facts, description: Mapping[str, Any], architectures: Sequence[str]
) -> str:
  """Returns the model card, in Markdown.

  Args:
    facts: what is said.
    description: what `model.json` holds.
    architectures: of the training networks.
  """
  title = facts.name or "A predictor of properties of networks"
  place = facts.name or "FOLDER"
  head = ["---", "library_name: sne_jax", "tags:", "- weight-space-learning"]
  if facts.licence:
    head.append(f"license: {facts.licence.lower()}")
  unknown = "Nobody has said so."
  targets = ", ".join(description["targets"])
  values = "a probability for each of " + ", ".join(
    map(str, description.get("classes", ()))
  )
  if "classes" not in description:
    values = "a number with an interval"
  seeds = "one training" if facts.seeds == 1 else f"{facts.seeds} trainings"
  lines = [
    *(*head, "---", "", f"# {title}", "", facts.summary or unknown, ""),
    f"It predicts {targets}, {values}, by the encoder"
    f" `{description.get('encoder', 'sne')}`; {seeds}.",
    *("", "## Use", "", "```python", "import sne_jax", ""),
    f'predictor = sne_jax.Predictor.from_pretrained("{place}")',
    'print(predictor.judge("model.safetensors"))',
    *("```", "", "## Trained on", "", facts.zoo or unknown, ""),
    f"Kinds of architectures among its training networks: {len(architectures)}"
    " (networks of others are said to be so).",
    *("", "## Test figures", "", *_table(facts)),
    *("", "## Where it must not be used", "", facts.limits or unknown, ""),
    "A prediction is a guess where the network is unlike those of the training;"
    " `sne-jax predict` and `Predictor.judge` say which are.",
    *("", "## Origin", ""),
    f"Licence: {facts.licence or 'not said'}. Written by sne_jax"
    f" {facts.version}; code of revision {facts.revision or 'unknown'}.",
  ]
  if facts.made_by:
    lines += ["", f"Made by `{facts.made_by}`."]
  return "\n".join(lines) + "\n"


def rows(facts: Facts) -> list[tuple[str, ...]]:
  """Returns part, target, metric, value with interval, and the reference's.

  The last column is there where the facts have references.
  """
  lines = []
  for part, targets in facts.metrics.items():
    for target, some in targets.items():
      for metric, one in some.items():
        line: tuple[str, ...] = (part, target, metric, _interval(one))
        if facts.references:
          other = facts.references.get(part, {}).get(target, {}).get(metric)
          none = "none"
          line += (f"{_interval(other)} ({other['name']})" if other else none,)
        lines.append(line)
  return lines


def _interval(one: Mapping[str, Any]) -> str:
  """Returns a value with the ends of its interval, where they are known."""
  ends = [one["low"], one["high"]]
  if None in ends:
    return f"{one['value']:.3g}"
  return f"{one['value']:.3g} [{ends[0]:.3g}, {ends[1]:.3g}]"


def _table(facts: Facts) -> list[str]:
  """Returns a table of what was measured."""
  if not facts.metrics:
    return ["None were given."]
  head = ["part", "target", "metric", "value"]
  if facts.references:
    head.append("best simple reference")
  return [
    "On networks that took no part in training; in brackets 95 % intervals.",
    *("", f"| {' | '.join(head)} |", "|" + "---|" * len(head)),
    *(f"| {' | '.join(row)} |" for row in rows(facts)),
  ]
