"""Predicts winning tickets, and trains what the predicted masks leave.

`--mask=imp`: from first weights to which of them to keep. Test networks are
trained from their first weights with the predicted masks, by the program that
has trained the zoo, and compared with the masks of iterative magnitude
pruning, and of what is known without it, at the same density in every tensor.

Dimensions: `N` networks of `P` weights.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import logging as log

import sne_jax
from experiments.cli import options as options_lib
from experiments.tasks import members, outcome, zoos
from sne_jax import atomic, masking
from sne_jax.cli.commands import zoo as make_zoo
from sne_jax.cli.reports import report, run_report
from sne_jax.learning.evaluation import metrics
from sne_jax.learning.per_weight import training
from sne_jax.learning.training import loop, progress, records, workdirs
from sne_jax.networks import symmetry
from sne_jax.networks.spec import NetworkSpec
from sne_jax.zoo.classifiers import generate
from sne_jax.zoo.classifiers import images as image_lib
from sne_jax.zoo.tickets import options as ticket_options
from sne_jax.zoo.tickets import pruning, ticket_zoo, trials

TARGET = "masks"
ACCURACY, AGREEMENT = "trained_accuracy", "agreement"
IMP, RANDOM = "iterative magnitude pruning", "random"
FIRST, SENSITIVE = "largest first weights", "sensitivity"
PLACES = "largest first weights, times how often their place is kept"
DENSE = "all weights"

MOVED = 16
"""Networks on which it is measured how masks move along with neurons."""


@dataclasses.dataclass(frozen=True)
class Data(members.Data):
  """The networks of a run, their masks, and what trains them."""

  masks: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  how: ticket_options.TicketOptions = ticket_options.TicketOptions()
  trials: Any = None  # trials.Trials.

  @property
  def spec(self) -> NetworkSpec:
    """The architecture of all networks."""
    return self.zoos[0].specs[0]

  def tickets(self, part: str) -> masking.Tickets:
    """Returns networks of a part, and their masks."""
    return masking.Tickets(self.parts[part], self.masks[part])

  def kept(self, part: str) -> np.ndarray:
    """Returns how many weights of each tensor the masks of a part keep."""
    return pruning.kept(self.spec, self.masks[part])

  def trained(
    self, part: str, masks: np.ndarray, told: Callable[[int], None]
  ) -> np.ndarray:
    """Returns test accuracies of networks trained with some masks."""
    numbers = self.property(part, members.NETWORK)
    weights = training.stacked(self.parts[part])
    done = self.trials.train(weights, masks, numbers, compared=True, told=told)
    return done.test.astype(np.float64)


def gathered(options: options_lib.Options) -> Data:
  """Returns the networks of a run, made where they are not, and their masks.

  Raises:
    ValueError: several zoos, one without masks, or images that are not there.
  """
  run = options.run
  source, *more = zoos.sources(run.zoo, run.data_dir)
  if more or run.test_zoos:
    raise ValueError(
      f"zoo is {run.zoo!r} and test_zoos {run.test_zoos!r}, but masks are"
      " predicted for the networks of one zoo; name one by --zoo alone"
    )
  if not source.arguments:
    raise ValueError(
      f"{source.path} is a folder, which does not say where its images are, to"
      f" train networks on; name the {zoos.SUFFIX} file of make_zoo.py that it"
      " was made by"
    )
  image, how = source.options()
  if not isinstance(how, ticket_options.TicketOptions):
    raise ValueError(
      f"{source.word} makes no zoo of tickets, so its networks have no masks;"
      " name one with --family=tickets (experiments/flags/zoos/tickets)"
    )
  if source.is_there and not image_lib.are_there(image):
    raise ValueError(
      f"the images of {source.path} ({image.dataset}) are not there, to train"
      " networks on; name the folder of their file by --data_dir"
    )
  zoo = zoos.opened(source, options.zoo)
  if zoo.masks is None:
    raise ValueError(
      f"the networks of {zoo.path} have no masks; delete the folder, and it is"
      " made anew"
    )
  # What is loaded as a target is not looked at: any number will do.
  plain = options.replaced(
    targets="sparsity", loss="mse", target_scale="linear"
  )
  data = members.load(plain, zoo, source.name)
  every = make_zoo.load_images(image, how)
  slots = generate.free_batch_members([zoo.specs[0]], how.batch_size, every)
  most = max(map(len, data.parts.values()))
  return Data(
    *(getattr(data, f.name) for f in dataclasses.fields(data)),
    masks={
      part: zoo.masks.rows(placed.row) for part, placed in data.members.items()
    },
    how=how,
    trials=trials.Trials(how, every, min(slots, most)),
  )


def train(
  options: options_lib.Options,
  data: Data,
  workdir: pathlib.Path,
  programs: dict[str, Any],
) -> list[dict[str, Any]]:
  """Trains and measures all seeds of a run; returns what is known of each.

  Args:
    options: of the run.
    data: its networks and masks.
    workdir: its folder; seeds that are finished there are taken as they are.
    programs: compiled programs, to share with other runs.
  """
  first, results = options.run.first_seed, []
  for seed in range(first, first + options.run.seeds):
    try:
      results.append(
        _one(options, data, workdir / f"seed{seed}", seed, programs)
      )
    except loop.TrainingDiverged as error:
      log.error("seed %d failed: %s", seed, error)
      results.append({"seed": seed, "failed": str(error)})
  return results


def _one(options, data: Data, folder, seed: int, programs) -> dict[str, Any]:
  """Trains and measures one seed, or returns what an earlier run has given."""
  path = folder / workdirs.RESULT_FILE
  if path.exists():
    remedy = f"restore the file, or remove {folder} and start the run again"
    workdirs.verify_seed(folder, remedy=remedy)
    if "metrics" in (done := records.read_json(path)):
      log.info("seed %d is finished already", seed)
      return done
  run = options.run
  masker = sne_jax.fit_masker(
    data.tickets("train"),
    data.tickets("val"),
    seed=seed,
    workdir=folder,
    programs=programs,
    encoder=run.encoder,
    options=options.encoder_options(run.encoder),
    chunks=options.chunk,
    positive_weight=options.masks.positive_weight,
    data=options.data,
    optimizer=options.optimizer,
    training=options.train,
    devices=run.devices,
  )
  masks = masker.masks(data.parts["test"], data.kept("test"))
  with progress.Progress(f"training test networks, seed {seed}") as shown:
    accuracy = data.trained(
      *("test", masks),
      lambda done: shown.update(done, len(masks), "trainings"),
    )
  of_val = masker.masks(data.parts["val"], data.kept("val"))
  result: dict[str, Any] = dict(masker.results) | {
    "metrics": {
      "val": {TARGET: _agreement(data, "val", of_val)},
      "test": {
        TARGET: _mean(ACCURACY, accuracy) | _agreement(data, "test", masks)
      },
    },
    "accuracies": accuracy.tolist(),
    "moved": moved(data, masker),
  }
  text = report.to_json(result)
  workdirs.finish(folder, {workdirs.RESULT_FILE: atomic.json_text(text)})
  return result


def _mean(name: str, values: np.ndarray) -> dict[str, Any]:
  """Returns the mean of numbers `[N]` of 0 or more, with its interval."""
  zero = np.zeros(len(values))
  return {name: metrics.evaluate(zero, values, ("mae",))["mae"]}


def _agreement(data: Data, part: str, masks: np.ndarray) -> dict[str, Any]:
  """Returns the share of the weights of IMP's masks that masks keep too."""
  some = pruning.prunable(data.spec)
  wanted = data.masks[part][:, some]
  share = (wanted & masks[:, some]).sum(axis=1) / wanted.sum(axis=1)
  return _mean(AGREEMENT, share)


