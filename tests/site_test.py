"""The documentation site: complete, its code runs, its commands are known."""

import functools
import importlib
import importlib.util
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from absl import flags

import sne_jax
from experiments.cli import options
from experiments.sweeping import runs
from sne_jax.cli import main
from sne_jax.cli.commands import zoo as make_zoo
from tests import docs_test

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGES = sorted(
  path
  for path in DOCS.rglob("*.md")
  if path.relative_to(DOCS).parts[0] not in ("results", "design")
)
NAMES = [path.relative_to(DOCS).as_posix() for path in PAGES]


def commands(text):
  """Returns the words of every command of ours in the fenced code of a page."""
  fenced = re.findall(r"^```\n(.*?)^```", text, re.S | re.M)
  joined = "\n".join(fenced).replace("\\\n", " ")
  lines = [shlex.split(line, comments=True) for line in joined.splitlines()]
  programs = ("experiments/", "sne-jax")
  return [w for w in lines if any(p in " ".join(w[:2]) for p in programs)]


def known_flags(program):
  """Returns the names of the flags that a program has."""
  of_scripts = {
    "run.py": options.define_flags,
    "make_zoo.py": make_zoo.define_flags,
    "sweep.py": runs.define_flags,
    "convert_zoo.py": lambda values: None,
  }
  define = of_scripts.get(program)
  if define is None:
    assert program in main.COMMANDS, f"sne-jax has no command {program}"
    module = importlib.import_module(f"sne_jax.cli.commands.{program}")
    define = functools.partial(main.define_flags, module)
  values = flags.FlagValues()
  define(values)
  return {*values, "flagfile", "help"}


@pytest.mark.parametrize("name", NAMES)
def test_commands_have_flags_that_exist(name):
  for words in commands((DOCS / name).read_text()):
    known = known_flags(pathlib.Path(words[1]).name)
    for word in words[2:]:
      if word.startswith("--"):
        flag = word[2:].split("=")[0]
        assert flag in known or flag.removeprefix("no") in known, word
      if word.startswith("--flagfile="):
        assert (DOCS.parent / word.split("=")[1]).is_file(), word


@pytest.mark.parametrize("name", [*NAMES, "../README.md"])
def test_links_lead_somewhere(name):
  page = DOCS / name
  for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
    if "://" not in link:
      assert (page.parent / link).exists(), link


def test_the_readme_is_one_page():
  assert len((DOCS.parent / "README.md").read_text().splitlines()) <= 130


def test_every_page_is_in_a_table_of_contents():
  listed = set()
  for page in PAGES:
    for block in re.findall(r"```{toctree}\n(.*?)```", page.read_text(), re.S):
      names = [n for n in block.split("\n") if n and not n.startswith(":")]
      listed |= {(page.parent / n).relative_to(DOCS).as_posix() for n in names}
  missing = {n.removesuffix(".md") for n in NAMES} - listed - {"index"}
  assert not missing


def test_every_public_name_is_documented():
  text = "\n".join(p.read_text() for p in (DOCS / "api").glob("*.md"))
  named = set(re.findall(r"sne_jax\.(\w+)$", text, re.M))
  assert set(sne_jax.__all__) - {"__version__"} <= named


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A folder with networks, their table, and a trained model."""
  folder = tmp_path_factory.mktemp("site")
  docs_test.write_files(folder, 40)
  fit, _ = docs_test.blocks("README.md", "Train from Python")
  before = pathlib.Path.cwd()
  os.chdir(folder)
  try:
    exec(docs_test.smaller(fit), {})
  finally:
    os.chdir(before)
  return folder


def train_the_autoencoder(place):
  """Makes what the page on Python draws networks from, in a few steps."""
  (place / "experiments").symlink_to(DOCS.parent / "experiments")
  command = (
    *(sys.executable, "experiments/run.py"),
    "--flagfile=experiments/flags/selfsup/autoencoder_quick.flags",
    *("--num_steps=4", "--eval_every=2", "--save_every=2"),
    *("--sane_width=8", "--sane_hidden=16", "--sane_blocks=1"),
    *("--sane_heads=2", "--noreferences"),
  )
  known = os.environ | {"PYTHONPATH": str(DOCS.parent)}
  done = subprocess.run(
    command,
    cwd=place,
    env=known | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(
  "name", [n for n in NAMES if "```python" in (DOCS / n).read_text()]
)
def test_code_runs_as_it_is_printed(name, place, monkeypatch):
  """But for the length of trainings."""
  if name == "own_loop.md":
    return  # `docs_test` runs it.
  monkeypatch.chdir(place)
  for code in docs_test.blocks(f"docs/{name}"):
    if "runs/selfsup/autoencoder_quick" in code:
      train_the_autoencoder(place)
    short = docs_test.smaller(code) if "training=training" in code else code
    exec(short.replace(", workdir=", ",\n  workdir="), {})


@pytest.mark.slow
@pytest.mark.skipif(
  importlib.util.find_spec("sphinx") is None,
  reason="needs requirements-docs.txt",
)
def test_the_site_builds_without_a_warning(tmp_path):
  build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"]
  done = subprocess.run(
    [*build, str(DOCS), str(tmp_path / "site")],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  api = (tmp_path / "site" / "api" / "training.html").read_text()
  assert 'id="sne_jax.fit"' in api
