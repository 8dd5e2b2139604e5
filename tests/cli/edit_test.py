"""`sne-jax edit`: files in, files out, and what is refused."""

import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy
from absl import flags

import sne_jax
from sne_jax.cli import config
from sne_jax.cli.commands import edit
from sne_jax.encoders.functionals import nfn
from sne_jax.learning.editing import program
from sne_jax.learning.per_weight import program as per_weight
from sne_jax.networks import chunking, families

SPEC = families.inr((2, 5, 4, 1), output_offset=0.5)
RELU = families.mlp((2, 5, 1), "relu")


@pytest.fixture(scope="module")
def editor(tmp_path_factory):
  """An editor that was not trained, and its folder."""
  folder = tmp_path_factory.mktemp("editor")
  description = per_weight.describe(
    SPEC,
    np.stack([weights_of(SPEC, seed) for seed in (1, 2)]),
    encoder="nfn_hnp",
    options=nfn.NFNOptions(channels=2, layers=1),
    chunks=chunking.ChunkOptions(),
    edit="dilate",
    scale=0.1,
  )
  params = jax.jit(program.Program(description).init)(0)
  made = sne_jax.Editor(description, params)
  made.save(folder)
  return made, folder


def weights_of(spec, seed=0):
  return families.random_weights(spec, np.random.default_rng(seed))


def command(folder, *arguments):
  values = flags.FlagValues()
  config.define_flags(*edit.CLASSES, flag_values=values)
  given = ["edit", f"--workdir={folder}", *map(str, arguments)]
  return edit.main(config.parse(given, values, positional=True), values)


def write(path, spec, weights):
  """Writes a network with the names that a `Sequential` gives."""
  path.parent.mkdir(parents=True, exist_ok=True)
  arrays = spec.unflatten(np.asarray(weights, np.float32))
  named = {renamed(name): np.array(x) for name, x in arrays.items()}
  safetensors.numpy.save_file(named, path)
  return path


def renamed(name):
  return name.replace("layer", "net.")


def test_files_are_edited_and_never_written_over(editor, tmp_path, capsys):
  made, folder = editor
  weights, out = weights_of(SPEC), tmp_path / "out"
  path = write(tmp_path / "in" / "a.safetensors", SPEC, weights)
  bad = write(tmp_path / "in" / "b.safetensors", RELU, weights_of(RELU))
  before, picture = path.read_bytes(), tmp_path / "p.png"
  words = (f"--out={out}", f"--picture={picture}")
  assert command(folder, *words, path, bad) == 1
  said = capsys.readouterr()
  assert "1 edited networks" in said.out
  assert "this editor edits inr" in said.err and "b.safetensors" in said.err
  assert [p.name for p in out.iterdir()] == ["a.safetensors"]
  edited = safetensors.numpy.load_file(out / "a.safetensors")
  ((_, expected),) = made.edit((SPEC, weights))
  assert np.abs(expected - weights).max() > 1e-3
  for name, tensor in SPEC.unflatten(expected).items():
    np.testing.assert_array_equal(edited[renamed(name)], tensor)
  assert picture.stat().st_size > 1000
  with pytest.raises(ValueError, match="is one of the files to read"):
    command(folder, f"--out={path.parent}", path)
  assert path.read_bytes() == before
  again = write(tmp_path / "a.safetensors", SPEC, weights)
  with pytest.raises(ValueError, match="would both be written to"):
    command(folder, *words, path, again)


def test_what_cannot_be_is_said_before_anything_is_written(editor, tmp_path):
  path = write(tmp_path / "a.safetensors", SPEC, weights_of(SPEC))
  with pytest.raises(ValueError, match=r"holds no editor\.json"):
    command(tmp_path, f"--out={tmp_path / 'out'}", path)
  with pytest.raises(ValueError, match=r"picture is 'p\.jpg'; must end with"):
    command(editor[1], "--picture=p.jpg", path)
  with pytest.raises(ValueError, match="workdir is empty"):
    command("", path)
  assert not list(pathlib.Path(tmp_path / "out").glob("*"))