def moved(data: Data, masker: sne_jax.Masker) -> dict[str, dict[str, float]]:
  """Returns how far predictions are from moving along with neurons.

  Of networks whose neurons were permuted, and whose weights were without regard
  to these: the root mean square of what logits are off, over that of logits,
  and the share of the weights that can be pruned whose mask differs.
  """
  some = pruning.prunable(data.spec)
  before = training.stacked(data.parts["test"])[:MOVED]
  kept = data.kept("test")[:MOVED]
  pairs = [(data.spec, w) for w in before]
  logits, masks = masker.logits(pairs), masker.masks(pairs, kept)
  size, far = np.sqrt(np.mean(logits[:, some] ** 2)), {}
  for name, draw in (
    ("true permutation", symmetry.draw_permutation),
    ("false permutation", symmetry.draw_input_shuffle),
  ):
    order = draw(data.spec, np.random.default_rng(0))
    turned = [(data.spec, w[order]) for w in before]
    off = (masker.logits(turned) - logits[:, order])[:, some]
    other = masker.masks(turned, kept) != masks[:, order]
    far[name] = {
      "logits": float(np.sqrt(np.mean(off**2)) / max(size, 1e-12)),
      "masks": float(other[:, some].mean()),
    }
  return far


def references(data: Data, part: str = "test") -> dict[str, np.ndarray]:
  """Returns masks that are known without a model; all of equal density.

  But for that of all weights. The training networks' masks say how often the
  weights of a place, such as those that read one pixel, are kept.
  """
  spec, kept = data.spec, data.kept(part)
  first = training.stacked(data.parts[part])
  numbers = data.property(part, members.NETWORK)
  often = pruning.rates(spec, data.masks["train"])[None]
  return {
    IMP: data.masks[part],
    FIRST: pruning.best(spec, np.abs(first), kept),
    PLACES: pruning.best(spec, np.abs(first) * often, kept),
    SENSITIVE: pruning.best(spec, data.trials.sensitivity(first), kept),
    RANDOM: ticket_zoo.random_masks(spec, kept, data.how.seed, numbers),
    DENSE: np.ones(first.shape, bool),
  }


