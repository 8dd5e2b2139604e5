"""Named lists of variants of a run, and their comparison.

Each variant is a change of flags. All else is as the flagfile says, so every
list can be run on any zoo.
"""

import pathlib
from typing import Any

from experiments import config, figures, report
from experiments import options as options_lib

WITH = "logit invariance"
LISTS: dict[str, dict[str, dict[str, Any]]] = {
  # Table 6 of the paper, and the other switches that it leaves open.
  "components": {
    "full": {},
    "no layer encoder": {"layer_function": "none"},
    "no type encoding": {"type_encoding": "none"},
    "no level encoding": {"level_encoding": "none", "level_again": False},
    "no positions, no hierarchy": {
      "type_encoding": "none",
      "level_encoding": "none",
      "level_again": False,
      "layer_function": "none",
    },
    "no set functions": {
      "layer_function": "deepsets",
      "network_function": "deepsets",
      "layer_blocks": 0,
      "network_blocks": 0,
    },
    "no index features": {"index_features": "none"},
    "random identifiers": {"identifiers": "random"},
    "no sign augmentation": {"augment_signs": False},
    "no fan-in scale": {"fan_in_scale": False},
    "scale per tensor": {"weight_scale": "tensor"},
    "norm post": {"norm": "post"},
    "relu": {"activation": "relu"},
    "coded form": {"form": "coded", "norm": "post"},
    "concatenated encodings": {"encoding_combine": "concat"},
  },
  # The four index features with and without the regulariser; then identifiers
  # that are drawn instead of computed.
  "index_features": {
    f"{mode}{', ' + WITH if beta else ''}": {
      "index_features": mode,
      "invariance_weight": beta,
    }
    for mode in ("none", "io", "chunk", "neuron")
    for beta in (0.0, 1.0)
  }
  | {
    f"random identifiers{', ' + WITH if beta else ''}": {
      "identifiers": "random",
      "invariance_weight": beta,
    }
    for beta in (0.0, 1.0)
  },
  # The same four without identifiers: chunks by attention, as in the paper.
  "index_features_sab": {
    f"{mode}{', ' + WITH if beta else ''}": {
      "chunk_function": "sab",
      "identifiers": "none",
      "index_features": mode,
      "invariance_weight": beta,
    }
    for mode in ("none", "io", "chunk", "neuron")
    for beta in (0.0, 1.0)
  },
  "invariance_weight": {
    f"beta {beta:g}": {"identifiers": "random", "invariance_weight": beta}
    for beta in (0.0, 0.01, 0.1, 1.0, 10.0)
  },
  # Table 7: chunks by attention, cut flat as in the paper.
  "chunk_size": {
    str(size): {
      "chunk_function": "sab",
      "identifiers": "none",
      "linear_rule": "flat",
      "conv_rule": "flat",
      "chunk_size": size,
    }
    for size in (8, 16, 32, 64, 128)
  },
  # The same question on conv nets: one chunk per neuron, or cut, or the rules
  # of the paper with attention (kernels of 3 x 3 have 9 weights).
  "cnn_chunks": {
    f"neuron, {size}": {"chunk_size": size} for size in (320, 152, 64, 32)
  }
  | {
    f"{rule}, {size}": {
      "chunk_function": "sab",
      "identifiers": "none",
      "linear_rule": "flat",
      "conv_rule": rule,
      "chunk_size": size,
    }
    for rule, size in (
      ("kernel", 9),
      ("filter", 32),
      ("flat", 16),
      ("flat", 32),
      ("flat", 64),
    )
  },
  # Figure 3: share of the training members.
  "data_efficiency": {
    f"{share:g}": {"train_share": share}
    for share in (0.05, 0.1, 0.25, 0.5, 1.0)
  },
  # SNE from the beginning, and from the parameters that --init_from names.
  "pretrained_efficiency": {
    f"from scratch, {share:g}": {"train_share": share, "init_from": ""}
    for share in (0.05, 0.1, 0.25, 1.0)
  }
  | {
    f"pretrained, {share:g}": {"train_share": share}
    for share in (0.05, 0.1, 0.25, 1.0)
  },
}
SWEEPS = {
  "chunk_size": "chunk size",
  "data_efficiency": "share of training data",
  "pretrained_efficiency": "share of training data",
}
"""Lists whose names end in a number: drawn as lines over them."""


