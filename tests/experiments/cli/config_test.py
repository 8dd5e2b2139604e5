"""Flags from dataclasses, and what a user sees when something is wrong."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest
from absl import flags

from sne_jax.cli import config, environment
from sne_jax.networks import checked

ROOT = pathlib.Path(__file__).parents[3]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
  """Options of a model.

  Attributes:
    width: width of the code: at least 1,
      a multiple of `heads`.
    bias: whether there is one.
    rate: learning rate, per step.
    rule: how chunks are cut:
      by rows (row) or flat.
    name: its name.
    hidden: of Python alone.
    words: of which there may be several.

  References:
    none: not an option.
  """

  width: int = 64
  bias: bool = True
  rate: float = 1e-3
  rule: str = checked.option("row", choices=("row", "flat"))
  name: str = ""
  hidden: int = checked.option(1, flag=False)
  words: tuple[str, ...] = ()

  def __post_init__(self):
    if self.width < 1:
      raise ValueError(f"width must be at least 1, got {self.width}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clashing:
  """Others.

  Attributes:
    width: another one.
  """

  width: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unexplained:
  """Says nothing of its field."""

  value: int = 1


def _parse(*arguments, classes=(ModelOptions,), **options):
  values = flags.FlagValues()
  config.define_flags(*classes, flag_values=values, **options)
  values(["program", *arguments])
  return values


def test_defaults_are_those_of_the_class():
  values = _parse()
  assert config.from_flags(ModelOptions, flag_values=values) == ModelOptions()


def test_flags_change_fields():
  values = _parse("--width=8", "--nobias", "--rate=2", "--rule=flat")
  built = config.from_flags(ModelOptions, flag_values=values)
  assert built == ModelOptions(width=8, bias=False, rate=2.0, rule="flat")
  assert isinstance(built.rate, float)


@pytest.mark.parametrize(
  ("name", "text"),
  [
    ("width", "width of the code: at least 1, a multiple of `heads`."),
    ("bias", "whether there is one."),
    ("rate", "learning rate, per step."),
    ("rule", "how chunks are cut: by rows (row) or flat."),
  ],
)
def test_help_teaches(name, text):
  assert _parse()[name].help == text


def test_fields_of_python_alone_are_no_flags():
  assert "hidden" not in _parse()


def test_every_option_is_explained_and_unique():
  with pytest.raises(ValueError, match="Unexplained.value has no help"):
    _parse(classes=(Unexplained,))
  with pytest.raises(
    ValueError, match="--width of Clashing.width is already defined"
  ):
    _parse(classes=(ModelOptions, Clashing))


def test_prefix_parts_classes():
  values = _parse(
    "--other_width=7",
    classes=(ModelOptions, Clashing),
    prefixes={Clashing: "other_"},
  )
  other = config.from_flags(Clashing, prefix="other_", flag_values=values)
  assert other.width == 7
  assert config.from_flags(ModelOptions, flag_values=values).width == 64


def test_field_without_default_is_required():
  made = dataclasses.make_dataclass("Needs", [("zoo", str)])
  made.__doc__ = "Needs.\n\nAttributes:\n  zoo: a folder."
  with pytest.raises(flags.Error, match="--zoo"):
    _parse(classes=(made,))
  values = _parse("--zoo=x", classes=(made,))
  assert config.from_flags(made, flag_values=values).zoo == "x"


def test_flagfile_repeats_the_run(tmp_path):
  options = ModelOptions(
    width=3, bias=False, rate=1 / 3, name="a b # c", words=("x=1", "y=2")
  )
  path = tmp_path / "flags.txt"
  path.write_text(config.to_flagfile(options))
  values = _parse(f"--flagfile={path}")
  assert config.from_flags(ModelOptions, flag_values=values) == options
  overridden = _parse(f"--flagfile={path}", "--width=4")
  assert overridden["width"].value == 4


def test_flagfile_with_prefix(tmp_path):
  text = config.to_flagfile(Clashing(width=5), prefixes={Clashing: "o_"})
  assert text == "# Clashing\n--o_width=5\n"


@pytest.mark.parametrize("name", ["two\nlines", " blank"])
def test_flagfile_refuses_what_it_cannot_hold(name):
  with pytest.raises(ValueError, match="cannot stand in a flagfile"):
    config.to_flagfile(ModelOptions(name=name))


def test_resolved_is_json():
  table = json.loads(json.dumps(config.resolved(ModelOptions(), Clashing())))
  assert table["ModelOptions"]["rate"] == ModelOptions().rate
  assert table["Clashing"] == {"width": 1}
  with pytest.raises(ValueError, match="only once"):
    config.resolved(Clashing(), Clashing())


def test_environment_is_complete_and_never_fails(monkeypatch):
  found = environment.environment()
  assert json.loads(json.dumps(found)) == found
  assert found["versions"]["jax"]
  assert found["devices"]["count"] >= 1
  monkeypatch.setenv("PATH", "")  # no git
  assert environment.environment()["revision"] is None


PROGRAM = """
  '''A program.'''
  import errno, dataclasses
  from sne_jax.cli import config

  @dataclasses.dataclass(frozen=True, kw_only=True)
  class Options:
    '''Options.

    Attributes:
      width: how wide the code is.
      fault: what goes wrong.
    '''
    width: int = 1
    fault: str = ""

    def __post_init__(self):
      if self.width < 1:
        raise ValueError("width must be at least 1,\\n got 0")

  def main(argv):
    options = config.from_flags(Options)
    if options.fault == "disk":
      raise OSError(errno.ENOSPC, "No space left on device", "a.bin")
    if options.fault == "bug":
      import json
      json.loads("{")
    print("done", options.width)

  if __name__ == "__main__":
    config.define_flags(Options)
    config.run_main(main)
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
  path = tmp_path_factory.mktemp("program") / "program.py"
  path.write_text(textwrap.dedent(PROGRAM))

  def run(*arguments):
    return subprocess.run(
      [sys.executable, str(path), *arguments],
      capture_output=True,
      text=True,
      env=os.environ | {"PYTHONPATH": str(ROOT)},
      check=False,
    )

  return run


