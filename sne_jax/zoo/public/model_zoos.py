"""The Model Zoo dataset of classifiers, in its raw layout of ray.tune.

A zoo is a folder of runs (`NN_tune_trainable_*`). A run has `params.json`,
`result.json` (one line of JSON for each epoch) and snapshots, in folders
called `checkpoint_<epoch>` or, by other versions of ray, with the epoch
zero-padded to six digits. Networks with dropout have other module numbers than
those without; tensors are told by order and shape.

Dimensions: `M` snapshots.

References:
  Schuerholt et al., Model Zoos: A Dataset of Diverse Populations of Neural
  Network Models, NeurIPS 2022, arXiv:2209.14764.
"""

import functools
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from sne_jax.networks import families
from sne_jax.networks import spec as spec_lib
from sne_jax.zoo.public import conversion, listing, residual_states, states
from sne_jax.zoo.public import options as options_lib
from sne_jax.zoo.public import source as source_lib

PARAMS, RESULT, STATE = "params.json", "result.json", "checkpoints"
NO_PARAMS = f"the run has no {PARAMS}"
NO_RESULT_FILE = f"the run has no {RESULT}"
NO_RESULT = f"{RESULT} has no line for the epoch"
NO_STATE = f"the snapshot has no file {STATE}"
UNUSED = -999.0
"""What the generators wrote where nothing had been measured."""

PUBLISHED = source_lib.Published(
  title="Model Zoos",
  reference="Schuerholt et al. 2022, arXiv:2209.14764",
  url="https://www.modelzoos.cc",
  licence="CC-BY-4.0",
  protocol="Classifiers of images of 28x28 (CNN) or 32x32 (CNN3, Resnet18),"
  " normalised for each image set. Results are matched by training_iteration."
  " What batch norms count (num_batches_tracked) is no weight and is left out."
  " Split `default`: 70/15/15, all epochs of a run in one part.",
)

ACTIVATIONS = {
  **{name: name for name in ("tanh", "relu", "sigmoid", "gelu", "silu")},
  "leakyrelu": "leaky_relu",
}
"""Their names of activations, and ours."""

# Our name, theirs in params.json, whether it is a number, and what it is.
_PARAMS = (
  ("model", "model::type", False, "class of the network"),
  ("activation", "model::nlin", False, "of the hidden layers"),
  ("dropout", "model::dropout", True, "share of activations set to 0"),
  ("initializer", "model::init_type", False, "how first weights were drawn"),
  ("optimizer", "optim::optimizer", False, "optimiser"),
  ("learning_rate", "optim::lr", True, "of the optimiser"),
  ("weight_decay", "optim::wd", True, "of the optimiser"),
  ("momentum", "optim::momentum", True, "of the optimiser; NaN: not said"),
  ("batch_size", "training::batchsize", True, "images of a step"),
  ("seed", "seed", True, "of the run"),
)
_RESULTS = (
  ("train_loss", "train_loss", "cross-entropy on training images"),
  ("train_accuracy", "train_acc", "on training images; of later epochs, while"
   " they are seen"),
  ("val_loss", "val_loss", "cross-entropy on validation images"),
  ("val_accuracy", "val_acc", "on validation images"),
  ("test_loss", "test_loss", "cross-entropy on test images"),
  ("test_accuracy", "test_acc", "on test images"),
)  # fmt: skip


def describe(
  folder: str, options: options_lib.ConvertOptions
) -> source_lib.Source:
  """Says which snapshots there are.

  Ids are `<folder of the run>/<epoch>`. A snapshot without a result, or a run
  without its files, is left out, and counted in the provenance.

  Raises:
    ZooError: no runs, or a file that is damaged or not what was published.
    ValueError: an option that this zoo has no use for.
  """
  options.only("model_zoos", ("epochs", "seed"))
  places, left_out = _places(folder, options)
  ids = [f"{run}/{epoch:03d}" for run, _, epoch in places]
  runs = [run for run, _, _ in places]
  if not ids:
    why = (
      f"; left out: {left_out[0][0]}, as {left_out[0][1]}" if left_out else ""
    )
    raise listing.fault(
      folder,
      f"no snapshot that can be taken{why}",
      "point to the folder that holds NN_tune_trainable_*, or choose other"
      " epochs",
    )
  opened = functools.lru_cache(maxsize=1)(  # Snapshots of a run follow.
    lambda run: _read_run(os.path.join(folder, run))
  )

  def read(number: int) -> source_lib.Network:
    run, name, epoch = places[number]
    params, results = opened(run)
    if epoch not in results:
      raise source_lib.LeftOut(NO_RESULT)
    file = os.path.join(folder, run, name, STATE)
    spec, weights = _network(
      os.path.join(folder, run, PARAMS), params, file, states.load(file)
    )
    return source_lib.Network(
      spec, weights, _properties(params, results[epoch])
    )

  numbers = np.unique(runs, return_inverse=True)[1].astype(np.int64)
  return source_lib.Source(
    generator=__name__,
    published=PUBLISHED,
    options={
      "epochs": options.epochs,
      "seed": options.seed,
      "snapshots": listing.digest(places),
    },
    ids=ids,
    read=read,
    columns={
      "run": numbers,
      "epoch": np.array([epoch for _, _, epoch in places], np.int64),
    },
    descriptions={
      **{ours: text for ours, _, _, text in _PARAMS},
      **{ours: text for ours, _, text in _RESULTS},
      "run": "number of the run; its epochs share it",
      "epoch": "epochs trained",
      "generalization_gap": "train_accuracy less test_accuracy",
    },
    splits=conversion.grouped_splits(ids, runs, options.seed),
    left_out=left_out,
    facts={"runs": len(set(runs))},
  )