def chosen(options: options_lib.Options) -> dict[str, options_lib.Options]:
  """Returns the variants that the run asks for, by name.

  Raises:
    ValueError: an unknown list or variant.
  """
  name = options.run.variants
  if name not in LISTS:
    raise ValueError(
      f"no list of variants {name!r}; known are {', '.join(sorted(LISTS))}"
    )
  needs = name == "pretrained_efficiency"
  if needs and not options.run.init_from:
    raise ValueError(
      f"variants is {name}, but init_from is empty; name the folder of a run of"
      " --pretrain=sne"
    )
  only = [n.strip() for n in options.run.only.split(";") if n.strip()]
  unknown = set(only) - set(LISTS[name])
  if unknown:
    raise ValueError(
      f"{name} has no variant {sorted(unknown)}; it has"
      f" {'; '.join(LISTS[name])}"
    )
  return {
    label: options.replaced(
      **changes,
      workdir=str(pathlib.Path(options.run.workdir) / folder_name(label)),
      title=f"{options.run.title}: {label}",
      references=False,
      variants="",
      only="",
    )
    for label, changes in LISTS[name].items()
    if not only or label in only
  }


def folder_name(label: str) -> str:
  """Returns a name for the folder of a variant."""
  return "".join(c if c.isalnum() or c in ".-" else "_" for c in label)


def write(
  workdir: pathlib.Path,
  options: options_lib.Options,
  outcomes: dict[str, dict[str, Any]],
) -> None:
  """Writes table, figure and results of a comparison."""
  good = {label: o for label, o in outcomes.items() if o["summary"]}
  measured = next(iter(good.values()))["summary"] if good else {"none": {}}
  metric = options.train.monitor
  if metric not in measured:  # A loss, or one of several targets.
    metric = next(iter(measured))
  rows = {label: o["summary"][metric] for label, o in good.items()}
  (workdir / "figures").mkdir(parents=True, exist_ok=True)
  picture = workdir / "figures" / f"{options.run.variants}.png"
  pictures = [f"![{options.run.variants}](<figures/{picture.name}>)"]
  if not good:
    pictures = []
  elif options.run.variants in SWEEPS:
    figures.lines(
      picture,
      _series(rows),
      xlabel=SWEEPS[options.run.variants],
      ylabel=f"test {metric}",
      x_log=True,
    )
  else:
    figures.bars_with_intervals(picture, rows, xlabel=f"test {metric}")
  ratios = [
    name
    for name in (next(iter(good.values()))["invariance"] if good else ())
    if name.endswith("ratio")
  ]
  header = ["variant", f"test {metric}", "seeds", "parameters"]
  header += ["networks/s", *ratios]
  table = [
    [
      label,
      report.with_interval(rows.get(label)),
      _count(o),
      o["num_params"],
      report.number(o["networks_per_second"]),
      *(report.number(o["invariance"].get(name)) for name in ratios),
    ]
    for label, o in outcomes.items()
  ]
  first = next(iter(outcomes.values()))
  sizes = ", ".join(f"{part} {n}" for part, n in first["sizes"].items())
  if len({tuple(o["sizes"].items()) for o in outcomes.values()}) > 1:
    sizes += " in the first variant; other variants have others"
  text = [
    f"# {options.run.title}",
    f"Variants `{options.run.variants}`; mean over seeds with a 95 % t"
    f" interval. Networks: {sizes}.",
    report.markdown_table(header, table),
    *pictures,
    *(
      f"**{label}, seed {entry['seed']} failed**: {entry['failed']}"
      for label, o in outcomes.items()
      for entry in o["seeds"]
      if "failed" in entry
    ),
    "Reports of the variants:",
    "\n".join(
      f"- [{label}](<{folder_name(label)}/report.md>)" for label in outcomes
    ),
  ]
  report.write_text(workdir / "report.md", "\n\n".join(text) + "\n")
  report.write_results(
    workdir,
    {
      "title": options.run.title,
      "config": config.resolved(*options.groups()),
      "flagfile": config.to_flagfile(
        *options.groups(), prefixes=options_lib.PREFIXES
      ),
      "environment": first["environment"],
      "variants": {
        label: {
          key: o[key]
          for key in (
            "summary",
            "seeds",
            "sizes",
            "num_params",
            "networks_per_second",
            "invariance",
            "seconds",
          )
        }
        for label, o in outcomes.items()
      },
    },
  )


def _series(rows: dict[str, Any]) -> dict[str, dict[float, Any]]:
  """Returns lines by name, of labels such as `0.5` or `name, 0.5`."""
  found: dict[str, dict[float, Any]] = {}
  for label, row in rows.items():
    name, _, number = label.rpartition(", ")
    found.setdefault(name or "SNE", {})[float(number)] = row
  return found


def _count(results: dict[str, Any]) -> str:
  """Returns how many seeds have finished, of how many if some have not."""
  seeds = results["seeds"]
  good = sum("failed" not in entry for entry in seeds)
  return str(good) if good == len(seeds) else f"{good} of {len(seeds)}"
