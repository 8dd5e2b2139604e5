"""Models that read what networks answer, given files that say no such thing."""

import csv
import functools
import json

import numpy as np
import pytest

from sne_jax import predictor as predictor_lib
from sne_jax.cli.commands import encode, predict
from sne_jax.networks import families
from tests.experiments.predict_test import SPEC, start, written

__all__ = ["start"]  # A fixture.


OTHER = families.inr((1, 5, 5, 1))
"""No network of the zoo, whose files say how to run it as little."""

KINDS = {
  "never": (),
  "dropped": ("--response_drop=0.5",),
  "apart": (
    *("--response_join=apart", "--response_source=noise"),
    *("--response_order=pooled", "--response_map=additive"),
    *("--response_readers=2", "--head_width=0"),
  ),
}


@pytest.fixture(scope="module")
def workdirs(launch, tiny_zoo, tmp_path_factory):
  """Finished runs, by whether and how they know weights without answers."""

  @functools.cache
  def workdir(name):
    folder = tmp_path_factory.mktemp("run") / name
    reads = ("--responses=outputs", "--response_inputs=3", *KINDS[name])
    ended = launch(folder, tiny_zoo, *reads)
    assert ended.code == 0, ended
    return folder

  return workdir


@pytest.mark.parametrize("module", [predict, encode])
def test_a_model_that_needs_answers_refuses(
  module, workdirs, start, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  written(tmp_path / "files", 1, spec=OTHER)
  code, _, err = start(
    module, f"--workdir={workdirs('never')}", tmp_path / "files"
  )
  assert code == 1 and "Traceback" not in err
  (line,) = [l for l in err.splitlines() if "net0" in l]
  assert "nothing tells how it is run" in line
  assert "--response_drop=0.1" in line


@pytest.mark.parametrize(
  "kind", [pytest.param("dropped", marks=pytest.mark.slow), "apart"]
)
def test_weights_alone_are_read_and_that_is_said(
  kind, workdirs, start, tmp_path
):
  vectors = written(tmp_path / "files", 2, spec=OTHER)
  table = tmp_path / "out.csv"
  given = (f"--workdir={workdirs(kind)}", tmp_path / "files")
  code, _, err = start(predict, f"--csv={table}", *given)
  assert code == 0, err
  with table.open() as file:
    rows = {row["file"]: row for row in csv.DictReader(file)}
  assert set(rows) == set(vectors)
  assert all("weights alone" in row["warnings"] for row in rows.values())
  code, text, err = start(encode, f"--out={tmp_path / 'codes.npz'}", *given)
  assert code == 0 and (text + err).count("weights alone") >= 1


def test_a_file_of_the_layers_of_the_training_is_run_as_these_are(
  workdirs, start, tmp_path, caplog
):
  ((path, vector),) = written(tmp_path / "files", 1).items()
  out = tmp_path / "out.json"
  code, _, err = start(
    predict, f"--workdir={workdirs('never')}", f"--json={out}", path
  )
  assert code == 0, err
  (row,) = json.loads(out.read_text())["networks"]
  assert any("(inr, sine)" in text for text in row["warnings"])
  model = predictor_lib.Predictor.load(workdirs("never"))
  wanted = model.predict([(SPEC, vector)])[0, 0]
  assert row["frequency"] == pytest.approx(wanted, rel=1e-5)
  caplog.clear()
  assert model.predict(path)[0, 0] == pytest.approx(wanted, rel=1e-5)
  assert sum("remarks()" in line for line in caplog.messages) == 1


def test_a_settled_family_is_run(workdirs, start, tmp_path):
  """Then the prediction is that of the network itself, answers and all."""
  ((path, vector),) = written(tmp_path / "files", 1).items()
  settled, out = tmp_path / "settled.json", tmp_path / "out.json"
  family = {"family": "inr", "options": {"widths": [1, 4, 4, 1]}}
  settled.write_text(json.dumps(family))
  code, _, err = start(
    predict,
    *(
      f"--workdir={workdirs('never')}",
      f"--override={settled}",
      f"--json={out}",
    ),
    path,
  )
  assert code == 0, err
  (row,) = json.loads(out.read_text())["networks"]
  assert not any("weights alone" in text for text in row["warnings"])
  model = predictor_lib.Predictor.load(workdirs("never"))
  wanted = model.predict([(SPEC, vector)])[0, 0]
  assert row["frequency"] == pytest.approx(wanted, rel=1e-5)


def test_what_was_never_seen_is_predicted(workdirs):
  """Of any family: from what was learned of sine networks."""
  rng = np.random.default_rng(0)
  networks = [
    (spec, families.random_weights(spec, rng))
    for spec in families.tiny_specs().values()
  ]
  kinds = ("never", "apart")
  models = [predictor_lib.Predictor.load(workdirs(kind)) for kind in kinds]
  assert np.isfinite(models[0].predict(networks)).all()
  for model in models:
    assert model.remarks(networks) == [""] * len(networks)
