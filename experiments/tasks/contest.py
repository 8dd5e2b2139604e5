"""Every encoder on one zoo, each with the same small search.

Each of `--encoders` is trained with the first seed at each of `--rates`; the
rate with the best validation result then gets all seeds. Nothing else differs:
zoo, split, head, steps, batches and augmentation are those of the run, and the
test part is seen by nobody who chooses.

Every training is a run of its own in a folder of its own, so it has a report,
and is not done again once it is finished: the winner's first seed is that of
the search.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments import config, figures, report
from experiments import options as options_lib
from experiments.tasks import members
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
  return {
    label(encoder, rate): options.replaced(
      encoder=encoder,
      num_steps=steps or options.train.num_steps,
      learning_rate=rate,
      rates="",
      seeds=1,
      workdir=str(
        pathlib.Path(run.workdir) / folder_name(label(encoder, rate))
      ),
      title=f"{run.title}: {label(encoder, rate)}",
      # They are the same for every encoder.
      references=run.references and not place and rate == run.rate_values[0],
      image_counts="",
    )
    for place, (encoder, steps) in enumerate(run.encoder_steps.items())
    for rate in run.rate_values
  }


def finals(
  options: options_lib.Options, outcomes: Outcomes
) -> dict[str, options_lib.Options]:
  """Returns for every encoder its best training of the search, all seeds."""
  first = chosen(options)
  return {
    name: first[name].replaced(seeds=options.run.seeds)
    for name in winners(options, outcomes).values()
  }


def label(encoder: str, rate: float) -> str:
  """Returns the name of a training."""
  return f"{encoder}, rate {rate:g}"


def winners(options: options_lib.Options, outcomes: Outcomes) -> dict[str, str]:
  """Returns by encoder the name of the training that validation prefers.

  Of equals the first rate wins. An encoder whose every training diverged keeps
  its first.
  """
  found = {}
  for encoder in options.run.encoder_steps:
    labels = [label(encoder, rate) for rate in options.run.rate_values]
    values = [validation(options, outcomes[name]) for name in labels]
    known = [np.inf if value is None else value for value in values]
    found[encoder] = labels[int(np.argmin(known))]
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
  won = winners(options, outcomes)
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
  text.append(_table(options, outcomes, order, won, metric))
  if rows:
    (workdir / "figures").mkdir(parents=True, exist_ok=True)
    picture = workdir / "figures" / f"{metric}.png"
    figures.bars_with_intervals(
      picture, rows, xlabel=f"test {metric}", highlight=["sne"]
    )
    text.append(f"![{metric}](<figures/{picture.name}>)")
  text += [
    "## The search",
    f"Validation {metric} of the first seed.",
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
      "winners": won,
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
  run, train = options.run, options.train
  rates = ", ".join(f"{rate:g}" for rate in run.rate_values)
  sizes = ", ".join(f"{part} {n}" for part, n in first["sizes"].items())
  others = [f"{e} {n:,}" for e, n in run.encoder_steps.items() if n]
  return (
    f"Mean over {run.seeds} seed(s) with a 95 % t interval; networks: {sizes}."
    f" Each encoder was tried at the rates {rates} with seed {run.first_seed},"
    f" {train.num_steps:,} steps of {options.data.batch_size} networks"
    + (f" ({', '.join(others)})" if others else "")
    + f"; the rate with the best validation {_metric(options)} got all seeds,"
    " and in each the checkpoint is chosen by validation. Seconds are those of"
    " training, compilation not left out. Widths are each encoder's defaults."
  )


def _table(options, outcomes, order, won, metric) -> str:
  """One row for every encoder, the best first."""
  rows = []
  for encoder in order:
    found = outcomes[won[encoder]]
    good = [e for e in found["seeds"] if "failed" not in e]
    seconds = [e["train_seconds"] for e in good]
    rows.append(
      [
        encoder,
        found["num_params"],
        report.with_interval(found["summary"].get(metric)),
        won[encoder].rpartition(" ")[2],
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
      *("", "", "", ""),
    ]
    for name, parts in references.items()
  ]
  header = ["encoder", "parameters", f"test {metric}", "rate", "seeds"]
  return report.markdown_table(header + ["train s", "networks/s"], rows)


def _search_table(options, outcomes, order, sign) -> str:
  """What validation said of every rate."""
  rates = options.run.rate_values
  values = {
    e: [validation(options, outcomes[label(e, rate)]) for rate in rates]
    for e in order
  }
  return report.markdown_table(
    ["encoder", *(f"rate {rate:g}" for rate in rates)],
    [
      [e, *("failed" if v is None else report.number(sign * v) for v in row)]
      for e, row in values.items()
    ],
  )
