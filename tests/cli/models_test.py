"""`sne-jax models` and `--model`: lists, shows, exports, predicts."""

import functools
import json
import shutil

import numpy as np
import pytest

from sne_jax.cli import main
from sne_jax.cli.commands import models, predict
from sne_jax.sharing import folders, names
from tests.cli import own_test
from tests.sharing import models as small


def by(module, *arguments):
  define = functools.partial(main.define_flags, module)
  return own_test.launched(define, module.main, *arguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A finished run."""
  workdir = tmp_path_factory.mktemp("run") / "run"
  small.trained(workdir=workdir)
  return workdir


@pytest.fixture(scope="module")
def exported(run):
  facts = {"name": "sizes", "summary": "The size of weights.", "limits": "No."}
  path = run.parent / "card.json"
  path.write_text(json.dumps(facts))
  out = run.parent / "models" / "sizes"
  ended = by(models, f"--export={run}", f"--out={out}", f"--card={path}")
  assert ended.code == 0 and str(out) in ended.out, ended
  return out


@pytest.fixture
def shipped(exported, monkeypatch):
  """As if that model shipped with the library."""
  monkeypatch.setattr(names, "HOME", exported.parent)
  return exported


def test_models_are_listed_and_one_is_shown(shipped):
  ended = by(models)
  assert "sizes  (0." in ended.out and "The size of weights." in ended.out
  ended = by(models, "sizes")
  assert "not for: No." in ended.out and "test size kendall_tau" in ended.out


def test_a_run_and_its_model_predict_alike(shipped, run, tmp_path):
  spec, weights = next(iter(small.networks(1, seed=5).pairs()))
  named = zip(
    ("0.weight", "0.bias", "2.weight", "2.bias"),
    spec.unflatten(weights).values(),
    strict=True,
  )
  np.savez(tmp_path / "net.npz", **dict(named))
  found = {}
  for flag in ("--model=sizes", f"--model={shipped}", f"--workdir={run}"):
    to = tmp_path / "found.json"
    ended = by(
      *(predict, flag, f"--json={to}", "--coverage=0.5"),
      str(tmp_path / "net.npz"),
    )
    assert ended.code == 0, ended
    found[flag] = json.loads(to.read_text())["networks"][0]
  one, *others = found.values()
  assert np.isfinite(one["size low"]) and one["size low"] < one["size"]
  for other in others:
    assert other["size"] == pytest.approx(one["size"], rel=1e-4)
    assert other["size low"] == pytest.approx(one["size low"], rel=1e-4)


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (["--model=size"], "did you mean sizes?"),
    (["--model=sizes", "--workdir=x"], "name one of them"),
    (["--revision=v1", "--workdir=x"], "but model is empty"),
    ([], "or a model with --model"),
  ],
)
def test_a_wrong_model_is_one_line(shipped, flags, said, tmp_path):
  np.savez(tmp_path / "net.npz", **{"0.weight": np.ones((2, 2))})
  assert said in by(predict, *flags, str(tmp_path / "net.npz")).error


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (["sizs"], "did you mean sizes?"),
    (["--export=nothing", "--out=made"], "nothing holds no model.json"),
    (["--export=nothing"], "out is empty"),
    (["--card=card.json"], "export is empty"),
    (["--export=nothing", "--out=made", "--card=none.json"], "holds no facts"),
  ],
)
def test_a_wrong_export_is_one_line_and_leaves_nothing(
  shipped, flags, said, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  assert said in by(models, *flags).error
  assert not list(tmp_path.iterdir())


def test_a_tampered_model_ends_the_program(shipped, tmp_path):
  copy = shutil.copytree(shipped, tmp_path / "copy")
  path = copy / folders.WEIGHTS_FILE
  path.write_bytes(path.read_bytes()[:-1] + b"?")
  error = by(predict, f"--model={copy}", "net.npz").error
  assert "model.safetensors" in error and "SHA-256" in error
