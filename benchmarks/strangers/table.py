"""Measures what predictions promise to strangers, and whether it is kept.

    python -m benchmarks.strangers.table --kind=sines --torch=strangers/sines \
      --folder=runs/strangers --out=docs/results/strangers_sines.json

Trains a model on the zoo of `kinds`, and one on all makers but each of
`--left_out` in turn; then predicts networks of every kind, and writes how many
of them a 90 % interval holds, how wide it is, and how many are called unlike.
`--torch` has files of `benchmarks.strangers.pytorch`. A run that was broken off
continues with the same command.
"""

import argparse
import pathlib
from typing import Any

import jax
import numpy as np

import sne_jax
from benchmarks import results
from benchmarks.strangers import kinds
from sne_jax.cli.reports import report
from sne_jax.learning.data.dataset import Networks
from sne_jax.zoo.store import splits

COVERAGE = 0.9
CHANCE, NEAR = 0.1, 0.1
"""Accuracy of a guess among ten digits, and how near counts as chance."""

COLUMNS = {
  "count": "networks",
  "held": "held by the interval",
  "width": "width, median",
  "flagged": "warned of",
  "unpromised": "nothing promised",
  "kept": "held, or warned of",
  "mse": "MSE",
}


SENSES = {
  "in distribution": {"label_noise": 0.0, "epoch": [1, 4, 12]},
  "untrained": {"epoch": 0},
  "trained on noise": {"label_noise": 1.0, "epoch": [4, 12]},
}
"""Members of the zoo of digits: as one would use them, and of no use."""


def measured(predictor: Any, networks: Networks) -> dict[str, float]:
  """Returns what became of the predictions of some networks."""
  judged = predictor.judge(networks, coverage=COVERAGE)
  truth = networks.targets
  flagged = (judged.unlike > 1) | ~judged.known
  held = ((judged.low <= truth) & (truth <= judged.high))[:, 0]
  errors = (judged.predictions - truth) ** 2
  row = {
    "count": len(networks),
    "held": float(held.mean()),
    "width": float(np.median(judged.high - judged.low)),
    "flagged": float(flagged.mean()),
    "unpromised": float((~judged.promised).mean()),
    "kept": float((held | flagged).mean()),
    "mse": float(errors.mean()),
  }
  chance = np.abs(judged.predictions[:, 0] - CHANCE) <= NEAR
  if predictor.targets == ("test_accuracy",):
    row["flagged or at chance"] = float((flagged | chance).mean())
  if np.isnan(truth).any():  # Nothing is true of these.
    row |= dict.fromkeys(("held", "kept", "mse"), np.nan)
  return row


def train(args: argparse.Namespace, parts: dict[str, Networks], name: str):
  """Trains the model of a table, or takes the one that is there."""
  data = sne_jax.DataOptions(
    fold_phases=args.kind == "sines",
    augment_offset=args.offset,
    augment_biases=args.biases,
  )
  steps = sne_jax.TrainOptions(
    num_steps=args.steps, eval_every=50, save_every=args.steps
  )
  return sne_jax.fit(
    *(parts["train"], parts["val"]),
    tests={"test": parts["test"]},
    encoder=args.encoder,
    options=options_of(args),
    loss="bce" if args.kind == "digits" else "mse",
    seeds=(args.seed,),
    data=data,
    training=steps,
    workdir=args.folder / f"{args.kind}_{model_of(args)}_{name}",
  )


def model_of(args: argparse.Namespace) -> str:
  """Returns what the folders of a model's trainings are called by."""
  words = (args.encoder, args.responses)
  return "_".join(word for word in words if word != "none")


def options_of(args: argparse.Namespace) -> Any:
  """Returns the options of the encoder; None: its defaults."""
  if args.responses == "none":
    return None
  # What carries over between data sets: flags/shared/answers_across.flags.
  return sne_jax.SNEOptions(
    responses=args.responses,
    response_source="noise",
    response_order="pooled",
    response_map="additive",
    response_join="apart",
    response_dropout=0.5,
    response_inputs=16,
  )


