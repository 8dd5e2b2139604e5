"""Named lists of variants of a run, and their comparison.

Each variant is a change of flags. All else is as the flagfile says, so every
list can be run on any zoo.
"""

from typing import Any

from experiments.cli import options as options_lib
from experiments.comparisons import comparison
from experiments.comparisons.comparison import Outcomes
from sne_jax.cli import config
from sne_jax.cli.reports import figures, report

INDEX_FEATURES = ("none", "io", "chunk", "neuron")
SAB = {"chunk_function": "sab", "identifiers": "none"}
FLAT = SAB | {"linear_rule": "flat"}
WEIGHTS = {"responses": "none", "probe_rate": 0.0}
ONE_RATE = {"probe_rate": 0.0}
NOISE = ONE_RATE | {
  "response_source": "noise",
  "response_order": "pooled",
  "response_readers": 1,
  "response_inputs": 64,
  "statistics_tokens": True,
}


def _with_and_without(changes: dict[str, dict[str, Any]]):
  """Returns variants without, then with the regulariser of invariance."""
  return {
    f"{name}{suffix}": change | {"invariance_weight": weight}
    for name, change in changes.items()
    for suffix, weight in (("", 0.0), (", logit invariance", 1.0))
  }


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
  "index_features": _with_and_without(
    {mode: {"index_features": mode} for mode in INDEX_FEATURES}
    | {"random identifiers": {"identifiers": "random"}}
  ),
  # The same four without identifiers: chunks by attention, as in the paper.
  "index_features_sab": _with_and_without(
    {mode: SAB | {"index_features": mode} for mode in INDEX_FEATURES}
  ),
  "invariance_weight": {
    f"beta {beta:g}": {"identifiers": "random", "invariance_weight": beta}
    for beta in (0.0, 0.01, 0.1, 1.0, 10.0)
  },
  # Table 7: chunks by attention, cut flat as in the paper.
  "chunk_size": {
    str(size): FLAT | {"conv_rule": "flat", "chunk_size": size}
    for size in (8, 16, 32, 64, 128)
  },
  # The same question on conv nets: one chunk per neuron, or cut, or the rules
  # of the paper with attention (kernels of 3 x 3 have 9 weights).
  "cnn_chunks": {
    f"neuron, {size}": {"chunk_size": size} for size in (320, 152, 64, 32)
  }
  | {
    f"{rule}, {size}": FLAT | {"conv_rule": rule, "chunk_size": size}
    for rule, size in (
      ("kernel", 9),
      ("filter", 32),
      ("flat", 16),
      ("flat", 32),
      ("flat", 64),
    )
  },
  # What networks answer to learned inputs, beside those that read nothing else,
  # and weights alone.
  "responses": {
    "SNE, hidden, in order": {},
    "SNE, outputs, in order": {"responses": "outputs"},
    "SNE, hidden, invariant": {"response_order": "invariant"},
    "SNE, hidden, of noise": NOISE,
    "SNE, weights alone": WEIGHTS | {"statistics_tokens": True},
    "probe_gen": ONE_RATE | {"encoder": "probe_gen"},
    "hidden_probe": ONE_RATE | {"encoder": "hidden_probe"},
    "StatNN": ONE_RATE | {"encoder": "stat_nn"},
  },
  # What carries the gain of responses.
  "response_parts": {
    "hidden, in order, 4 readers of 16 pixels": {},
    "none": WEIGHTS,
    "outputs": {"responses": "outputs"},
    "both orders": {"response_order": "both"},
    "invariant": {"response_order": "invariant"},
    "of noise": NOISE,
    "generator": {"response_source": "generator"},
    "1 reader of 16": {"response_readers": 1},
    "1 reader of 64": {"response_readers": 1, "response_inputs": 64},
    "4 readers of 2": {"response_inputs": 2},
    "8 readers of 16": {"response_readers": 8},
    "statistics tokens": {"statistics_tokens": True},
    "Gram tokens": {"gram_tokens": True},
    "no average of parameters": {"ema_decay": 0.0},
    "the rate of the rest": {"probe_rate": 0.0},
  },
  # Figure 3: share of the training members.
  "data_efficiency": {
    f"{share:g}": {"train_share": share}
    for share in (0.05, 0.1, 0.25, 0.5, 1.0)
  },
  # SNE from the beginning, and from the parameters that --init_from names.
  "pretrained_efficiency": {
    f"{name}, {share:g}": {"train_share": share} | changes
    for name, changes in (
      ("from scratch", {"init_from": ""}),
      ("pretrained", {}),
    )
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
  only = config.words(options.run.only, ";")
  unknown = set(only) - set(LISTS[name])
  if unknown:
    raise ValueError(
      f"{name} has no variant {sorted(unknown)}; it has"
      f" {'; '.join(LISTS[name])}"
    )
  return {
    label: comparison.run_of(
      options, label, **changes, references=False, variants="", only=""
    )
    for label, changes in LISTS[name].items()
    if not only or label in only
  }


def page(options: options_lib.Options, outcomes: Outcomes) -> comparison.Page:
  """Returns table and figure of a list of variants."""
  good = {label: o for label, o in outcomes.items() if o["summary"]}
  name, metric = options.run.variants, options.train.monitor
  measured = next(iter(good.values()))["summary"] if good else (metric,)
  if metric not in measured:  # A loss, or one of several targets.
    metric = next(iter(measured))
  rows = {label: o["summary"][metric] for label, o in good.items()}

  def draw(path):
    if name not in SWEEPS:
      return figures.bars_with_intervals(path, rows, xlabel=f"test {metric}")
    return figures.lines(
      path,
      _series(rows),
      xlabel=SWEEPS[name],
      ylabel=f"test {metric}",
      x_log=True,
    )

  columns = {
    f"test {metric}": lambda o: o["summary"].get(metric),
    "seeds": comparison.count,
    "parameters": lambda o: o["num_params"],
    "networks/s": lambda o: o["networks_per_second"],
  } | {
    move: lambda o, move=move: o["invariance"].get(move)
    for move in (next(iter(good.values()))["invariance"] if good else ())
    if move.endswith("ratio")
  }
  first = next(iter(outcomes.values()))["sizes"]
  sizes = report.sizes(first)
  if any(o["sizes"] != first for o in outcomes.values()):
    sizes += " in the first variant; other variants have others"
  blocks = [
    f"Variants `{name}`; mean over seeds with a 95 % t interval. Networks:"
    f" {sizes}.",
    report.table("variant", outcomes, columns),
    *([report.Picture(name, f"Test {metric}", draw)] if good else ()),
  ]
  return comparison.Page(blocks, "variants")


COMPARISON = comparison.Comparison(chosen, page)


def _series(rows: dict[str, Any]) -> dict[str, dict[float, Any]]:
  """Returns lines by name, of labels such as `0.5` or `name, 0.5`."""
  series: dict[str, dict[float, Any]] = {}
  for label, row in rows.items():
    name, _, number = label.rpartition(", ")
    series.setdefault(name or "SNE", {})[float(number)] = row
  return series
