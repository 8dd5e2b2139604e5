"""Edits networks that are images, from their files.

  sne-jax edit --workdir=runs/images/edit_quick --out=edited my_networks/

`--workdir` is a run of experiments/run.py --edit, or what `Editor.save` wrote;
files and folders are as in `sne-jax predict`, of the architecture that the
editor was trained on. `--out` gets a safetensors file for each, with the names
of its tensors, axes in the order of PyTorch; files that are read are never
written over. `--picture` shows the networks before and after.
"""

import dataclasses
import os
import pathlib

import numpy as np
import safetensors.numpy
from absl import flags

from sne_jax import atomic
from sne_jax import editor as editor_lib
from sne_jax.cli import config, given_files
from sne_jax.cli.reports import edited_images
from sne_jax.networks.checked import Checked, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditOptions(Checked):
  """Which editor, and where edited networks go.

  Attributes:
    workdir: folder of a run of --edit, of one of its seeds, or of a saved
      editor. Of several seeds the one of the least validation loss edits.
    out: folder for the edited networks; created where missing.
    picture: file for a picture of the first networks, .png; empty: none.
    size: height and width of the images in it.
    verify: compare the files of the editor with their digests.
  """

  workdir: str = ""
  out: str = "edited"
  picture: str = ""
  size: int = option(28, least=1)
  verify: bool = True

  def __post_init__(self):
    super().__post_init__()
    for name in ("workdir", "out"):
      if not getattr(self, name):
        raise ValueError(f"{name} is empty; name a folder")
    if self.picture and not self.picture.endswith(".png"):
      raise ValueError(f"picture is {self.picture!r}; must end with .png")


CLASSES = (EditOptions, given_files.FileOptions)


def main(
  argv: list[str], flag_values: flags.FlagValues = flags.FLAGS
) -> int | None:
  """Reads the flags and the files, and writes the edited networks.

  Returns:
    The exit code: 1 if a file could not be read or edited.

  Raises:
    ValueError: no editor, no files, or two of one name.
  """
  options = config.from_flags(EditOptions, flag_values=flag_values)
  how = config.from_flags(given_files.FileOptions, flag_values=flag_values)
  paths = given_files.paths_of(argv[1:])
  targets = targets_of(paths, options.out)
  given_files.check_outputs([*targets.values(), options.picture], paths)
  editor = editor_lib.Editor.load(options.workdir, verify=options.verify)
  anatomy = editor.spec.anatomy
  shown: list[np.ndarray] = []
  done: list[str] = []

  def handle(networks, weights):
    pairs = [(n.spec, w) for n, w in zip(networks, weights, strict=True)]
    edited = editor.edit(pairs)
    for network, (spec, row) in zip(networks, edited, strict=True):
      tensors = {
        n: np.ascontiguousarray(t) for n, t in spec.unflatten(row).items()
      }
      content = safetensors.numpy.save(tensors, {"edit": editor.edit_name})
      atomic.write_atomically(pathlib.Path(targets[network.path]), content)
      done.append(network.path)
    if options.picture and len(shown) < edited_images.MOST:
      both = [editor.rendered(p, options.size) for p in (pairs, edited)]
      shown.extend(np.stack(both, axis=1))

  failures = given_files.each(
    *(paths, how, handle, "editing networks"),
    familiar=lambda spec: spec.anatomy == anatomy,
  )
  if done:
    print(f"{len(done)} edited networks in {options.out} ({editor.edit_name})")  # noqa: T201
  if shown:
    before, after = np.stack(shown[: edited_images.MOST], axis=1)
    edited_images.draw(
      options.picture, {"before": before, "after": after}, "networks"
    )
  return given_files.report_failures(failures)


def targets_of(paths: list[str], folder: str) -> dict[str, str]:
  """Returns where each network goes, by the path of its file.

  Raises:
    ValueError: two would go to one place.
  """
  targets = {
    path: os.path.join(folder, pathlib.Path(path).stem + ".safetensors")
    for path in paths
  }
  by_target: dict[str, str] = {}
  for path, target in targets.items():
    if target in by_target:
      raise ValueError(
        f"{by_target[target]} and {path} would both be written to {target};"
        " edit them one after the other, with another --out"
      )
    by_target[target] = path
  return targets
