"""Metric files: what is written is read, also after a cut or a restart."""

import errno
import importlib.machinery
import json
import math
import pathlib
import struct
import sys
import types

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from sne_jax import atomic
from sne_jax.cli.reports import drawing
from sne_jax.learning.training import loop
from sne_jax.learning.training import records as logging


def events(workdir):
  """Reads all TensorBoard events of a run, oldest file first."""
  found = []
  for path in sorted((workdir / logging.EVENTS).iterdir()):
    data, place = path.read_bytes(), 0
    while place < len(data):
      (size,) = struct.unpack("<Q", data[place : place + 8])
      found.append(event_pb2.Event.FromString(data[place + 12 :][:size]))
      place += 12 + size + 4
  return found


def test_records_are_read_back(tmp_path):
  with logging.MetricWriter(tmp_path) as writer:
    writer.write(10, {"loss": np.float32(0.1), "steps": 3}, prefix="train/")
    writer.write(10, {"val/tau": float("nan")})
    # Flushed: readable while the writer is still open.
    first, second = logging.read_metrics(tmp_path)
  assert first == {
    "step": 10,
    "train/loss": float(np.float32(0.1)),
    "train/steps": 3.0,
  }
  assert math.isnan(second["val/tau"])
  lines = (tmp_path / logging.FILE).read_text().splitlines()
  assert json.loads(lines[1]) == {"step": 10, "val/tau": None}


def test_tensorboard_events_are_written_at_once(tmp_path):
  with logging.MetricWriter(tmp_path) as writer:
    writer.write(7, {"val/mse": 0.5, "val/tau": float("nan")})
    scalars = [
      (e.step, v.tag, v.simple_value)
      for e in events(tmp_path)
      for v in e.summary.value
    ]
  assert scalars == [(7, "val/mse", 0.5)]


def test_a_cut_line_is_dropped(tmp_path):
  with logging.MetricWriter(tmp_path) as writer:
    writer.write(1, {"loss": 1.0})
  with (tmp_path / logging.FILE).open("a") as file:
    file.write('{"step": 2, "lo')
  assert [r["step"] for r in logging.read_metrics(tmp_path)] == [1]
  with logging.MetricWriter(tmp_path) as writer:
    writer.write(2, {"loss": 2.0})
  assert [r["step"] for r in logging.read_metrics(tmp_path)] == [1, 2]


def test_a_damaged_line_is_an_error_that_names_it(tmp_path):
  (tmp_path / logging.FILE).write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
  with pytest.raises(ValueError, match=r"metrics.jsonl, line 2: not a record"):
    logging.read_metrics(tmp_path)


def test_opening_again_keeps_everything_unless_told(tmp_path):
  with logging.MetricWriter(tmp_path) as writer:
    writer.write(1, {"loss": 1.0})
  with logging.MetricWriter(tmp_path) as writer:
    writer.write(1, {"test/loss": 2.0})
    assert writer.records == [
      {"step": 1, "loss": 1.0},
      {"step": 1, "test/loss": 2.0},
    ]


def test_resuming_forgets_what_will_be_measured_again(tmp_path):
  with logging.MetricWriter(tmp_path) as writer:
    for step in (10, 20, 30, 40):
      writer.write(step, {"loss": float(step)})
  with logging.MetricWriter(tmp_path, resume_step=20) as writer:
    assert [r["step"] for r in writer.records] == [10, 20]
    writer.write(30, {"loss": -1.0})
  records = logging.read_metrics(tmp_path)
  assert [r["loss"] for r in records] == [10.0, 20.0, -1.0]
  # TensorBoard is told to hide the events from step 21 on.
  starts = [e.step for e in events(tmp_path) if e.HasField("session_log")]
  assert starts == [21]


def test_records_behind_the_saved_ones_are_forgotten(tmp_path):
  with logging.MetricWriter(tmp_path) as writer:
    writer.write(10, {"train/loss": 1.0})
    writer.write(10, {"test/loss": 2.0})
  with logging.MetricWriter(tmp_path, resume_step=10, num_records=1) as writer:
    assert writer.records == [{"step": 10, "train/loss": 1.0}]


def test_without_a_folder_records_stay_in_memory():
  with logging.MetricWriter(None) as writer:
    writer.write(1, {"loss": 1.0})
    writer.sync()
  assert writer.records == [{"step": 1, "loss": 1.0}]