def collect(
  options: options_lib.Options,
  data: Data,
  seeds: list[dict[str, Any]],
  seconds: dict[str, float],
) -> dict[str, Any]:
  """Returns the results of a run, for `results.json` and the report."""
  known = references(data)
  accuracy: dict[str, np.ndarray] = {}
  with progress.Progress("training test networks, other masks") as shown:
    total = sum(map(len, known.values()))
    for place, (name, masks) in enumerate(known.items()):
      accuracy[name] = data.trained(
        *("test", masks),
        lambda done, place=place: shown.update(
          place * len(data.masks["test"]) + done, total, "trainings"
        ),
      )
  good = report.finished(seeds)
  common = outcome.of_training(options, data, seeds, seconds, named=False)
  rows = {
    name: {
      "test": _mean(ACCURACY, accuracy[name]) | _agreement(data, "test", masks)
    }
    for name, masks in known.items()
  }
  results = common | {
    "target": "winning tickets",
    "references": rows,
    "invariance": {
      f"{what} under a {name}, away from moved ones": float(
        np.mean([entry["moved"][name][what] for entry in good])
      )
      for name in (good[0]["moved"] if good else ())
      for what in ("logits", "masks")
    },
    "tables": tables(accuracy, [np.array(e["accuracies"]) for e in good]),
    "notes": _notes(data),
  }
  return results | {"summary": outcome.summary(results)}


def _notes(data: Data) -> list[str]:
  how, share = data.how, 1 - data.property("test", "sparsity").mean()
  lines = [
    f"{ACCURACY}: of test images, at the end of {how.epochs} epochs from the"
    f" first weights, {share:.2%} of which are kept (biases always); all masks"
    " keep as many weights of each tensor as that of iterative magnitude"
    " pruning, and networks see images in one order, which no round has seen.",
    f"{AGREEMENT}: share of the weights that iterative magnitude pruning keeps"
    " which a mask keeps too.",
    "Intervals are over networks, draws of first weights of one architecture.",
  ]
  if how.scope == "global":
    lines.append(
      "**How many weights of a tensor are kept** differs between networks"
      " (--ticket_scope=global), and all masks are told it by iterative"
      " magnitude pruning."
    )
  return lines


def tables(
  accuracy: dict[str, np.ndarray], predicted: list[np.ndarray]
) -> list[dict[str, Any]]:
  """Returns how much better predicted masks are, network by network.

  Args:
    accuracy: of networks `[N]` with other masks, by name.
    predicted: with predicted masks, by seed.
  """
  if not predicted:
    return []
  mean = np.mean(predicted, axis=0)
  rows = []
  for name, values in accuracy.items():
    gain = mean - values
    low, high = metrics.bootstrap_interval(_gain, np.zeros(len(gain)), gain)
    rows.append([name, float(values.mean()), float(gain.mean()), low, high])
  way, done = accuracy[IMP] - accuracy[RANDOM], mean - accuracy[RANDOM]
  low, high = metrics.bootstrap_interval(_share, way, done)
  ends = [float(accuracy[RANDOM].mean()), float(mean.mean())]
  return [
    {
      "title": "Predicted masks against others",
      "text": "Accuracy with predicted masks, less that with others; pairs of"
      " trainings of one network, the mean over seeds, with 95 % intervals over"
      " networks.",
      "header": ["mask", "accuracy", "predicted is better by", "low", "high"],
      "rows": rows,
    },
    {
      "title": "The way from random masks to iterative magnitude pruning",
      "text": "Share of it that predicted masks go, with a 95 % interval over"
      " networks.",
      "header": ["random", "predicted", "pruning", "share", "low", "high"],
      "rows": [
        [*ends, float(accuracy[IMP].mean()), _share(way, done), low, high]
      ],
    },
  ]


def _gain(zero: np.ndarray, gain: np.ndarray) -> float:
  del zero
  return float(gain.mean())


def _share(way: np.ndarray, done: np.ndarray) -> float:
  """Returns the share of a way that is done; nan where there is no way."""
  return float(done.mean() / way.mean()) if way.mean() > 0 else float("nan")


def write(
  workdir: pathlib.Path,
  options: options_lib.Options,
  data: Data,
  seeds: list[dict[str, Any]],
  results: dict[str, Any],
) -> None:
  """Writes results, figures and report of a run."""
  del options, data
  losses = [("train/loss", "training loss"), ("val/loss", "validation loss")]
  drawn = outcome.draw_curves(workdir, seeds, losses)
  run_report.write(workdir, results, drawn)
