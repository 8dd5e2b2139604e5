"""What is said of a model that is given away, and the page that says it.

Dimensions: none.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sne_jax.version import VERSION

FILE = "card.json"
PAGE = "README.md"
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
    *("", "## Test figures", "", *_table(facts.metrics)),
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


def rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
  """Returns part, target, metric and its value with interval."""
  return [
    (
      *(part, target, metric),
      f"{one['value']:.3g} [{one['low']:.3g}, {one['high']:.3g}]",
    )
    for part, targets in metrics.items()
    for target, some in targets.items()
    for metric, one in some.items()
  ]


def _table(metrics: Mapping[str, Any]) -> list[str]:
  """Returns a table of what was measured."""
  if not metrics:
    return ["None were given."]
  return [
    "On networks that took no part in training; in brackets 95 % intervals.",
    *("", "| part | target | metric | value |", "|---|---|---|---|"),
    *(f"| {' | '.join(row)} |" for row in rows(metrics)),
  ]
