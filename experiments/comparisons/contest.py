"""Every encoder on one zoo, each with the same small search.

Each of `--encoders` is trained with the first seed at each of `--rates`, for
`--search_share` of its steps; the rate with the best validation result then
gets all seeds and all steps. Nothing else differs: zoo, split, head, batches
and augmentation are those of the run, and the test part is seen by nobody who
chooses. A `--probe_rate` is not searched for.

Every training is a run of its own in a folder of its own, so it has a report,
and is not done again once it is finished. Where the search takes all steps, the
winner's first seed is that of the search.
"""

from typing import Any

import numpy as np

from experiments.cli import options as options_lib
from experiments.comparisons import comparison
from experiments.comparisons.comparison import Outcomes
from experiments.tasks import members
from experiments.tasks import property as property_lib
from sne_jax.cli.reports import figures, report
from sne_jax.learning.evaluation import metrics


def chosen(options: options_lib.Options) -> dict[str, options_lib.Options]:
  """Returns the trainings of the search, by encoder and rate.

  Raises:
    ValueError: several targets.
  """
  run = options.run
  if len(run.target_names) != 1:
    raise ValueError(
      f"encoders are compared by one target, but targets is {run.targets!r};"
      " name one"
    )
  share = run.search_share
  trainings = {}
  for encoder in run.encoder_steps:
    for rate in run.rate_values:
      name = label(encoder, rate, share)
      trainings[name] = _training(options, name, encoder, rate, share).replaced(
        seeds=1,
        # They are the same for every encoder.
        references=run.references and not trainings,
      )
  return trainings


def check(options: options_lib.Options) -> None:
  """Has every encoder look at the networks, before the first is trained.

  Raises:
    ValueError: one of them cannot read them.
  """
  data = members.gathered(options)
  for encoder in options.run.encoder_steps:
    property_lib.describe(options.replaced(encoder=encoder), data)


def finals(
  options: options_lib.Options, outcomes: Outcomes
) -> dict[str, options_lib.Options]:
  """Returns for every encoder a training of its best rate, with all seeds."""
  first, trainings = chosen(options), {}
  for encoder, rate in winners(options, outcomes).items():
    name = label(encoder, rate)
    kept = name in first and first[name].run.references
    trainings[name] = _training(options, name, encoder, rate, 1.0).replaced(
      references=kept
    )
  return trainings


def _training(options, name: str, encoder: str, rate: float, share: float):
  """Returns the options of one training."""
  steps = options.run.encoder_steps[encoder] or options.train.num_steps
  return comparison.run_of(
    options,
    name,
    encoder=encoder,
    num_steps=max(1, round(share * steps)),
    learning_rate=rate,
    encoders=encoder,  # A training does not depend on the others.
    rates="",
    search_share=1.0,
    references=False,
    image_counts="",
  )


def label(encoder: str, rate: float, share: float = 1.0) -> str:
  """Returns the name of a training."""
  return f"{encoder}, rate {rate:g}" + (", search" if share < 1 else "")


def winners(
  options: options_lib.Options, outcomes: Outcomes
) -> dict[str, float]:
  """Returns by encoder the rate that validation prefers.

  Of equals the first rate wins. An encoder whose every training diverged keeps
  its first.
  """
  rates = options.run.rate_values
  best = {}
  for encoder in options.run.encoder_steps:
    values = [validation(options, outcomes, encoder, rate) for rate in rates]
    known = [np.inf if value is None else value for value in values]
    best[encoder] = rates[int(np.argmin(known))]
  return best


def validation(
  options: options_lib.Options, outcomes: Outcomes, encoder: str, rate: float
) -> float | None:
  """Returns what the search minimises, of the first seed; None: it failed."""
  name = label(encoder, rate, options.run.search_share)
  entry = outcomes[name]["seeds"][0]
  if "failed" in entry:
    return None
  value = entry["metrics"]["val"][_metric(options)]["value"]
  if value is None or not np.isfinite(value):
    return None
  return -float(value) if _is_higher_better(options) else float(value)


