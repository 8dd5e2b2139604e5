"""The small CNN zoo: 30,000 networks at 9 ages for each of four image sets.

A folder for each image set: `weights.npy`, `metrics.csv.gz` of as many rows,
and `layout.csv`. Kernels are in TensorFlow's axis order, and biases come
before kernels; here they are turned into PyTorch's order.

Dimensions: `M` rows taken, `R` rows of the file, 4,970 weights in each.

References:
  Unterthiner et al., Predicting Neural Network Accuracy from Weights, 2020,
  arXiv:2002.11448.
"""

import ast
import functools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from sne_jax.networks import families
from sne_jax.networks import spec as spec_lib
from sne_jax.zoo.public import conversion, listing, nfn_order
from sne_jax.zoo.public import options as options_lib
from sne_jax.zoo.public import source as source_lib
from sne_jax.zoo.store import splits

USES = ("epochs", "split_file", "seed", "train_networks")
"""Options that this zoo has a use for."""

TRAIN_NETWORKS = 15000
"""Networks of the part `train` of the split `unterthiner`, as published."""

PUBLISHED = source_lib.Published(
  title="Small CNN Zoo",
  reference="Unterthiner et al. 2020, arXiv:2002.11448",
  url="https://github.com/google-research/google-research/tree/master/"
  "dnn_predict_accuracy",
  licence="CC-BY-4.0",
  protocol="Inputs are images in grey, scaled to [-1, 1], then their mean"
  " subtracted. Splits of networks at their last epoch: `nfn` (order of the"
  " published split file without its header line; second half is test; first"
  " half shuffled by Python's random.Random(0), four fifths train, the rest"
  " val) and `unterthiner` (drawn: train of a fixed size, the rest test)."
  " `default`: all epochs, 70/15/15, the epochs of a run in one part.",
)

# Name, place in a row, and shape in TensorFlow's order, of every tensor.
LAYOUT = (
  ("conv0.bias", 0, 16, (16,)),
  ("conv0.weight", 16, 160, (3, 3, 1, 16)),
  ("conv1.bias", 160, 176, (16,)),
  ("conv1.weight", 176, 2480, (3, 3, 16, 16)),
  ("conv2.bias", 2480, 2496, (16,)),
  ("conv2.weight", 2496, 4800, (3, 3, 16, 16)),
  ("dense0.bias", 4800, 4810, (10,)),
  ("dense0.weight", 4810, 4970, (16, 10)),
)
_SUFFIX = {"bias": "bias:0", "weight": "kernel:0"}

_SIDES = {"mnist": 28, "fashion_mnist": 28, "cifar10": 32, "svhn_cropped": 32}
"""Height and width of the images of each set."""

# Our name, theirs, whether it is a number, and what it is.
_COLUMNS = (
  ("activation", "config.activation", False, "of the hidden layers"),
  ("bias_initializer", "config.b_init", False, "how biases were drawn"),
  ("dataset", "config.dataset", False, "images that it was trained on"),
  ("dropout", "config.dropout", True, "share of activations set to 0"),
  ("init_std", "config.init_std", True, "deviation of the first weights"),
  ("l2reg", "config.l2reg", True, "factor of the L2 penalty"),
  ("learning_rate", "config.learning_rate", True, "of the optimiser"),
  ("optimizer", "config.optimizer", False, "optimiser"),
  ("train_fraction", "config.train_fraction", True, "share of images seen"),
  ("initializer", "config.w_init", False, "how first weights were drawn"),
  ("modeldir", "modeldir", False, "names the run"),
  ("epoch", "step", True, "epochs trained"),
  ("test_accuracy", "test_accuracy", True, "on test images"),
  ("test_loss", "test_loss", True, "cross-entropy on the same"),
  ("train_accuracy", "train_accuracy", True, "on training images"),
  ("train_loss", "train_loss", True, "cross-entropy on the same"),
)