@pytest.mark.slow
def test_program_runs(program):
  done = program("--width=3")
  assert (done.returncode, done.stdout) == (0, "done 3\n")


@pytest.mark.parametrize(
  ("argument", "words"),
  [
    ("--widht=3", ["widht", "Did you mean: width"]),
    pytest.param("--width=three", ["--width=three"], marks=pytest.mark.slow),
    ("--width=0", ["width must be at least 1, got 0"]),
    pytest.param(
      "width=3", ["unexpected argument 'width=3'"], marks=pytest.mark.slow
    ),
    ("--fault=disk", ["the disk is full", "a.bin"]),
  ],
)
def test_users_faults_take_one_line(program, argument, words):
  done = program(argument)
  assert done.returncode == (75 if argument == "--fault=disk" else 2)
  assert done.stdout == ""
  assert done.stderr.startswith("error: ")
  assert done.stderr.count("\n") == 1
  for word in words:
    assert word in done.stderr


def test_faults_of_the_code_keep_their_traceback(program):
  done = program("--fault=bug")
  assert done.returncode not in (0, 2)
  assert "Traceback" in done.stderr


@pytest.mark.slow
def test_traceback_on_request(program):
  done = program("--width=0", "--traceback")
  assert done.returncode == 2
  assert "Traceback" in done.stderr


def test_help_shows_the_options(program):
  done = program("--help", "--width=3")
  assert done.returncode == 0
  assert done.stdout.startswith("A program.\n")
  assert "--width=1\n      how wide the code is." in done.stdout


def test_a_flagfile_of_bytes_takes_one_line(program, tmp_path):
  path = tmp_path / "weights.flags"
  path.write_bytes(bytes(range(128, 256)))
  found = program(f"--flagfile={path}")
  assert found.returncode == 2
  assert "Traceback" not in found.stderr
