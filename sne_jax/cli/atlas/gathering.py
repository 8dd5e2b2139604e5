"""From a run, or a zoo alone, to what an atlas shows.

Dimensions: `N` networks, `T` targets, `K` classes, `D` width of a code.
"""

import dataclasses
import functools
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sne_jax.cli import given_files
from sne_jax.cli.atlas import content, predicting
from sne_jax.cli.reports import probe_figure
from sne_jax.learning.data.dataset import Networks
from sne_jax.learning.evaluation import headline, judgement, references
from sne_jax.learning.selfsup import pretraining
from sne_jax.learning.training import records
from sne_jax.networks.spec import NetworkSpec
from sne_jax.predictor import Predictor
from sne_jax.zoo.store import reading, store

RESULTS = "results.json"
ZOOS = "zoos"
"""In the results of a run: by name of each zoo, `path`, relative to the run."""

BATCH = 256
"""Networks that are encoded at once."""

STATISTICS = "statistics of tensors"
CODES = "codes of the encoder"


@dataclasses.dataclass(frozen=True, eq=False)
class Members:
  """Networks of one or several zoos, with their properties.

  Attributes:
    specs: the architectures.
    numbers: `[N]`, the spec of each.
    vectors: N vectors of weights, mapped.
    names: of the networks.
    columns: their properties.
    left_out: how many others there are, which were not drawn.
  """

  specs: tuple[NetworkSpec, ...]
  numbers: np.ndarray
  vectors: Sequence[np.ndarray]
  names: tuple[str, ...]
  columns: dict[str, content.Column]
  left_out: int = 0


def is_zoo(folder: str | os.PathLike) -> bool:
  """Whether a folder is a zoo."""
  return os.path.exists(os.path.join(folder, reading.INDEX_FILE))


def zoos_of(workdir: pathlib.Path) -> list[str]:
  """Returns the folders of the zoos that a run was about.

  Raises:
    ValueError: the run does not say, or one is not there.
  """
  path = workdir / RESULTS
  named = records.read_json(path).get(ZOOS) if path.exists() else None
  folders = [
    os.path.normpath(workdir / zoo["path"])
    for zoo in (named or {}).values()
    if "path" in zoo
  ]
  if not folders:
    raise ValueError(
      f"{workdir} does not say which zoo it was about; name it with --zoo"
    )
  for folder in folders:
    if not is_zoo(folder):
      raise ValueError(
        f"{workdir} was about the zoo {folder}, which is not there; say with"
        " --zoo where it is now"
      )
  return folders


def where(
  workdir: str | os.PathLike, zoos: Mapping[str, str]
) -> dict[str, dict[str, str]]:
  """Returns what results say of their zoos, for `zoos_of`.

  Args:
    workdir: of the run.
    zoos: folders by name.
  """
  return {
    name: {"path": os.path.relpath(path, workdir)}
    for name, path in zoos.items()
  }


def split_of(workdir: pathlib.Path) -> str:
  """Returns the name of the split that a run was about."""
  path = workdir / RESULTS
  if not path.exists():
    return "default"
  config = records.read_json(path).get("config") or {}
  return (config.get("RunOptions") or {}).get("split", "default")


def members_of(
  folders: Sequence[str],
  *,
  split: str = "default",
  most: int = 0,
  seed: int = 0,
) -> Members:
  """Returns the valid members of zoos.

  Args:
    folders: of the zoos.
    split: whose parts are a column, where all zoos have it.
    most: members, at most; of more, so many are drawn. 0: all.
    seed: of that draw.

  Raises:
    ZooError: a zoo is damaged.
    ValueError: there are no members.
  """
  opened = [store.Zoo.open(folder) for folder in folders]
  places = [(z, row) for z, zoo in enumerate(opened) for row in zoo.select()]
  if not places:
    raise ValueError(f"{', '.join(folders)} has no valid members to show")
  chosen = np.arange(len(places))
  if most and len(places) > most:
    drawn = np.random.default_rng(seed).permutation(len(places))[:most]
    chosen = np.sort(drawn)
  by_zoo = [
    np.array([r for z, r in (places[n] for n in chosen) if z == number], int)
    for number in range(len(opened))
  ]
  specs = tuple(dict.fromkeys(spec for zoo in opened for spec in zoo.specs))
  number_of = {spec: number for number, spec in enumerate(specs)}
  numbers, vectors, names = [], [], []
  labels = [os.path.basename(os.path.abspath(folder)) for folder in folders]
  for zoo, rows, label in zip(opened, by_zoo, labels, strict=True):
    own = np.array([number_of[spec] for spec in zoo.specs], int)
    numbers.append(own[np.asarray(zoo.members["spec"])[rows]])
    vectors += zoo.vectors(rows)
    lead = f"{label}/" if len(opened) > 1 else ""
    names += [lead + str(name) for name in zoo.members["id"][rows]]
  columns = _properties(opened, by_zoo)
  if len(opened) > 1:
    zoo = np.repeat(labels, [len(rows) for rows in by_zoo])
    columns["zoo"] = content.Column(zoo, about="where it comes from")
  if (parts := _parts(opened, by_zoo, split)) is not None:
    columns[content.PART] = content.Column(parts, about=f"of split {split!r}")
  return Members(
    *(specs, np.concatenate(numbers), vectors, tuple(names), columns),
    left_out=len(places) - len(chosen),
  )