def describe(
  folder: str, options: options_lib.ConvertOptions
) -> source_lib.Source:
  """Reads all but the weights of one image set; checks that they are there.

  Ids are `<image set>-<row of the published file>`. The number of the run of a
  member is the property `run`.

  Raises:
    ZooError: a file is missing, damaged, or not what was published.
    ValueError: an option that this zoo has no use for.
  """
  options.only("small_cnn", USES)
  layout = listing.required(folder, "layout.csv")
  check_layout(layout)
  weights = map_weights(listing.required(folder, "weights.npy"))
  metrics = listing.required(folder, "metrics.csv.gz", "metrics.csv")
  table = read_metrics(metrics, len(weights))
  order_file = nfn_order.find(folder, options.split_file)
  order = nfn_order.read_order(order_file, len(weights)) if order_file else None
  last = table["epoch"] == table["epoch"].max()
  rows = np.flatnonzero(
    [options.takes(epoch) for epoch in table["epoch"].tolist()]
  )
  ids = [f"{table['dataset'][row]}-{row:06d}" for row in rows]
  train = options.train_networks or TRAIN_NETWORKS
  final = last[rows]
  if options.train_networks and train >= final.sum():
    raise listing.fault(
      metrics,
      f"{int(final.sum())} networks are chosen at the last epoch",
      f"set train_networks ({train}) below that",
    )
  specs = _specs(metrics, table)
  columns = {name: values[rows] for name, values in table.items()}
  runs, steps = np.unique(columns["run"], return_counts=True)

  def read(number: int) -> source_lib.Network:
    row = rows[number]
    spec = specs[str(table["dataset"][row]), str(table["activation"][row])]
    return source_lib.Network(spec, weights[row][order_of(spec)])

  by_run = conversion.grouped_splits(ids, columns["run"], options.seed)

  def make_splits(kept: np.ndarray) -> source_lib.Splits:
    named = np.array(ids, str)
    splits_ = {}
    finals = named[kept & final].tolist()
    if len(finals) > train:
      splits_["unterthiner"] = _fixed_size(finals, train, options.seed)
    if order is not None:
      by_row = dict(zip(rows.tolist(), ids, strict=True))
      splits_["nfn"] = {
        part: [by_row[row] for row in some if row in by_row]
        for part, some in nfn_order.split(order, last).items()
      }
    return splits_ | dict(by_run(kept))

  return source_lib.Source(
    generator=__name__,
    published=PUBLISHED,
    options={
      "epochs": options.epochs,
      "seed": options.seed,
      "train_networks": train,
      "layout": listing.file_digest(layout),
      "metrics": listing.file_digest(metrics),
      "weights": [*weights.shape, str(weights.dtype)],
      "split_file": listing.file_digest(order_file),
    },
    ids=ids,
    read=read,
    columns=columns,
    descriptions={
      **{name: text for name, _, _, text in _COLUMNS},
      "run": "number of the run; its epochs share it",
      "generalization_gap": "train_accuracy less test_accuracy",
    },
    splits=make_splits,
    facts={
      "rows": len(weights),
      "runs": len(runs),
      "runs_by_epochs": {
        str(count): int((steps == count).sum()) for count in np.unique(steps)
      },
    },
  )


def _fixed_size(ids: list[str], train: int, seed: int) -> dict[str, Any]:
  """Draws a part `train` of a fixed size; the rest is for test."""
  part = splits.random_split(ids, seed=seed, parts={"train": train})["train"]
  return {"train": part, "test": sorted(set(ids) - set(part.tolist()))}


def check_layout(file: str) -> None:
  """Raises `ZooError` unless a layout file is the one that was published."""
  tensors = []
  for row in listing.read_csv(
    file, ("varname", "start_idx", "end_idx", "shape")
  ):
    try:
      shape = tuple(int(size) for size in ast.literal_eval(row["shape"]))
      start, end = int(float(row["start_idx"])), int(float(row["end_idx"]))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
      raise listing.fault(
        file,
        f"{row['varname'][:80]!r} has shape {row['shape'][:80]!r}",
      ) from None
    tensors.append((row["varname"], start, end, shape))
  tensors.sort(key=lambda entry: entry[1])
  for name, start, end, shape in LAYOUT:
    suffix = _SUFFIX[name.split(".")[1]]
    entry = tensors.pop(0) if tensors else ("nothing", 0, 0, ())
    if entry[1:] != (start, end, shape) or not entry[0].endswith(suffix):
      raise listing.fault(
        file,
        f"{entry[0]!r} at {entry[1]}:{entry[2]} of shape {entry[3]}, where a"
        f" {suffix} at {start}:{end} of shape {shape} is due",
        "this is another zoo, or another version of it",
      )
  if tensors:
    raise listing.fault(
      file,
      f"{tensors[0][0]!r} at {tensors[0][1]} is one tensor too many",
      "this is another zoo, or another version of it",
    )


