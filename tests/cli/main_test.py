"""The command `sne-jax`: which program it runs, and what it says of others."""

import pathlib
import subprocess
import sys
import tomllib
import types

import pytest

import sne_jax
from sne_jax.cli import main

ROOT = pathlib.Path(__file__).parents[2]


def ended(capsys, *arguments):
  with pytest.raises(SystemExit) as end:
    main.main(["sne-jax", *arguments])
  said = capsys.readouterr()
  return end.value.code, said.out, said.err


def test_help_is_short_and_names_every_command(capsys):
  code, out, _ = ended(capsys, "--help")
  assert code == 0 and len(out.splitlines()) < 16
  for name in main.COMMANDS:
    assert f"\n  {name} " in out
  code, out, err = ended(capsys)
  assert code == 2 and not out and "usage: sne-jax" in err


def test_version(capsys):
  assert ended(capsys, "--version")[1] == f"sne-jax {sne_jax.__version__}\n"


@pytest.mark.parametrize(
  ("word", "near"), [("trian", "train"), ("predcit", "predict"), ("xyz", "")]
)
def test_an_unknown_command_suggests_the_nearest(word, near, capsys):
  code, out, err = ended(capsys, word)
  assert code == 2 and not out and err.count("\n") == 1
  assert f"there is no command '{word}'" in err
  assert (f"did you mean {near}?" in err) == bool(near)


def test_the_script_of_the_wheel_is_this():
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  assert project["scripts"] == {"sne-jax": "sne_jax.cli.main:main"}


@pytest.mark.parametrize(
  ("program", "words"),
  [
    (("-m", "sne_jax.cli.main", "train"), "\n  sne-jax train --networks="),
    (("experiments/predict.py",), "\n  python experiments/predict.py --work"),
  ],
)
def test_help_of_a_command_names_its_program(program, words):
  done = subprocess.run(
    [sys.executable, *program, "--help"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert words in done.stdout and "--workdir=" in done.stdout


def test_what_comes_before_a_command_is_done_first(monkeypatch):
  """Such as dividing a CPU, which must come before JAX has devices."""
  done = []
  module = types.SimpleNamespace(
    CLASSES=(),
    before=lambda values: done.append("before"),
    main=lambda argv: done.append("main"),
  )
  monkeypatch.setitem(sys.modules, "sne_jax.cli.commands.fake", module)
  run = lambda begin, **_: sys.exit(begin([""]))
  monkeypatch.setattr(main.config, "run_main", run)
  with pytest.raises(SystemExit):
    main.start("fake", "sne-jax fake", ())
  assert done == ["before", "main"]
