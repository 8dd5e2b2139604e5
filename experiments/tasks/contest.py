"""Every encoder on one zoo, each with the same small search.

Each of `--encoders` is trained with the first seed at each of `--rates`, for
`--search_share` of its steps; the rate with the best validation result then
gets all seeds and all steps. Nothing else differs: zoo, split, head, batches
and augmentation are those of the run, and the test part is seen by nobody who
chooses.

Every training is a run of its own in a folder of its own, so it has a report,
and is not done again once it is finished. Where the search takes all steps, the
winner's first seed is that of the search.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments import config, figures, report
from experiments import options as options_lib
from experiments.tasks import members
from experiments.tasks import property as property_lib
from experiments.tasks.variants import folder_name
from sne_jax.learning import metrics

Outcomes = Mapping[str, dict[str, Any]]


def chosen(options: options_lib.Options) -> dict[str, options_lib.Options]:
  """Returns the trainings of the search, by encoder and rate.

  Raises:
    ValueError: several targets.
  """
  run = options.run
  if len(members.target_names(run)) != 1:
    raise ValueError(
      f"encoders are compared by one target, but targets is {run.targets!r};"
      " name one"
    )
  share = run.search_share
  found = {}
  for place, encoder in enumerate(run.encoder_steps):
    for number, rate in enumerate(run.rate_values):
      name = label(encoder, rate, share)
      found[name] = _training(options, name, encoder, rate, share).replaced(
        seeds=1,
        # They are the same for every encoder.
        references=run.references and not place and not number,
      )
  return found


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
  first, found = chosen(options), {}
  for encoder, rate in winners(options, outcomes).items():
    name = label(encoder, rate)
    kept = name in first and first[name].run.references
    found[name] = _training(options, name, encoder, rate, 1.0).replaced(
      references=kept
    )
  return found


def _training(options, name: str, encoder: str, rate: float, share: float):
  """Returns the options of one training."""
  steps = options.run.encoder_steps[encoder] or options.train.num_steps
  return options.replaced(
    encoder=encoder,
    num_steps=max(1, round(share * steps)),
    learning_rate=rate,
    encoders=encoder,  # A training does not depend on the others.
    rates="",
    search_share=1.0,
    references=False,
    image_counts="",
    workdir=str(pathlib.Path(options.run.workdir) / folder_name(name)),
    title=f"{options.run.title}: {name}",
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
  rates, share = options.run.rate_values, options.run.search_share
  found = {}
  for encoder in options.run.encoder_steps:
    names = [label(encoder, rate, share) for rate in rates]
    values = [validation(options, outcomes[name]) for name in names]
    known = [np.inf if value is None else value for value in values]
    found[encoder] = rates[int(np.argmin(known))]
  return found


def validation(
  options: options_lib.Options, results: dict[str, Any]
) -> float | None:
  """Returns what the search minimises, of the first seed; None: it failed."""
  entry = results["seeds"][0]
  if "failed" in entry:
    return None
  value = entry["metrics"]["val"][_metric(options)]["value"]
  if value is None or not np.isfinite(value):
    return None
  return -float(value) if _is_higher_better(options) else float(value)


def write(
  workdir: pathlib.Path, options: options_lib.Options, outcomes: Outcomes
) -> None:
  """Writes table, figure and results of a contest."""
  metric = _metric(options)
  rates = winners(options, outcomes)
  won = {encoder: label(encoder, rate) for encoder, rate in rates.items()}
  sign = -1.0 if _is_higher_better(options) else 1.0
  order = sorted(won, key=lambda e: sign * _mean(outcomes[won[e]], metric))
  first = next(iter(outcomes.values()))
  rows = {
    e: outcomes[won[e]]["summary"][metric]
    for e in order
    if metric in outcomes[won[e]]["summary"]
  }
  rows |= {
    f"reference: {name}": {"mean": v, "low": v, "high": v}
    for name, parts in first["references"].items()
    if (v := parts["test"][metric]["value"]) is not None
  }
  text = [f"# {options.run.title}", _description(options, first)]
  text.append(_table(options, outcomes, {e: won[e] for e in order}, metric))
  if rows:
    (workdir / "figures").mkdir(parents=True, exist_ok=True)
    picture = workdir / "figures" / f"{metric}.png"
    figures.bars_with_intervals(
      picture, rows, xlabel=f"test {metric}", highlight=["sne"]
    )
    text.append(f"![{metric}](<figures/{picture.name}>)")
  text += [
    "## The search",
    f"Validation {metric} of the first seed after"
    f" {options.run.search_share:.0%} of the steps.",
    _search_table(options, outcomes, order, sign),
  ]
  text += [
    f"**{name}, seed {entry['seed']} failed**: {entry['failed']}"
    for name, o in outcomes.items()
    for entry in o["seeds"]
    if "failed" in entry
  ]
  flagfile = config.to_flagfile(
    *options.groups(), prefixes=options_lib.PREFIXES
  )
  text += [
    "Repeat it with `--flagfile` and this file:",
    f"```\n{flagfile.strip()}\n```",
    "Reports of all trainings:",
    "\n".join(f"- [{n}](<{folder_name(n)}/report.md>)" for n in outcomes),
  ]
  report.write_text(workdir / "report.md", "\n\n".join(text) + "\n")
  keys = ("summary", "seeds", "num_params", "networks_per_second", "seconds")
  report.write_results(
    workdir,
    {
      "title": options.run.title,
      "config": config.resolved(*options.groups()),
      "flagfile": flagfile,
      "environment": first["environment"],
      "sizes": first["sizes"],
      "metric": metric,
      "order": order,
      "winners": rates,
      "references": first["references"],
      "trainings": {
        name: {key: o[key] for key in keys} for name, o in outcomes.items()
      },
    },
  )


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
  sizes = ", ".join(f"{part} {n}" for part, n in first["sizes"].items())
  return (
    f"Mean over {run.seeds} seed(s) with a 95 % t interval; networks: {sizes}."
    f" Each encoder was tried at the rates {rates} with seed {run.first_seed}"
    f" for {run.search_share:.0%} of its steps; the rate with the best"
    f" validation {_metric(options)} got all seeds, and in each the checkpoint"
    " is chosen by validation. A step is a batch of"
    f" {options.data.batch_size} networks. Seconds are those of training,"
    " compilation and evaluation not left out."
  )


def _table(options, outcomes, won, metric) -> str:
  """One row for every encoder, the best first."""
  rows = []
  for encoder, name in won.items():
    found = outcomes[name]
    good = [e for e in found["seeds"] if "failed" not in e]
    seconds = [e["train_seconds"] for e in good]
    rows.append(
      [
        encoder,
        found["num_params"],
        report.with_interval(found["summary"].get(metric)),
        name.rpartition(" ")[2],
        options.run.encoder_steps[encoder] or options.train.num_steps,
        len(good),
        report.number(float(np.mean(seconds)) if seconds else None),
        report.number(found["networks_per_second"]),
      ]
    )
  references = next(iter(outcomes.values()))["references"]
  rows += [
    [
      f"reference: {name}",
      "",
      report.number(parts["test"][metric]["value"]),
      *("", "", "", "", ""),
    ]
    for name, parts in references.items()
  ]
  header = ["encoder", "parameters", f"test {metric}", "rate", "steps", "seeds"]
  return report.markdown_table(header + ["train s", "networks/s"], rows)


def _search_table(options, outcomes, order, sign) -> str:
  """What validation said of every rate."""
  rates, share = options.run.rate_values, options.run.search_share
  values = {
    e: [validation(options, outcomes[label(e, r, share)]) for r in rates]
    for e in order
  }
  return report.markdown_table(
    ["encoder", *(f"rate {rate:g}" for rate in rates)],
    [
      [e, *("failed" if v is None else report.number(sign * v) for v in row)]
      for e, row in values.items()
    ],
  )