def parts_of(zoo: Any, kind: str, left_out: str) -> dict[str, Networks]:
  """Returns the parts of a zoo, without the networks of a maker."""
  target = "frequency" if kind == "sines" else "test_accuracy"
  named = [m for m in kinds.makers_of(zoo) if m != left_out]
  return {
    part: kinds.of_zoo(
      zoo,
      zoo.select(split="default", part=part, where={"maker": named}),
      target,
    )
    for part in splits.PARTS
  }


def left_out(kind: str, zoo, name: str, target: str) -> dict[str, Networks]:
  """Returns the networks of a maker that was left out."""
  if kind == "sines":
    rows = {f"{name}, left out": zoo.select(where={"maker": name})}
  else:
    rows = {
      f"{name}, left out{'' if sense == 'in distribution' else f': {sense}'}": (
        zoo.select(where=where | {"maker": name})
      )
      for sense, where in SENSES.items()
    }
  return {
    label: kinds.of_zoo(zoo, some, target) for label, some in rows.items()
  }


def rows_of(args, zoo, predictor, test: Networks) -> dict[str, dict]:
  """Returns the rows of the model that knows all makers."""
  found = {}
  if args.kind == "sines":
    found["in distribution"] = test
    found |= kinds.sines(args.folder, args.seed)
  else:
    for name, where in SENSES.items():
      rows = zoo.select(split="default", part="test", where=where)
      found[name] = kinds.of_zoo(zoo, rows, "test_accuracy")
    found |= kinds.digits(args.folder, args.seed)
  found["weights lost (30 %)"] = kinds.damaged(
    found["in distribution"], args.seed
  )
  for folder in args.torch:
    found[f"PyTorch itself ({folder.name})"] = kinds.from_files(
      folder, predictor
    )
  return {name: measured(predictor, some) for name, some in found.items()}


def main() -> None:
  """Trains, measures, writes the table and prints it."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--kind", choices=("sines", "digits"), required=True)
  parser.add_argument("--folder", type=pathlib.Path, required=True)
  parser.add_argument("--torch", type=pathlib.Path, nargs="*", default=[])
  parser.add_argument("--encoder", default="stat_pool")
  parser.add_argument("--responses", default="none", help="of --encoder=sne")
  parser.add_argument("--steps", type=int, default=600)
  parser.add_argument("--offset", type=float, default=0.3)
  parser.add_argument("--biases", type=float, default=0.0)
  parser.add_argument("--left_out", nargs="*", default=list(kinds.MAKERS[1:]))
  parser.add_argument("--seed", type=int, default=0, help="zoos and training")
  parser.add_argument("--out", type=pathlib.Path)
  args = parser.parse_args()
  args.folder.mkdir(parents=True, exist_ok=True)
  cache = str(args.folder / "compiled")
  jax.config.update("jax_compilation_cache_dir", cache)
  if args.kind == "sines":
    zoo = kinds.sines_zoo(args.folder, args.seed)
  else:
    zoo = kinds.digits_zoo(args.folder, args.seed)
  table = {}
  for name in ("", *args.left_out):
    parts = parts_of(zoo, args.kind, name)
    predictor = train(args, parts, name or "all")
    if not name:
      table |= rows_of(args, zoo, predictor, parts["test"])
      continue
    left = left_out(args.kind, zoo, name, predictor.targets[0])
    if name == "pytorch":
      left |= {
        f"PyTorch itself ({f.name}), pytorch left out": kinds.from_files(
          f, predictor
        )
        for f in args.torch
      }
    if args.kind == "sines":
      left[f"in distribution, without {name}"] = parts["test"]
    table |= {row: measured(predictor, some) for row, some in left.items()}
    print(f"without {name}: done", flush=True)  # noqa: T201
  print(as_markdown(table))  # noqa: T201
  if args.out:
    said = ("encoder", "responses", "steps", "offset", "biases", "seed")
    content = {"rows": table, **{name: getattr(args, name) for name in said}}
    results.write(args.out, content)


def as_markdown(table: dict[str, dict[str, float]]) -> str:
  """Returns the table as it stands in `docs/trust.md`."""
  more = "flagged or at chance"
  columns = dict(COLUMNS)
  if any(more in row for row in table.values()):
    columns[more] = "warned of, or predicted at chance"
  lines = [
    [name, *(report.number(row.get(column)) for column in columns)]
    for name, row in table.items()
  ]
  return report.markdown_table(["networks of", *columns.values()], lines)


if __name__ == "__main__":
  main()
