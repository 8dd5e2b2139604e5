"""Code of README and docs runs as it stands, but for its sizes."""

import functools
import os
import pathlib
import re
import resource
import shlex
import subprocess
import sys
import sysconfig
import venv

import numpy as np
import pytest
import safetensors.numpy

import sne_jax
from sne_jax.cli import main
from sne_jax.cli.commands import predict, train
from sne_jax.networks import families
from tests.cli import own_test
from tests.learning.data import own_networks
from tests.sharing import shipped_fixtures

ROOT = pathlib.Path(__file__).parents[1]
SMALL = """sne_jax.SNEOptions(
  width=8, heads=2, chunk_function="linear", identifiers="none",
  index_features="none", layer_function="deepsets", layer_blocks=0,
  network_function="deepsets", network_blocks=0)"""
"""Options of an encoder that compiles fast."""


def blocks(path: str, heading: str = "") -> list[str]:
  """Returns the Python code below a heading, to the next one."""
  text = (ROOT / path).read_text()
  if heading:
    text = re.split(r"^## ", text.split(f"## {heading}\n")[1], flags=re.M)[0]
  return re.findall(r"```python\n(.*?)```", text, re.S)


def lines(code: str) -> int:
  return len([line for line in code.splitlines() if line.strip()])


def write_files(folder: pathlib.Path, count: int) -> None:
  """Writes state_dicts of mixed sizes, and a table."""
  rng = np.random.default_rng(0)
  (folder / "networks").mkdir()
  rows = ["file,accuracy"]
  for n in range(count):
    spec = families.mlp((2, *rng.integers(3, 8, size=1 + n % 2).tolist(), 1))
    size = rng.uniform(0.1, 1)
    weights = size * rng.normal(size=spec.num_weights).astype(np.float32)
    arrays = {
      f"net.{2 * (i // 2)}.{('weight', 'bias')[i % 2]}": array
      for i, array in enumerate(spec.unflatten(weights).values())
    }
    path = folder / "networks" / f"net{n}.safetensors"
    safetensors.numpy.save_file(arrays, path)
    rows.append(f"net{n}.safetensors,{size:.6f}")
  (folder / "table.csv").write_text("\n".join(rows) + "\n")


def smaller(code: str) -> str:
  """Returns the training of the README, shortened."""
  assert "num_steps=1000" in code and "training=training" in code
  code = code.replace("num_steps=1000", "num_steps=4")
  return code.replace(
    "training=training",
    "training=training, data=sne_jax.DataOptions(batch_size=4),"
    f" options={SMALL}",
  )


def start(python: str, code: str, folder: pathlib.Path) -> str:
  """Runs code in a process of its own; returns what it prints."""
  known = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  done = subprocess.run(
    [python, "-c", code],
    cwd=folder,
    env=known | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def check_interval(text: str) -> None:
  """Fails unless a prediction lies within its interval."""
  value, low, high = map(float, re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text))
  assert low < value < high, text


def test_the_script_of_the_readme(tmp_path, monkeypatch, capsys):
  fit, load = blocks("README.md", "Train from Python")
  assert lines(fit) + lines(load) <= 15
  write_files(tmp_path, 60)
  monkeypatch.chdir(tmp_path)
  exec(smaller(fit), {})
  assert "'mse'" in capsys.readouterr().out
  path = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
  check_interval(start(sys.executable, path + load, tmp_path))
  (use,) = blocks("docs/how_to/python.md", "Use it")
  use = use.replace('"trained"', '"model"')
  known: dict = {}
  exec(use, known)
  assert known["gradient"].shape == known["weights"].shape
  assert known["properties"].shape == (1, 1)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
  """The Python of a new environment with the wheel in it.

  It needs the package index to build the wheel.
  """
  folder = tmp_path_factory.mktemp("wheel")
  pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
  build = [*pip, "wheel", "--no-deps", "-w", str(folder), str(ROOT)]
  subprocess.run(build, check=True)
  (file,) = folder.glob("sne_jax-*.whl")
  venv.create(folder / "venv", with_pip=False)
  python = folder / "venv" / "bin" / "python"
  where = start(
    str(python), "import sysconfig; print(sysconfig.get_path('purelib'))", ROOT
  ).strip()
  to = ["--python", str(python), "install", "--no-deps", str(file)]
  # With PYTHONPATH, pip would take the source tree for what is installed.
  known = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  subprocess.run([*pip, *to], check=True, env=known)
  # What it depends on is that of this environment, but for our own package.
  pathlib.Path(where, "depends.pth").write_text(sysconfig.get_path("purelib"))
  return python, where


