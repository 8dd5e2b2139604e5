"""Trains networks that edit networks, and measures what the edited ones show.

`--edit=dilate` and others: the networks of a zoo are images, each edited by a
change of its weights; what it shows then is compared with its image, processed
by a library. Beside the editor stand no edit, and networks fitted anew to the
processed images, as the zoo was: how small the error can be.

Dimensions: `N` networks, images `[N, C, H, W]`.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import numpy as np
from absl import logging as log

import sne_jax
from experiments.cli import options as options_lib
from experiments.tasks import members, outcome, zoos
from sne_jax import atomic, editing
from sne_jax.cli.commands import zoo as make_zoo
from sne_jax.cli.reports import edited_images, report, run_report
from sne_jax.learning.editing import program, rendering, targets
from sne_jax.learning.evaluation import metrics
from sne_jax.learning.training import loop, progress, records, workdirs
from sne_jax.networks import checked, symmetry
from sne_jax.networks.spec import NetworkSpec
from sne_jax.zoo.classifiers import images as image_lib
from sne_jax.zoo.inrs import image_options, image_zoo, refit

METRIC = "mse"
NO_EDIT, ANEW = "no edit", "fitted anew to the processed images"
MEAN = "the mean of the processed training images"
"""The same for all: what is known without a look at the network."""

MOVED = 16
"""Networks on which it is measured how edits move along with neurons."""


@dataclasses.dataclass(frozen=True)
class Data(members.Data):
  """The networks of a run, with their images before and after."""

  before: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  after: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

  @property
  def spec(self) -> NetworkSpec:
    """The architecture of all networks."""
    some = self.parts["train"]
    return some.specs[some.numbers[0]]

  def examples(self, part: str) -> editing.Examples:
    """Returns networks of a part, and what they are to show."""
    return editing.Examples(self.parts[part], self.after[part])


def gathered(options: options_lib.Options) -> Data:
  """Returns the networks of a run, made where they are not, and their images.

  Raises:
    ValueError: several zoos, networks that are no images, or images that are
      not there.
  """
  source, *more = zoos.sources(options.run.zoo, options.run.data_dir)
  if more or options.run.test_zoos:
    raise ValueError(
      f"zoo is {options.run.zoo!r} and test_zoos {options.run.test_zoos!r}, but"
      " an editor is trained and tested on one zoo; name one by --zoo alone"
    )
  originals = options.editing.images == "originals"
  if originals and not source.arguments:
    raise ValueError(
      f"{source.path} is a folder, which does not say where its images are;"
      f" name the {zoos.SUFFIX} file of make_zoo.py that it was made by, or"
      " edit what its networks show: --edit_images=renderings"
    )
  if originals and source.is_there:
    _need_images(source)
  zoo = zoos.opened(source, options.zoo)
  for spec in zoo.specs:
    image_zoo.form_of(spec)
  # The labels are not looked at: any will do.
  numbers = [n for n in zoo.properties if zoo.property(n).dtype.kind in "if"]
  plain = options.replaced(
    targets=numbers[0], loss="mse", target_scale="linear"
  )
  data = members.load(plain, zoo, source.name)
  before = {
    part: _originals(source, data, part)
    if originals
    else _renderings(options, data, part)
    for part in data.parts
  }
  after = {
    part: targets.processed(options.run.edit, image)
    for part, image in before.items()
  }
  return Data(
    *(getattr(data, f.name) for f in dataclasses.fields(data)),
    before=before,
    after=after,
  )


def _need_images(source: zoos.Source) -> None:
  """Refuses a zoo whose images are not there, before it is read."""
  image, _ = source.options()
  if not image_lib.are_there(image):
    raise ValueError(
      f"the images of {source.path} ({image.dataset}) are not there; name the"
      " folder of their file by --data_dir, or edit what its networks show:"
      " --edit_images=renderings"
    )


def _originals(source: zoos.Source, data: members.Data, part: str):
  """Returns the images that the networks of a part were fitted to."""
  (zoo,) = data.zoos
  if not {"image", "part"} <= set(zoo.properties):
    raise ValueError(
      f"the networks of {zoo.path} do not say which images they are; edit what"
      " they show: --edit_images=renderings"
    )
  every = make_zoo.load_images(*source.options())
  rows = data.members[part].row
  number = zoo.property("image")[rows]
  is_test = zoo.property("part")[rows] == "test"
  return np.where(
    is_test[:, None, None, None],
    every.x_test[np.where(is_test, number, 0)],
    every.x_train[np.where(is_test, 0, number)],
  )


def _renderings(options: options_lib.Options, data: members.Data, part: str):
  """Returns what the networks of a part show, as images of 256 values."""
  networks, size = data.parts[part], options.editing.size
  spec = networks.specs[networks.numbers[0]]
  shown = image_zoo.rendered(spec, editing.stacked(networks), size)
  return np.rint(255 * np.clip(shown, 0, 1)).astype(np.uint8)


def train(
  options: options_lib.Options,
  data: Data,
  workdir: pathlib.Path,
  programs: dict[str, Any],
) -> list[dict[str, Any]]:
  """Trains and measures all seeds of a run; returns what is known of each.

  Args:
    options: of the run.
    data: its networks and images.
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
  editor = sne_jax.fit_editor(
    data.examples("train"),
    data.examples("val"),
    seed=seed,
    workdir=folder,
    programs=programs,
    edit=run.edit,
    encoder=run.encoder,
    options=options.encoder_options(run.encoder),
    chunks=options.chunk,
    scale=options.editing.scale,
    data=options.data,
    optimizer=options.optimizer,
    training=options.train,
    devices=run.devices,
  )
  result: dict[str, Any] = dict(editor.results) | {"metrics": {}}
  for part in ("val", *data.tests()):
    weights = _stacked(editor.edit(data.parts[part]))
    result["metrics"][part] = {run.edit: measured(data, part, weights)}
  result["moved"] = moved(data, editor)
  scale = jax.device_get(editor.params)["params"]["scale"]
  names = [tensor.name for tensor in data.spec.tensors]
  result["scale"] = dict(zip(names, map(float, scale), strict=True))
  text = report.to_json(result)
  workdirs.finish(folder, {workdirs.RESULT_FILE: atomic.json_text(text)})
  return result