def map_weights(file: str) -> np.ndarray:
  """Maps the weights, float `[R, 4970]`; nothing is read yet."""
  try:
    weights = np.load(file, mmap_mode="r", allow_pickle=False)
  except (ValueError, OSError, EOFError) as error:
    raise listing.fault(file, f"not a whole npy file ({error})") from None
  due = LAYOUT[-1][2]
  if (
    not isinstance(weights, np.ndarray)
    or weights.ndim != 2
    or weights.shape[1] != due
    or weights.dtype.kind != "f"
  ):
    shape = getattr(weights, "shape", "unknown")
    raise listing.fault(
      file,
      f"array of shape {shape} and type {getattr(weights, 'dtype', '')}",
      f"floats of shape [rows, {due}] are due",
    )
  return weights


def read_metrics(file: str, count: int) -> dict[str, np.ndarray]:
  """Reads the properties of all `R` rows, by our names; adds `run`.

  Raises:
    ZooError: a column is missing or malformed, or there are not `count` rows.
  """
  types = {theirs: is_number for _, theirs, is_number, _ in _COLUMNS}
  try:
    table = pa_csv.read_csv(
      file,
      convert_options=pa_csv.ConvertOptions(
        include_columns=list(types),
        column_types={
          name: pa.float64() if number else pa.string()
          for name, number in types.items()
        },
        null_values=["", "nan", "NaN", "None", "none", "null", "NULL"],
      ),
    )
  except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
    raise listing.fault(file, f"not the published table ({error})") from None
  if table.num_rows != count:
    raise listing.fault(
      file,
      f"{table.num_rows} rows, and weights.npy has {count}",
      "take both files of one image set",
    )
  columns: dict[str, np.ndarray] = {}
  for ours, theirs, is_number, _ in _COLUMNS:
    column = table.column(theirs)
    columns[ours] = (
      column.to_numpy().astype(np.float64)
      if is_number
      else np.array(column.to_pylist(), str)
    )
  epochs = columns["epoch"]
  if not len(epochs) or not (epochs == np.rint(epochs)).all():
    raise listing.fault(file, "a step is no whole number, or no rows")
  columns["epoch"] = epochs.astype(np.int64)
  # By first appearance: runs that lie together have numbers that follow.
  _, first, run = np.unique(
    columns.pop("modeldir"), return_index=True, return_inverse=True
  )
  columns["run"] = np.argsort(np.argsort(first))[run].astype(np.int64)
  columns["generalization_gap"] = (
    columns["train_accuracy"] - columns["test_accuracy"]
  )
  return columns


def _specs(file: str, table) -> dict[tuple[str, str], spec_lib.NetworkSpec]:
  """Returns the spec of each image set and activation that occur."""
  pairs = set(
    zip(table["dataset"].tolist(), table["activation"].tolist(), strict=True)
  )
  specs = {}
  for dataset, activation in sorted(pairs):
    if dataset not in _SIDES:
      raise listing.fault(
        file,
        f"image set {dataset!r} is not known",
        f"known are {', '.join(_SIDES)}",
      )
    if activation not in families.ACTIVATIONS:
      raise listing.fault(
        file,
        f"activation {activation!r} is not known",
        f"known are {', '.join(families.ACTIVATIONS)}",
      )
    side = _SIDES[dataset]
    specs[dataset, activation] = families.architecture(
      "arch1", (1, side, side), activation=activation
    )
  return specs


@functools.lru_cache(maxsize=16)
def order_of(spec: spec_lib.NetworkSpec) -> np.ndarray:
  """Returns which number of a row is which weight, int `[4970]`.

  Kernels `[height, width, in, out]` become `[out, in, height, width]`, and
  matrices `[in, out]` become `[out, in]`.
  """
  tensors = {}
  for name, start, end, shape in LAYOUT:
    array = np.arange(start, end).reshape(shape)
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[array.ndim]
    tensors[name] = array.transpose(axes)
  return spec.flatten(tensors, np)


convert = conversion.reader(describe)
