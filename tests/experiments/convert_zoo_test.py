"""The entry point that converts published zoos: flags, one run, its faults."""

import json

import numpy as np
import pytest
from absl import flags

from sne_jax.cli import config
from sne_jax.cli.commands import convert as convert_zoo
from sne_jax.zoo.public import table
from sne_jax.zoo.store import store
from tests.zoo.public import torch_files


def parsed(*arguments):
  values = flags.FlagValues()
  config.define_flags(*convert_zoo.CLASSES, flag_values=values)
  config.parse(["convert_zoo", *arguments], values)
  return values


def write_fashion(folder):
  paths = {"train": [], "val": [], "test": []}
  for part, count in (("train", 4), ("test", 2)):
    for k in range(count):
      tensors = torch_files.state_dict(
        seq__0__weight=np.full((2, 2), k, np.float32),
        seq__0__bias=np.zeros(2, np.float32),
        seq__1__weight=np.ones((1, 2), np.float32),
        seq__1__bias=np.full(1, np.nan if k == 3 else 0, np.float32),
      )
      tensors["label"] = k
      torch_files.save(folder / part / f"model_{k}.pth", tensors)
      where = "val" if part == "train" and k == 0 else part
      paths[where].append(f"{part}/model_{k}.pth")
  (folder / "splits.json").write_text(json.dumps(paths))


def test_a_zoo_is_converted_told_of_and_opened_again(tmp_path, capsys):
  write_fashion(tmp_path / "fmnist_inrs")
  values = parsed(
    "--zoo=inrs",
    f"--source={tmp_path / 'fmnist_inrs'}",
    f"--out={tmp_path / 'zoo'}",
  )
  convert_zoo.main([], values)
  said = capsys.readouterr().out
  assert "5 members" in said and "licence: unknown" in said
  assert "split published: 2 train, 1 val, 2 test" in said
  assert "left out: 1, as a weight is NaN or infinite" in said
  assert len(store.Zoo.open(tmp_path / "zoo")) == 5
  convert_zoo.main([], values)
  assert capsys.readouterr().out == said


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    ((), "source is empty"),
    (("--source=x",), "out is empty"),
    (("--source=/none", "--out=none/zoo"), "no such folder"),
    (("--source=x", "--out=y", "--seed=-1"), "seed is -1; must be at least 0"),
    (("--source=x", "--out=y", "--epochs=a"), "epochs must be numbers"),
  ],
)
def test_bad_input_is_one_clear_line(arguments, said, capsys):
  with pytest.raises(SystemExit) as left:
    config.guarded(lambda argv: convert_zoo.main(argv, parsed(*arguments)), [])
  assert left.value.code == 2
  error = capsys.readouterr().err
  assert error.startswith("error: ") and said in error
  assert error.count("\n") == 1


def test_an_unknown_zoo_is_refused():
  values = parsed("--zoo=mnist")
  with pytest.raises(ValueError, match="small_cnn"):
    config.from_flags(convert_zoo.CLASSES[0], flag_values=values)


def test_every_zoo_is_explained_in_the_help():
  for name in table.CONVERT:
    assert f"--zoo={name} " in convert_zoo.__doc__