def page(options: options_lib.Options, outcomes: Outcomes) -> comparison.Page:
  """Returns the encoders, the best first, and the search for their rates."""
  metric, rates = _metric(options), winners(options, outcomes)
  sign = -1.0 if _is_higher_better(options) else 1.0
  won = {e: outcomes[label(e, rate)] for e, rate in rates.items()}
  order = sorted(won, key=lambda e: sign * _mean(won[e], metric))
  first = next(iter(outcomes.values()))
  references = {
    f"reference: {name}": parts["test"][metric]
    for name, parts in first["references"].items()
  }
  bars = {e: won[e]["summary"].get(metric, {}) for e in order} | references
  bars = {
    name: row
    for name, row in bars.items()
    if row.get("value", row.get("mean")) is not None
  }
  search = {
    e: {r: validation(options, outcomes, e, r) for r in options.run.rate_values}
    for e in order
  }
  known = {
    e: {rate: sign * v for rate, v in row.items() if v is not None}
    for e, row in search.items()
  }
  draw = lambda path: figures.bars_with_intervals(
    path, bars, xlabel=f"test {metric}", highlight=["sne"]
  )
  draw_search = lambda path: figures.lines(
    path,
    known,
    xlabel="learning rate",
    ylabel=f"validation {metric}",
    x_log=True,
  )
  blocks = [
    _description(options, first),
    _table(options, {e: won[e] for e in order}, rates, references, metric),
    *([report.Picture(metric, f"Test {metric}", draw)] if bars else ()),
    "## The search",
    f"Validation {metric} of the first seed after"
    f" {options.run.search_share:.0%} of the steps.",
    report.markdown_table(
      ["encoder", *(f"rate {rate:g}" for rate in options.run.rate_values)],
      [
        [e, *("failed" if v is None else sign * v for v in row.values())]
        for e, row in search.items()
      ],
    ),
    report.Picture("search", f"Validation {metric} by rate", draw_search),
  ]
  about = {"sizes": first["sizes"], "references": first["references"]}
  about |= {"metric": metric, "order": order, "winners": rates}
  compared = [label(e, rates[e]) for e in order]
  return comparison.Page(blocks, "trainings", about, compared)


COMPARISON = comparison.Comparison(chosen, page, check, finals)


def _metric(options: options_lib.Options) -> str:
  """The metric of a report that belongs to what training monitors."""
  monitor, loss = options.train.monitor, options.run.loss
  if monitor != "loss":
    return monitor
  return "accuracy" if loss == "classes" else "mse"


def _is_higher_better(options: options_lib.Options) -> bool:
  return metrics.HIGHER_IS_BETTER.get(_metric(options), False)


def _mean(results: dict[str, Any], metric: str) -> float:
  """The mean over seeds on the test part; a failed encoder comes last."""
  row = results["summary"].get(metric)
  return np.inf if row is None or row["mean"] is None else row["mean"]


def _description(options, first) -> str:
  """Says what was compared, and how each was tuned."""
  run = options.run
  rates = ", ".join(f"{rate:g}" for rate in run.rate_values)
  return (
    f"Mean over {run.seeds} seed(s) with a 95 % t interval, references with a"
    " bootstrap interval over networks; networks:"
    f" {report.sizes(first['sizes'])}."
    f" Each encoder was tried at the rates {rates} with seed {run.first_seed}"
    f" for {run.search_share:.0%} of its steps; the rate with the best"
    f" validation {_metric(options)} got all seeds, and in each the checkpoint"
    " is chosen by validation. A step is a batch of"
    f" {options.data.batch_size} networks. Seconds are those of training,"
    " compilation and evaluation not left out."
  )


def _table(options, won, rates, references, metric) -> str:
  """One row for every encoder, then the references."""
  steps = options.run.encoder_steps
  rows = [
    [
      *(encoder, results["num_params"], results["summary"].get(metric)),
      *(rates[encoder], steps[encoder] or options.train.num_steps),
      *(comparison.count(results), comparison.train_seconds(results)),
      results["networks_per_second"],
    ]
    for encoder, results in won.items()
  ] + [[name, "", row, *[""] * 5] for name, row in references.items()]
  header = ["encoder", "parameters", f"test {metric}", "rate", "steps", "seeds"]
  return report.markdown_table(header + ["train s", "networks/s"], rows)