def of_zoo(title: str, members: Members) -> content.Atlas:
  """Returns the atlas of a zoo: codes are statistics of tensors."""
  networks = Networks(
    *(members.specs, members.numbers, members.vectors),
    targets=np.zeros((len(members.names), 0)),
  )
  used = {members.specs[n].layout for n in set(members.numbers.tolist())}
  codes = references.features(networks, pooled=len(used) > 1)
  said = "Codes are statistics of the weights of every tensor; nothing was"
  said += " learned of these networks."
  return _atlas(title, codes, STATISTICS, members, {}, (said,))


def of_run(
  title: str,
  workdir: pathlib.Path,
  members: Members,
  *,
  verify: bool = True,
  progress: Callable[[int, int], Any] = lambda done, total: None,
) -> content.Atlas:
  """Returns the atlas of a run, which says of every network what it predicts.

  Of a run that was trained without labels there are codes alone.

  Args:
    title: of the page.
    workdir: of the run.
    members: the networks to show.
    verify: see `Predictor.load`.
    progress: is called with networks that are encoded, and all.

  Raises:
    ValueError: there is no trained model, or it cannot read these networks.
  """
  pairs = [
    (members.specs[n], vector)
    for n, vector in zip(members.numbers, members.vectors, strict=True)
  ]
  said = tuple(filter(None, [_headline(workdir)]))
  pretrained = pretraining.load_all(str(workdir), verify=verify)
  if pretrained:
    codes = np.concatenate(
      [
        np.concatenate([one.encode_networks(b) for one in pretrained], axis=-1)
        for b in _batches(pairs, progress)
      ]
    )
    return _atlas(title, codes, CODES, members, {}, said)
  predictor = Predictor.load(workdir, verify=verify)
  judge = functools.partial(
    predictor.judge_and_encode, coverage=predicting.COVERAGE
  )
  found = list(map(judge, _batches(pairs, progress)))
  judged = judgement.Judgement(
    *(
      np.concatenate(values)
      for values in zip(*(one for one, _ in found), strict=True)
    )
  )
  codes = np.concatenate([codes for _, codes in found])
  truth = {n: c.values for n, c in members.columns.items()}
  columns = predicting.predicted(
    predictor.targets, predictor.classes, judged, truth
  )
  return dataclasses.replace(
    _atlas(title, codes, CODES, members, columns, said),
    probes=probes_of(workdir),
  )


def probes_of(workdir: pathlib.Path) -> dict[str, bytes]:
  """Returns pictures of the inputs that a run has learned, by caption."""
  for seed in sorted(workdir.glob("seed*")):
    with tempfile.TemporaryDirectory() as folder:
      drawn = probe_figure.draw(folder, seed)
      if drawn:
        return {caption: path.read_bytes() for caption, path in drawn.items()}
  return {}


def title_of(folder: pathlib.Path) -> str:
  """Returns what a run, or else its folder, is called."""
  title = folder.resolve().name
  if (folder / RESULTS).exists():
    title = records.read_json(folder / RESULTS).get("title") or title
  return str(title)


def _headline(workdir: pathlib.Path) -> str:
  """Returns how well a run went, in one sentence; "" where it is not said."""
  if not (workdir / RESULTS).exists():
    return ""
  results = records.read_json(workdir / RESULTS)
  known = results.get("headline")
  if known is None and "seeds" in results and "target" in results:
    known = headline.sentence(results)
  return str(known or "")


def _atlas(title, codes, code_name, members, columns, said) -> content.Atlas:
  """Puts columns in order: what was predicted, then numbers, then the rest."""
  sizes = np.array([spec.num_weights for spec in members.specs])
  is_measured = lambda item: item[1].values.dtype.kind == "f"
  rest = dict(sorted(members.columns.items(), key=is_measured, reverse=True))
  rest.setdefault(
    content.ARCHITECTURE,
    content.Column(
      np.array([given_files.architecture(s) for s in members.specs])[
        members.numbers
      ]
    ),
  )
  rest[content.PARAMETERS] = content.Column(sizes[members.numbers])
  if members.left_out:
    total = len(members.names) + members.left_out
    said += (f"A draw of {len(members.names):,} of {total:,} networks.",)
  return content.Atlas(
    *(title, codes, code_name, members.names, members.specs, members.numbers),
    *(members.vectors, columns | rest, said),
  )


def _batches(pairs, progress):
  for start in range(0, len(pairs), BATCH):
    yield pairs[start : start + BATCH]
    progress(min(start + BATCH, len(pairs)), len(pairs))


def _properties(opened, by_zoo) -> dict[str, content.Column]:
  """Returns the properties of all zoos; unknown where a zoo lacks one."""
  names = dict.fromkeys(name for zoo in opened for name in zoo.properties)
  columns = {}
  for name in names:
    described = next(z.properties[name] for z in opened if name in z.properties)
    values = [
      zoo.property(name)[rows] if name in zoo.properties else None
      for zoo, rows in zip(opened, by_zoo, strict=True)
    ]
    is_text = any(v is not None and v.dtype.kind not in "fiub" for v in values)
    filled = [
      np.full(len(rows), "" if is_text else np.nan)
      if v is None
      else (v.astype(str) if is_text else v)
      for v, rows in zip(values, by_zoo, strict=True)
    ]
    columns[name] = content.Column(
      np.concatenate(filled), about=described.get("description", "")
    )
  return columns


def _parts(opened, by_zoo, split: str) -> np.ndarray | None:
  """Returns the part of each network, "" where it is in none."""
  if not all(split in zoo.splits for zoo in opened):
    return None
  found = []
  for zoo, rows in zip(opened, by_zoo, strict=True):
    part = np.full(len(zoo), "", "U5")
    for name, members in zoo.split(split).items():
      part[members] = name
    found.append(part[rows])
  return np.concatenate(found)
