"""What is starved and killed: every kind of work, at its smallest.

A stage is a command that makes folders in `work`, from what `given` holds.
"""

import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

RUN = "experiments/run.py"
COMMAND = "sne_jax/cli/main.py"
FAST = (
  *("--encoder=stat_pool", "--encoder_option=stat_width=8", "--devices=1"),
  *("--head_width=4", "--head_dropout=0.2", "--ema_decay=0.9"),
  *("--augment_permutation", "--batch_size=4", "--num_steps=12"),
  *("--log_every=1", "--eval_every=3", "--save_every=4", "--noreferences"),
)
"""A training that compiles fast, and draws at every step."""

SIZES = ("--train_members=14", "--validation_members=5", "--test_members=5")
SINE = (
  *("--zoo_num_networks=24", "--zoo_hidden=4", "--zoo_points=50"),
  *("--zoo_max_steps=20", "--zoo_batch_members=8"),
)
IMAGES = (
  *("--dataset=digits", "--train_images=90", "--test_images=40"),
  *("--num_networks=10", "--architecture=mlp", "--activation=relu"),
  *("--optimizer=adam", "--initializer=he_normal", "--learning_rate=0.01"),
  *("--weight_decay=0", "--dropout=0", "--train_fraction=1"),
  *("--batch_size=30", "--snapshots=3,6", "--cpu_devices=1"),
  *("--validation_share=0.2", "--test_share=0.2", "--batch_members=4"),
)
SANE = (
  *("--pretrain=sane", "--sane_width=8", "--sane_hidden=16"),
  *("--sane_blocks=1", "--sane_heads=2", "--pretrain_window=6"),
  *("--pretrain_projection=6", "--batch_size=4", "--num_steps=8"),
  *("--log_every=1", "--eval_every=2", "--save_every=3", "--devices=1"),
)
SAMPLE = (
  *("--snapshots=last", "--sample_networks=2", "--sample_candidates=4"),
  *("--sample_epochs=2", "--sample_bandwidths=0.02", "--sample_anchors=0.5"),
  *("--sample_validation_images=50", "--sample_methods=kde_coupled,subsample"),
)


class Stage(NamedTuple):
  """One kind of work.

  Attributes:
    command: from `given`, and `work`, its command line.
    copied: names of what it changes, and is copied from `given` to `work`.
    cached: whether it takes the flag of a folder for compiled programs.
  """

  command: Callable[[pathlib.Path, pathlib.Path], tuple[str, ...]]
  copied: tuple[str, ...] = ()
  cached: bool = True


def _own(given, work):
  return (
    *(f"--networks={given}/own/networks", f"--table={given}/own/labels.csv"),
    *("--targets=size", f"--workdir={work}/run"),
  )


STAGES = {
  "zoo": Stage(
    lambda given, work: (
      "experiments/make_zoo.py",
      f"--zoo={work}/zoo",
      *IMAGES,
    )
  ),
  "training": Stage(
    lambda given, work: (
      *(RUN, f"--zoo=sine:{work}/zoo", f"--workdir={work}/run", "--seeds=2"),
      *(*SIZES, *SINE, *FAST),
    )
  ),
  "contest": Stage(
    lambda given, work: (
      *(RUN, f"--zoo={work}/one", f"--workdir={work}/run", *SIZES, *FAST),
      *("--rates=1e-2,1e-3", "--encoders=stat_pool,mlp", "--seeds=2"),
    ),
    ("one",),
  ),
  "matrix": Stage(
    lambda given, work: (
      *(RUN, f"--zoo={work}/one,{work}/two", f"--workdir={work}/run"),
      *(*SIZES, *FAST, "--matrix=each", "--encoders=stat_pool", "--seeds=1"),
    ),
    ("one", "two"),
  ),
  "pretraining": Stage(
    lambda given, work: (
      *(RUN, f"--zoo={work}/one", f"--workdir={work}/run", *SIZES, *SANE),
      *("--noreferences", "--seeds=1"),
    ),
    ("one",),
  ),
  "sampling": Stage(
    lambda given, work: (
      *(RUN, f"--zoo={given}/images.flags", f"--workdir={work}/run"),
      *(f"--sample_from={given}/sane", "--seeds=1", "--devices=1", *SAMPLE),
    )
  ),
  "conversion": Stage(
    lambda given, work: (
      *("experiments/convert_zoo.py", "--zoo=inrs"),
      *(f"--source={given}/fmnist_inrs", f"--out={work}/zoo"),
    ),
    cached=False,
  ),
  "own": Stage(
    lambda given, work: (
      *(COMMAND, "train", *_own(given, work), *FAST[:3], *FAST[6:]),
    ),
    cached=False,
  ),
  "sweep": Stage(
    lambda given, work: (
      *("experiments/sweep.py", f"--zoo={work}/one", f"--workdir={work}/run"),
      *(*SIZES, *FAST, "--seeds=1", "--address=none", "--retries=0"),
      "--grid=learning_rate=1e-2,1e-3",
    ),
    ("one",),
  ),
  "predict": Stage(
    lambda given, work: (
      *(COMMAND, "predict", f"--workdir={given}/run"),
      *(f"--csv={work}/table.csv", f"--json={work}/table.json"),
      f"{given}/own/networks",
    ),
    cached=False,
  ),
  "encode": Stage(
    lambda given, work: (
      *(COMMAND, "encode", f"--workdir={given}/run"),
      *(f"--out={work}/codes.npz", f"{given}/own/networks"),
    ),
    cached=False,
  ),
}


