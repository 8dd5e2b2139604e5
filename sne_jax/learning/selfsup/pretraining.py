"""Encoders trained without labels, as a file describes and keeps them.

The ways of training are in `methods.py`. Here: what has to be known of
the training networks to build one, and what a finished training is used as.

Dimensions: `N` networks of `P` weights, `D` width of a code.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from sne_jax.encoders import table
from sne_jax.learning.selfsup import contrast, methods, views
from sne_jax.learning.training import records, train_state, workdirs
from sne_jax.networks import chunking, matching, standardise
from sne_jax.networks.spec import NetworkSpec

FILE = workdirs.PRETRAINED_FILE
"""Where the description of a method is kept, beside its checkpoints."""

FINISHED = ("result.json", "results.json")
"""What a seed, and a run, have written when they are finished."""


def describe(
  method: str,
  spec: NetworkSpec,
  weights: Float[np.ndarray, "N P"],
  *,
  encoder: Any,
  chunk: Any,
  view: views.ViewOptions,
  losses: contrast.ContrastOptions,
  options: methods.PretrainOptions,
) -> dict[str, Any]:
  """Returns what `build` must know: plain values, kept with the parameters.

  Args:
    method: one of `methods.METHODS`.
    spec: of all networks; only its layout counts.
    weights: the training networks, and no others.
    encoder: the options of the encoder of that name, as `--encoder` has them.
    chunk: `chunking.ChunkOptions`, for SNE.
    view: how both views are drawn.
    losses: what is mixed; SNE has the contrast alone.
    options: the others.
  """
  if method not in methods.METHODS:
    raise ValueError(
      f"method is {method!r}; choose one of {', '.join(methods.METHODS)}"
    )
  spec, reference = spec.layout, None
  weights = np.asarray(weights, np.float32)
  if options.align:
    reference = weights[0].tolist()
    weights = matching.align_all(spec, weights[0], weights)
  description = {
    "method": method,
    "spec": spec.to_json(),
    "reference": reference,
    "measured": standardise.measure(spec, weights, options.standardise),
    "encoder_options": dataclasses.asdict(encoder),
    "chunk_options": dataclasses.asdict(chunking.resolved(chunk, [spec])),
    "view": dataclasses.asdict(view),
    "losses": dataclasses.asdict(losses),
    "options": dataclasses.asdict(options),
  }
  if method == "sne":
    networks = [(spec, row) for row in weights]
    description["encoder_measured"] = table.measure("sne", encoder, networks)
  return description


class Pretrained:
  """A trained method: networks to codes and back, in their own units.

  Attributes:
    description: of `describe`.
    method: of `build`.
    params: its parameters.
    spec: the layout of the networks that it reads.
    results: what is reported of the training, such as `best_step`.
  """

  def __init__(
    self,
    description: Mapping[str, Any],
    params: Any,
    results: Mapping[str, Any] | None = None,
  ):
    """Builds the method.

    Raises:
      ValueError: of `build`.
    """
    self.description = description
    self.method = methods.build(description)
    self.params = params
    self.results = dict(results or {})
    self.spec = NetworkSpec.from_json(description["spec"])

  @classmethod
  def load(
    cls, folder: str | os.PathLike, *, verify: bool = True
  ) -> "Pretrained":
    """Reads what a pretraining has left in the folder of a seed.

    Args:
      folder: of the seed.
      verify: whether to compare all files that are read with their digests;
        those of before have none.

    Raises:
      DamagedError: a file is not what was written.
      ValueError: there is nothing, or it has not finished.
    """
    path = pathlib.Path(folder) / FILE
    if not path.exists():
      raise ValueError(
        f"{folder} holds no {FILE}; name the folder of a seed of a run of"
        " experiments/run.py --pretrain"
      )
    if not (path.parent / FINISHED[0]).exists():
      raise ValueError(
        f"{folder} has not finished (it has no {FINISHED[0]}); start its run"
        " again, and it resumes where it stopped"
      )
    if verify:
      names = (FILE, FINISHED[0])
      remedy = train_state.UNVERIFIED
      workdirs.verify_seed(path.parent, names, remedy=remedy)
    try:
      params, _ = train_state.load_best(path.parent, verify=verify)
    except train_state.CheckpointError as error:
      raise ValueError(f"{folder}: {error}") from error
    description = records.read_json(path)
    try:
      results = records.read_json(path.parent / FINISHED[0])
      return cls(description, params, results)
    except (KeyError, TypeError) as error:
      raise ValueError(
        f"{path} describes nothing that this version of sne_jax can build"
        f" ({error!r}); train again"
      ) from error

  def prepare(
    self, weights: Float[np.ndarray, "N P"]
  ) -> Float[np.ndarray, "N P"]:
    """Returns networks as the method takes them: aligned and standardised."""
    return prepared(self.description, weights)

  def restore(
    self, weights: Float[np.ndarray, "N P"]
  ) -> Float[np.ndarray, "N P"]:
    """Returns networks in their own units; neurons keep their order."""
    restored = standardise.restore(
      self.spec, self.description["measured"], np.asarray(weights)
    )
    return np.asarray(restored, np.float32)

  def encode(
    self, weights: Float[np.ndarray, "N P"]
  ) -> Float[np.ndarray, "N D"]:
    """Returns the codes of networks in their own units."""
    return self.method.encode(self.params, self.prepare(weights))

  def encode_networks(
    self, networks: Sequence[tuple[NetworkSpec, Any]]
  ) -> Float[np.ndarray, "N D"]:
    """Returns the codes of networks with their specs, weights `[P]`.

    Raises:
      ValueError: one of them is of another architecture.
    """
    for spec, _ in networks:
      if spec.anatomy != self.spec.anatomy:
        raise ValueError(
          f"this encoder was trained on {self.spec.describe()}, and the network"
          f" is {spec.describe()}; use one that was trained on such networks"
        )
    return self.encode(np.stack([np.asarray(w) for _, w in networks]))


def load_all(
  workdir: str | os.PathLike, *, verify: bool = True
) -> list[Pretrained]:
  """Returns what a run of a pretraining has left: a model of each seed.

  Args:
    workdir: of the run, or of one of its seeds; no other folder gives any.
    verify: see `Pretrained.load`.

  Raises:
    DamagedError: a file is not what was written.
    ValueError: the seed, or one of the run, has not finished.
  """
  folder = pathlib.Path(workdir)
  if (folder / FILE).exists():
    return [Pretrained.load(folder, verify=verify)]
  folders = sorted(path.parent for path in folder.glob(f"seed*/{FILE}"))
  if folders and not (folder / FINISHED[1]).exists():
    raise ValueError(
      f"{folder} has not finished (it has no {FINISHED[1]}); start its run"
      " again, or name the folder of a seed that has"
    )
  if verify and folders:
    workdirs.verify_run(folder, remedy=train_state.UNVERIFIED)
  return [Pretrained.load(one, verify=verify) for one in folders]


def folder_of(init_from: str | os.PathLike, seed: int) -> pathlib.Path:
  """Returns the folder of the pretraining that a seed begins with."""
  folder = pathlib.Path(init_from)
  return folder if (folder / FILE).exists() else folder / f"seed{seed}"


def measured(
  init_from: str | os.PathLike,
  seeds: Sequence[int],
  description: Mapping[str, Any],
) -> dict[str, Any]:
  """Returns what a pretrained SNE has measured, to be kept.

  Args:
    init_from: folder of a pretraining, or of a run with one for each seed.
    seeds: that are going to begin with it.
    description: of the model that does, as in its `model.json`.

  Raises:
    ValueError: there is no such pretraining, or not of these options.
  """
  values: dict[str, Any] = {}
  for seed in seeds:
    folder = folder_of(init_from, seed)
    if not (folder / FILE).exists():
      raise ValueError(
        f"init_from: {folder} holds no {FILE}; pretrain sne (--pretrain=sne)"
        f" with {init_from} as the workdir and as many seeds first"
      )
    workdirs.verify_seed(folder, (FILE,))
    theirs = records.read_json(folder / FILE)
    _check_same(folder, theirs, description)
    if values and theirs["encoder_measured"] != values:
      raise ValueError(
        f"init_from: the seeds of {init_from} have measured different training"
        " networks; name the folder of one of them"
      )
    values = theirs["encoder_measured"]
  return values


def with_encoder(
  init_from: str | os.PathLike, seed: int, params: Any
) -> dict[str, Any]:
  """Returns parameters whose encoder is the pretrained one.

  Args:
    init_from: as for `measured`.
    seed: of the training.
    params: of the whole model, fresh.

  Raises:
    ValueError: the pretraining has not finished, or its parameters have other
      shapes.
  """
  folder = folder_of(init_from, seed)
  there = Pretrained.load(folder).params["params"]["encoder"]
  here = params["params"]["encoder"]
  shapes = lambda tree: jax.tree.map(np.shape, tree)
  if shapes(there) != shapes(here):
    raise ValueError(
      f"init_from: the encoder in {folder} has parameters of other shapes than"
      " this run's; give both runs the same encoder options"
    )
  return {**params, "params": {**params["params"], "encoder": there}}


def _check_same(folder, theirs, description) -> None:
  """Raises unless the encoder is the same, option by option."""
  if theirs["method"] != "sne":
    raise ValueError(
      f"init_from: {folder} holds a pretraining of {theirs['method']}, and the"
      " encoder is sne; name one of --pretrain=sne"
    )
  for group in ("encoder_options", "chunk_options"):
    for name, value in description[group].items():
      before = theirs[group].get(name)
      if before != value:
        raise ValueError(
          f"init_from: {name} is {before!r} in {folder}, and {value!r} here;"
          f" set {name} to {before}"
        )


def prepared(
  description: Mapping[str, Any], weights: Float[np.ndarray, "N P"]
) -> Float[np.ndarray, "N P"]:
  """Returns networks as methods take them: aligned, then standardised."""
  spec = NetworkSpec.from_json(description["spec"])
  weights = np.asarray(weights, np.float32)
  if description.get("reference") is not None:
    reference = np.asarray(description["reference"], np.float32)
    weights = matching.align_all(spec, reference, weights)
  standard = standardise.standardise(spec, description["measured"], weights)
  return np.asarray(standard, np.float32)
