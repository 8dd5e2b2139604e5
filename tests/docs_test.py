"""Code of README and docs runs as it stands, but for its sizes."""

import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import venv

import numpy as np
import pytest
import safetensors.numpy

import sne_jax
from sne_jax.networks import families

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
  train, predict = blocks("README.md", "Train from Python")
  assert lines(train) + lines(predict) <= 15
  write_files(tmp_path, 60)
  monkeypatch.chdir(tmp_path)
  exec(smaller(train), {})
  assert "'mse'" in capsys.readouterr().out
  path = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
  check_interval(start(sys.executable, path + predict, tmp_path))


@pytest.mark.slow
def test_the_script_of_the_readme_needs_the_wheel_alone(tmp_path):
  """In a new environment; it needs the package index to build the wheel."""
  pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
  build = [*pip, "wheel", "--no-deps", "-w", str(tmp_path), str(ROOT)]
  subprocess.run(build, check=True)
  (wheel,) = tmp_path.glob("sne_jax-*.whl")
  venv.create(tmp_path / "venv", with_pip=False)
  python = tmp_path / "venv" / "bin" / "python"
  where = start(
    str(python), "import sysconfig; print(sysconfig.get_path('purelib'))", ROOT
  ).strip()
  to = ["--no-deps", "--target", where, str(wheel)]
  subprocess.run([*pip, "install", *to], check=True)
  # What it depends on is that of this environment, but for our own package.
  pathlib.Path(where, "depends.pth").write_text(sysconfig.get_path("purelib"))
  folder = tmp_path / "work"
  folder.mkdir()
  write_files(folder, 300)
  train, predict = blocks("README.md", "Train from Python")
  found = start(
    str(python), smaller(train) + "\nprint(sne_jax.__file__)", folder
  )
  assert where in found and "'mse'" in found
  check_interval(start(str(python), predict, folder))


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
