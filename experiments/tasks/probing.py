"""Compares encoders without labels by what linear probes read from them.

Each of `--probes` is a run of `--pretrain` of its own, in a folder of its own,
on the same networks and splits; a run that has finished is not done again. One
table per test part holds R^2 and Kendall's tau of every target.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from absl import flags

from experiments import config, figures, report, zoos
from experiments import options as options_lib
from experiments.tasks import members, pretrain
from experiments.tasks.variants import folder_name

Outcomes = Mapping[str, dict[str, Any]]
SHOWN = {"r_squared": "R^2", "kendall_tau": "Kendall's tau"}


def chosen(options: options_lib.Options) -> dict[str, options_lib.Options]:
  """Returns the run of every name; a flagfile's is that of its file.

  Raises:
    ValueError: a flagfile that is not there, or does not say what to pretrain;
      or two runs of one name.
  """
  found = {}
  for word in options.run.probe_names:
    changes, name = {"pretrain": word}, word
    if word.endswith(zoos.SUFFIX):
      changes, name = _changes(word), pathlib.Path(word).stem
    if name in found:
      raise ValueError(f"probes has two runs that are called {name}")
    changes |= {
      "probes": "",
      "workdir": str(pathlib.Path(options.run.workdir) / folder_name(name)),
      "title": f"{options.run.title}: {name}",
    }
    found[name] = options.replaced(**changes)
  return found


def _changes(flagfile: str) -> dict[str, Any]:
  """Returns the flags that a flagfile sets, those it includes too."""
  if not pathlib.Path(flagfile).is_file():
    raise ValueError(f"probes: there is no flagfile {flagfile}")
  values = flags.FlagValues()
  options_lib.define_flags(values)
  flags.DEFINE_string("flagfile", "", "of flags", flag_values=values)
  config.parse(["run.py", f"--flagfile={flagfile}"], values)
  found = {
    name: values[name].value
    for name in values
    if values[name].present and name != "flagfile"
  }
  if "pretrain" not in found:
    raise ValueError(
      f"probes: {flagfile} does not say what to pretrain; add --pretrain=NAME"
    )
  return found


def check(options: options_lib.Options) -> None:
  """Has everybody look at the networks, before the first is trained.

  Raises:
    ValueError: one of them cannot read them.
  """
  data = members.gathered(options)
  for own in chosen(options).values():
    pretrain.Trainer(own, data)


def write(
  workdir: pathlib.Path, options: options_lib.Options, outcomes: Outcomes
) -> None:
  """Writes tables, figures and results of a comparison."""
  good = {name: o for name, o in outcomes.items() if o["summary"]}
  first = next(iter(outcomes.values()))
  targets = members.target_labels(options.run)
  parts = list(next(iter(good.values()))["summaries"]) if good else []
  sizes = ", ".join(f"{part} {n}" for part, n in first["sizes"].items())
  text = [
    f"# {options.run.title}",
    "Linear probes (ridge, the penalty chosen on the validation part) from"
    " codes that were learned without labels, and from baselines. Mean over"
    f" {options.run.seeds} seeds with a 95 % t interval. Networks: {sizes}.",
    *(first.get("notes") or ()),
  ]
  (workdir / "figures").mkdir(parents=True, exist_ok=True)
  for part in parts:
    text += [f"## {part}", _table(good, part, targets)]
    for target in targets:
      picture = f"{folder_name(part)}_{folder_name(target)}.png"
      rows = {
        name: _cut(o["summaries"][part][f"{target} r_squared"])
        for name, o in good.items()
      }
      figures.bars_with_intervals(
        workdir / "figures" / picture,
        rows,
        xlabel=f"R^2 of {target}, {part} (axis begins at -1 at the least)",
        highlight=[n for n, o in good.items() if _is_trained(o)],
      )
      text.append(f"![R^2 of {target}, {part}](<figures/{picture}>)")
  text += _reconstruction(good)
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
    "## What was run",
    report.markdown_table(
      ["encoder", "parameters", "seconds of training per seed"],
      [[name, o["num_params"], _seconds(o)] for name, o in good.items()],
    ),
    "Repeat it with `--flagfile` and this file:",
    f"```\n{flagfile.strip()}\n```",
    "Reports of all:",
    "\n".join(f"- [{n}](<{folder_name(n)}/report.md>)" for n in outcomes),
  ]
  report.write_text(workdir / "report.md", "\n\n".join(text) + "\n")
  keys = ("summaries", "seeds", "num_params", "reconstruction", "seconds")
  report.write_results(
    workdir,
    {
      "title": options.run.title,
      "config": config.resolved(*options.groups()),
      "flagfile": flagfile,
      "environment": first["environment"],
      "sizes": first["sizes"],
      "probes": {
        name: {key: o[key] for key in keys} for name, o in outcomes.items()
      },
    },
  )


def _table(good: Outcomes, part: str, targets) -> str:
  header = [f"{t} {word}" for t in targets for word in SHOWN.values()]
  rows = []
  for name, o in good.items():
    own = o["summaries"][part]
    cells = [
      report.with_interval(own[f"{t} {metric}"])
      for t in targets
      for metric in SHOWN
    ]
    rows.append([name, *cells])
  return report.markdown_table(["codes", *header], rows)


def _reconstruction(good: Outcomes) -> list[str]:
  """The reconstructions of the autoencoders, all layers together."""
  rows = [
    [
      name,
      *(report.with_interval(p["all"]) for p in o["reconstruction"].values()),
    ]
    for name, o in good.items()
    if o["reconstruction"]
  ]
  if not rows:
    return []
  parts = next(
    o["reconstruction"] for o in good.values() if o["reconstruction"]
  )
  return [
    "## Reconstruction",
    "R^2 of whole networks, standardised, against the mean of the training"
    " networks; layers are in the reports of each.",
    report.markdown_table(["encoder", *parts], rows),
  ]


def _cut(row: Mapping[str, Any]) -> dict[str, float]:
  """Keeps a bar in sight: what is worse than -1 ends there."""
  return {key: max(row[key], -1.0) for key in ("mean", "low", "high")}


def _is_trained(results: Mapping[str, Any]) -> bool:
  return any(e.get("best_step") for e in results["seeds"])


def _seconds(results: Mapping[str, Any]) -> str:
  seconds = [e["train_seconds"] for e in results["seeds"] if "failed" not in e]
  return report.number(sum(seconds) / max(len(seconds), 1))