def _stacked(pairs) -> np.ndarray:
  return np.stack([np.asarray(weights) for _, weights in pairs])


def measured(data: Data, part: str, weights: np.ndarray) -> dict[str, Any]:
  """Returns the mean error of what networks show, with its interval."""
  return _mean(data, part, program.errors(data.spec, weights, data.after[part]))


def _of_mean(data: Data, part: str) -> dict[str, Any]:
  """Returns the error of one image for all networks."""
  mean = rendering.signed(data.after["train"]).mean(axis=0, dtype=np.float64)
  off = rendering.signed(data.after[part]) - mean
  return _mean(data, part, (off**2).mean(axis=(1, 2, 3)))


def _mean(data: Data, part: str, errors: np.ndarray) -> dict[str, Any]:
  """Returns the mean of errors `[N]`, with its interval over networks."""
  zero = np.zeros(len(errors))
  # The error of a network is one number: its root is what is off.
  return metrics.evaluate(
    zero, np.sqrt(errors), (METRIC,), clusters=data.clusters(part)
  )


def moved(data: Data, editor: sne_jax.Editor) -> dict[str, float]:
  """Returns how far edits are from moving along with neurons.

  Root mean squares, over that of the changes themselves: of networks whose
  neurons were permuted, and whose weights were without regard to these.
  """
  before = editing.stacked(data.parts["test"])[:MOVED]
  change = _stacked(editor.edit([(data.spec, w) for w in before])) - before
  size, far = np.sqrt(np.mean(change**2)), {}
  for name, draw in (
    ("true permutation", symmetry.draw_permutation),
    ("false permutation", symmetry.draw_input_shuffle),
  ):
    order = draw(data.spec, np.random.default_rng(0))
    pairs = [(data.spec, w[order]) for w in before]
    off = _stacked(editor.edit(pairs)) - before[:, order] - change[:, order]
    far[name] = float(np.sqrt(np.mean(off**2)) / max(size, 1e-12))
  return far