def command(name: str, given: pathlib.Path, work: pathlib.Path) -> list[str]:
  """Returns the command line of a stage."""
  stage = STAGES[name]
  words = [*stage.command(given, work)]
  if stage.cached:
    words.append(f"--compilation_cache={given}/cache")
  return words


def prepare(name: str, given: pathlib.Path, work: pathlib.Path) -> None:
  """Copies what a stage changes into an empty folder of its own."""
  work.mkdir(parents=True, exist_ok=True)
  for folder in STAGES[name].copied:
    shutil.copytree(given / folder, work / folder, dirs_exist_ok=True)


def made(given: pathlib.Path, start: Callable) -> None:
  """Makes what stages begin with: zoos, files, and runs that are finished.

  Args:
    given: a new folder.
    start: runs a command line, or calls a function, in another process.
  """
  if (given / "own_zoo").exists():  # Made last, and kept.
    return
  start(lambda: _write_files(given))
  (given / "images.flags").write_text(
    "\n".join([f"--zoo={given}/images", *IMAGES]) + "\n"
  )
  cache = f"--compilation_cache={given}/cache"
  for words in (
    ("experiments/make_zoo.py", f"--flagfile={given}/images.flags", cache),
    (
      *(RUN, f"--zoo={given}/images", f"--workdir={given}/sane", *SANE, cache),
      *("--noreferences", "--seeds=1", "--snapshots=last"),
      "--targets=test_accuracy",
    ),
    (
      *(COMMAND, "train", *_own(given, given), *FAST[:3], *FAST[6:]),
      f"--zoo_out={given}/own_zoo",
    ),
  ):
    start(words)


def _write_files(given: pathlib.Path) -> None:
  """Writes two zoos of random networks, a source, and a folder of files."""
  from sne_jax.networks import families
  from sne_jax.zoo.store import writing
  from tests.learning.data import own_networks
  from tests.zoo.public import torch_files

  spec = families.inr((1, 4, 4, 1))
  for seed, name in enumerate(("one", "two")):
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.1, 1, (24, 1))
    weights = (rng.normal(size=(24, spec.num_weights)) * scale).astype("f4")
    of = writing.Property(10 * np.abs(weights).mean(axis=1), "of the weights")
    writing.write_zoo(
      given / name,
      specs=[spec],
      weights=[weights],
      ids=[f"{name}{n:02d}" for n in range(24)],
      properties={"frequency": of},
      provenance={"generator": "a test", "seed": seed},
    )
  own_networks.write(given / "own", 24)
  paths: dict[str, list[str]] = {"train": [], "val": [], "test": []}
  rng = np.random.default_rng(2)
  for k in range(24):
    part = "test" if k > 15 else "train"
    arrays = {
      f"seq__{n}__{name}": rng.normal(size=shape).astype("f4")
      for n, (rows, columns) in enumerate(((6, 2), (6, 6), (1, 6)))
      for name, shape in (("weight", (rows, columns)), ("bias", (rows,)))
    }
    tensors = torch_files.state_dict(**arrays)
    tensors["label"] = k
    torch_files.save(given / "fmnist_inrs" / part / f"model_{k}.pth", tensors)
    where = "val" if part == "train" and k % 4 == 0 else part
    paths[where].append(f"{part}/model_{k}.pth")
  listing = given / "fmnist_inrs" / "splits.json"
  listing.write_text(json.dumps(paths))
  os.makedirs(given / "cache", exist_ok=True)