def test_a_full_disk_is_one_clear_error(tmp_path):
  class FullFile:
    name = str(tmp_path / logging.FILE)

    def write(self, text):
      raise OSError(errno.ENOSPC, "No space left on device")

    def close(self):
      raise OSError(errno.ENOSPC, "No space left on device")

  with (
    pytest.raises(OSError, match="disk is full: the metrics of step 5 "),
    logging.MetricWriter(tmp_path) as writer,
  ):
    writer._file.close()
    writer._file = FullFile()
    writer.write(5, {"loss": 1.0})


def test_an_atomic_write_leaves_the_old_file_when_it_fails(tmp_path):
  path = tmp_path / "file"
  atomic.write_atomically(path, "old")
  with pytest.raises(TypeError):
    atomic.write_atomically(path, 3)
  assert path.read_text() == "old"
  assert [p.name for p in tmp_path.iterdir()] == ["file"]


class FakeWandb(types.ModuleType):
  """As much of wandb as is used; it writes nothing."""

  def __init__(self):
    super().__init__("wandb")
    self.runs, self.logged = [], []
    self.__spec__ = importlib.machinery.ModuleSpec("wandb", None)

  def Settings(self, **options):
    return options

  def Image(self, path, caption):
    return pathlib.Path(path).name, caption

  def init(self, **options):
    self.runs.append(options)
    logged = []
    self.logged.append(logged)
    return types.SimpleNamespace(
      log=lambda values, step=None: logged.append((step, values)),
      finish=lambda: logged.append("finished"),
    )


@pytest.fixture
def fake_wandb(monkeypatch):
  fake = FakeWandb()
  monkeypatch.setitem(sys.modules, "wandb", fake)
  return fake


def test_wandb_gets_what_is_recorded_and_is_whole_when_resumed(
  tmp_path, fake_wandb
):
  with logging.MetricWriter(tmp_path / "run/seed0", wandb="zoos") as writer:
    writer.write(1, {"train/loss": 2.0})
    writer.write(2, {"train/loss": 1.0})
  (run,) = fake_wandb.runs
  assert (run["project"], run["name"]) == ("zoos", "run/seed0")
  assert run["mode"] == "offline" and run["dir"] == str(tmp_path / "run/seed0")
  assert fake_wandb.logged[0] == [
    *((1, {"train/loss": 2.0}), (2, {"train/loss": 1.0})),
    "finished",
  ]
  resumed = logging.MetricWriter(
    tmp_path / "run/seed0", wandb="zoos", resume_step=1
  )
  with resumed as writer:
    writer.write(2, {"train/loss": 3.0})
  assert fake_wandb.logged[1] == [
    *((1, {"train/loss": 2.0}), (2, {"train/loss": 3.0})),
    "finished",
  ]
  with logging.MetricWriter(tmp_path / "other") as writer:
    writer.write(1, {"train/loss": 2.0})
  assert len(fake_wandb.runs) == 2  # It was not asked for.


def test_wandb_that_is_missing_takes_one_line(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "wandb", None)
  with pytest.raises(ValueError, match="wandb is 'zoos'.*pip install wandb"):
    loop.TrainOptions(wandb="zoos")
  with pytest.raises(ValueError, match="pip install wandb"):
    logging.MetricWriter(tmp_path, wandb="zoos")
  with pytest.raises(ValueError, match="give workdir"):
    logging.MetricWriter(None, wandb="zoos")
  assert loop.TrainOptions().wandb == ""


def test_figures_and_options_are_published_once(tmp_path, fake_wandb):
  path = drawing.png_path(tmp_path / "figures" / "curve")
  with drawing.drawn(path, (2.0, 1.0)) as picture:
    picture.subplots().plot([0, 1])
  for _ in range(2):  # The second takes the place of the first.
    logging.publish(
      tmp_path,
      title="A run",
      figures={"How the loss falls": path},
      options={"TrainOptions": {"num_steps": 7, "monitor": "a|b"}},
      wandb="zoos",
    )
  values = [v for e in events(tmp_path) for v in e.summary.value]
  text, picture = values
  assert text.tag == "options/text_summary"
  shown = text.tensor.string_val[0].decode()
  assert shown.startswith("# A run\n\n| option | value |")
  assert "| TrainOptions.num_steps | 7 |" in shown and "a\\|b" in shown
  assert picture.tag == "figures/curve"
  assert picture.metadata.summary_description == "How the loss falls"
  assert picture.image.encoded_image_string == path.read_bytes()
  width, height = picture.image.width, picture.image.height
  assert width == pytest.approx(2 * height, rel=0.2) and height > 50
  run, logged = fake_wandb.runs[-1], fake_wandb.logged[-1]
  assert run["config"] == {"TrainOptions": {"num_steps": 7, "monitor": "a|b"}}
  assert logged[0][1]["figures/curve"] == ("curve.png", "How the loss falls")