def _places(folder: str, options: options_lib.ConvertOptions):
  """Returns run, folder and epoch of every snapshot; and what is left out."""
  places: list[tuple[str, str, int]] = []
  left_out: list[tuple[str, str]] = []
  for run in listing.names(folder, folders=True):
    inside = os.path.join(folder, run)
    snapshots = _snapshots(inside)
    if not snapshots and not run.startswith("NN_tune_trainable"):
      continue
    missing = [
      reason
      for file, reason in ((PARAMS, NO_PARAMS), (RESULT, NO_RESULT_FILE))
      if not os.path.isfile(os.path.join(inside, file))
    ]
    if missing:
      left_out.append((run, missing[0]))
      continue
    for epoch, name in sorted(snapshots.items()):
      if not options.takes(epoch):
        continue
      if not os.path.isfile(os.path.join(inside, name, STATE)):
        left_out.append((f"{run}/{name}", NO_STATE))
        continue
      places.append((run, name, epoch))
  return places, left_out


def _snapshots(folder: str) -> dict[int, str]:
  """Returns the folder of each epoch; of two names, that without zeros."""
  snapshots: dict[int, str] = {}
  for name in listing.names(folder, r"checkpoint_\d+", folders=True):
    digits = name.removeprefix("checkpoint_")
    epoch = int(digits)
    if epoch not in snapshots or digits == str(epoch):
      snapshots[epoch] = name
  return snapshots


def _read_run(folder: str) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
  """Returns the configuration of a run, and its result of each epoch."""
  file = os.path.join(folder, PARAMS)
  params = listing.read_json(file)
  if not isinstance(params, dict):
    raise listing.fault(file, "no table of parameters")
  file = os.path.join(folder, RESULT)
  results = {}
  lines = listing.read_lines(file)
  for number, line in enumerate(lines):
    try:
      result = json.loads(line)
      epoch = result["training_iteration"]
      if isinstance(epoch, bool) or not isinstance(epoch, int):
        raise ValueError(f"training_iteration is {str(epoch)[:50]!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
      if number == len(lines) - 1:
        break  # Cut by the end of the run: one result less.
      raise listing.fault(
        file, f"line {number + 1} is no result ({error})"
      ) from None
    results[epoch] = result  # A run that was resumed: the later one counts.
  return params, results


def _network(
  file: str, params: Mapping[str, Any], state_file: str, tree: dict[str, Any]
) -> tuple[spec_lib.NetworkSpec, np.ndarray]:
  """Returns spec and weights of a snapshot."""
  kind = params.get("model::type")
  nlin = params.get("model::nlin", "relu")
  channels = params.get("model::channels_in", 3)
  if kind not in ("CNN", "CNN3", "Resnet18") or nlin not in ACTIVATIONS:
    raise listing.fault(
      file,
      f"a network of class {str(kind)[:50]!r} with {str(nlin)[:50]!r} is not"
      " known",
      f"known are CNN, CNN3, Resnet18 with {', '.join(ACTIVATIONS)}",
    )
  views = states.tensors(tree)
  if kind == "Resnet18":
    side = 64 if "tiny" in str(params.get("dataset::dump", "")) else 32
    return residual_states.network(state_file, views, side)
  ordered = states.numbered(
    state_file, views, r"module_list\.(\d+)\.(weight|bias)"
  )
  spec = _cnn(kind, 1 if channels == 1 else 3, ACTIVATIONS[nlin])
  return spec, states.in_order(state_file, spec, ordered)


@functools.lru_cache(maxsize=64)
def _cnn(kind: str, channels: int, activation: str) -> spec_lib.NetworkSpec:
  if kind == "CNN":
    return families.architecture(
      "schuerholt", (channels, 28, 28), activation=activation
    )
  return families.cnn(
    (channels, 32, 32),
    (16, 32, 15),
    pools=2,
    dense=(20,),
    activation=activation,
    head="flatten",
    pool_before_activation=True,
  )


def _properties(params, result) -> dict[str, Any]:
  """Returns the properties that a run's files say; NaN or empty where not."""
  properties: dict[str, Any] = {
    ours: _number(params.get(theirs))
    if is_number
    else str(params.get(theirs, ""))[:100]
    for ours, theirs, is_number, _ in _PARAMS
  }
  properties |= {
    ours: _number(result.get(theirs)) for ours, theirs, _ in _RESULTS
  }
  gap = properties["train_accuracy"] - properties["test_accuracy"]
  return properties | {"generalization_gap": gap}


def _number(value: Any) -> float:
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  if not is_number or value == UNUSED or abs(value) > 1e300:
    return math.nan
  return float(value)


convert = conversion.reader(describe)