@pytest.mark.slow
def test_the_script_of_the_readme_needs_the_wheel_alone(wheel, tmp_path):
  python, where = wheel
  write_files(tmp_path, 300)
  fit, load = blocks("README.md", "Train from Python")
  found = start(
    str(python), smaller(fit) + "\nprint(sne_jax.__file__)", tmp_path
  )
  assert where in found and "'mse'" in found
  check_interval(start(str(python), load, tmp_path))


@pytest.mark.slow
def test_the_command_needs_the_wheel_alone(wheel, tmp_path):
  """300 networks to a predictor and a report, and to a prediction."""
  own_networks.write(tmp_path, 300)
  program = wheel[0].parent / "sne-jax"

  def run(*arguments):
    known = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
      [program, *arguments],
      cwd=tmp_path,
      env=known | {"JAX_PLATFORMS": "cpu"},
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

  said = run(
    *("train", "--networks=networks", "--table=labels.csv", "--targets=size"),
    "--workdir=run",
  )
  # Five minutes of one core, however busy the machine is.
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  assert used.ru_utime + used.ru_stime < 300
  tau = float(re.search(r"Kendall tau of (\S+) ", said)[1])  # pyright: ignore
  assert tau > 0.7, said
  assert (tmp_path / "run" / "report.md").exists()
  assert "net1.pt" in run("predict", "--workdir=run", "networks/net1.pt")


@pytest.mark.slow
def test_a_model_that_ships_needs_the_wheel_alone(wheel, tmp_path):
  """A prediction from a wheel, within 20 s of one core, without a network."""
  (spec, weights), *_ = shipped_fixtures.read("sines", "frequency")[0]
  arrays = {
    f"net.{n // 2}.{('weight', 'bias')[n % 2]}": array
    for n, array in enumerate(spec.unflatten(weights).values())
  }
  safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
  known = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  known |= {"JAX_PLATFORMS": "cpu", "https_proxy": "http://127.0.0.1:9"}
  for words, said in (
    (["models"], "sine-frequency"),
    (["predict", "--model=sine-frequency", "model.safetensors"], "] "),
  ):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
      [wheel[0].parent / "sne-jax", *words],
      cwd=tmp_path,
      env=known,
      capture_output=True,
      text=True,
      check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0 and said in done.stdout, done
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 20


def test_the_commands_and_the_script_of_ones_own_folder(
  tmp_path, monkeypatch, capsys
):
  """What the README and its page say of a folder of one's own."""
  (text,) = re.findall(
    r"## Your own folder\n.*?```\n(.*?)```",
    (ROOT / "README.md").read_text(),
    re.S,
  )
  write_files(tmp_path, 24)
  (tmp_path / "table.csv").rename(tmp_path / "labels.csv")
  monkeypatch.chdir(tmp_path)
  quick = ("--noreferences", *own_test.QUICK)
  for line, module, more in zip(
    text.splitlines(), (train, predict), (quick, ()), strict=True
  ):
    program, name, *arguments = shlex.split(line)
    assert (program, name) == ("sne-jax", module.__name__.split(".")[-1])
    define = functools.partial(main.define_flags, module)
    ended = own_test.launched(define, module.main, *arguments, *more)
    assert ended.code == 0, ended
  assert "networks/net0.safetensors" in ended.out
  (code,) = blocks("docs/how_to/own_folder.md")
  assert lines(code) <= 12 and "training=training" in code
  pathlib.Path("labels.csv").rename("table.csv")
  code = code.replace("num_steps=1000", "num_steps=4").replace(
    "training=training", 'training=training, encoder="stat_pool"'
  )
  before = (tmp_path / "runs" / "own_zoo" / "zoo.json").read_bytes()
  exec(code, {})
  assert "'value'" in capsys.readouterr().out
  after = (tmp_path / "runs" / "own_zoo" / "zoo.json").read_bytes()
  assert after == before


def test_no_message_advises_a_package_that_no_index_holds():
  for path in (ROOT / "sne_jax").rglob("*.py"):
    assert "sne_jax[" not in path.read_text(), path


def test_a_loop_of_ones_own():
  (code,) = blocks("docs/own_loop.md")
  assert lines(code) <= 25
  rng = np.random.default_rng(0)
  pairs, sizes = [], rng.uniform(0.1, 1, 24)
  for n, size in enumerate(sizes):
    spec = families.mlp((2, 3 + n % 2, 1))
    pairs.append((spec, size * rng.normal(size=spec.num_weights)))
  train = sne_jax.Networks.of(pairs, sizes - sizes.mean())
  known = {"train": train}
  assert "encoder_for(train)" in code
  code = code.replace(
    "encoder_for(train)", f"encoder_for(train, options={SMALL})"
  )
  code += "  losses.append(float(loss))\n"
  exec(code, known | {"losses": (losses := [])})
  assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