def collect(
  options: options_lib.Options,
  data: Data,
  seeds: list[dict[str, Any]],
  seconds: dict[str, float],
) -> dict[str, Any]:
  """Returns the results of a run, for `results.json` and the report."""
  parts = ("val", *data.tests())
  rows = {
    NO_EDIT: {
      part: measured(data, part, editing.stacked(data.parts[part]))
      for part in parts
    },
    MEAN: {part: _of_mean(data, part) for part in parts},
  }
  notes = [
    "Errors are mean squared errors per pixel, of images from -1 (black) to 1"
    " (white), as published.",
    f"What is shown is compared with the {options.editing.images}, edited by"
    f" {options.run.edit}.",
  ]
  anew, why = _anew(options, data)
  if anew is not None:
    rows[ANEW] = {"test": measured(data, "test", anew)}
  else:
    notes.append(f"**There is no floor**: {why}.")
  good = report.finished(seeds)
  common = outcome.of_training(options, data, seeds, seconds, named=False)
  results = common | {
    "target": f"edit {options.run.edit}",
    "references": rows,
    "invariance": {
      f"edits of networks under a {name}, away from moved edits": float(
        np.mean([entry["moved"][name] for entry in good])
      )
      for name in (good[0]["moved"] if good else ())
    },
    "notes": notes,
  }
  results["tables"] = _tables(results, good)
  return results | {"summary": outcome.summary(results)}


def _anew(options, data: Data) -> tuple[np.ndarray | None, str]:
  """Returns networks fitted to the processed test images, or why not."""
  (zoo,) = data.zoos
  if not options.editing.floor:
    return None, "it was not asked for (--edit_floor)"
  if zoo.provenance.get("generator") != image_zoo.GENERATOR:
    return None, f"how the networks of {zoo.path} were fitted is not known"
  kept = dict(zoo.provenance["options"])
  fields = {f.name for f in dataclasses.fields(image_options.ImageInrOptions)}
  how = checked.rebuilt(
    image_options.ImageInrOptions,
    {name: value for name, value in kept.items() if name in fields},
  )
  with progress.Progress("the floor") as shown:
    return refit.fitted(
      how, data.after["test"], progress=shown.update
    ).weights, ""


def _tables(results, good) -> list[dict[str, Any]]:
  """Returns the table that says how far the editor has come, and its scales."""
  if not good:
    return []
  known = {
    n: r["test"][METRIC]["value"] for n, r in results["references"].items()
  }
  mean = np.mean(
    [
      e["metrics"]["test"][METRIC]["value"]
      for e in results["seeds"]
      if "metrics" in e
    ]
  )
  share = None
  if ANEW in known:
    share = (known[NO_EDIT] - mean) / max(known[NO_EDIT] - known[ANEW], 1e-12)
  names = good[0]["scale"]
  scales = [
    [name, float(np.mean([entry["scale"][name] for entry in good]))]
    for name in names
  ]
  return [
    {
      "title": "The way from no edit to the floor",
      "text": "Share of the error that the editor takes away of what fitting"
      " anew takes away; mean over seeds, on the test networks.",
      "header": ["no edit", "editor", "floor", "share"],
      "rows": [[known[NO_EDIT], mean, known.get(ANEW), share]],
    },
    {
      "title": "Learned scales",
      "text": "What the change of a tensor is multiplied by; mean over seeds.",
      "header": ["tensor", "scale"],
      "rows": scales,
    },
  ]


def write(
  workdir: pathlib.Path,
  options: options_lib.Options,
  data: Data,
  seeds: list[dict[str, Any]],
  results: dict[str, Any],
) -> None:
  """Writes results, figures and report of a run."""
  drawn = {}
  good = report.finished(seeds)
  if good:
    editor = sne_jax.Editor.load(workdir / f"seed{good[0]['seed']}")
    some = [n for n in data.parts["test"].pairs()[: edited_images.MOST]]
    show = functools.partial(
      editor.rendered,
      height=data.after["test"].shape[2],
      width=data.after["test"].shape[3],
    )
    count = len(some)
    drawn |= edited_images.draw(
      workdir / "figures" / "edited.png",
      {
        "image": data.before["test"][:count] / 255,
        "rendering": show(some),
        "target": data.after["test"][:count] / 255,
        "edited": show(editor.edit(some)),
      },
    )
  losses = [("train/loss", "training loss"), ("val/loss", "validation loss")]
  drawn |= outcome.draw_curves(workdir, seeds, losses)
  del options
  run_report.write(workdir, results, drawn)
