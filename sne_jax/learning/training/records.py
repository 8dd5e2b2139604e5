"""Metrics of a run: JSON lines, TensorBoard events, and Weights & Biases.

A record is a step and the scalars measured there. Names have a prefix that
says where they come from: `train/`, `val/`, `test/`, and `time/` for clocks,
the only values that a repeated run does not reproduce bit for bit. Figures and
options of a whole run are for TensorBoard and Weights & Biases alone: its
report has them (`publish`).
"""

import contextlib
import json
import math
import os
import pathlib
import struct
import time
from collections.abc import Mapping
from typing import Any

from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2, summary_pb2

from sne_jax import room
from sne_jax.atomic import write_atomically
from sne_jax.learning.training import wandb_run

# Generated classes, which type checkers do not see.
_Event = getattr(event_pb2, "Event")  # noqa: B009
_Summary = getattr(summary_pb2, "Summary")  # noqa: B009
_Metadata = getattr(summary_pb2, "SummaryMetadata")  # noqa: B009
_SessionLog = getattr(event_pb2, "SessionLog")  # noqa: B009

FILE = "metrics.jsonl"
EVENTS = "tensorboard"

Record = dict[str, Any]
"""`{"step": int, name: float, ...}`."""


class MetricWriter:
  """Appends records to `<workdir>/metrics.jsonl` and to TensorBoard.

  Every write is flushed, so that a killed run keeps what it measured. A line
  that was cut off is dropped when the file is opened again. Values that are
  not finite are `null` in the file and NaN when read.

  Attributes:
    records: all records, those of earlier starts included.
  """

  def __init__(
    self,
    workdir: str | os.PathLike | None,
    *,
    resume_step: int | None = None,
    num_records: int | None = None,
    tensorboard: bool = True,
    wandb: str = "",
  ):
    """Opens the files of a work directory, creating them where needed.

    Args:
      workdir: the run's folder; None keeps records in memory only.
      resume_step: drop what was recorded after this step, which is about to
        be measured again; None drops nothing.
      num_records: keep at most that many records, the first.
      tensorboard: also write TensorBoard events.
      wandb: also write an offline run of Weights & Biases, of this project.

    Raises:
      ValueError: wandb is not installed, or has no folder to write to.
    """
    self.records: list[Record] = []
    self._file, self._sinks = None, []
    if workdir is None:
      if wandb:
        raise ValueError(
          f"wandb is {wandb!r}, which is written to the work directory, and"
          " there is none; give workdir"
        )
      return
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    written = read_metrics(workdir)
    self.records = [
      r
      for r in written[:num_records]
      if resume_step is None or r["step"] <= resume_step
    ]
    path = workdir / FILE
    text = "".join(map(_line, self.records))
    if not path.exists() or path.read_text() != text:
      write_atomically(path, text)
    self._file = path.open("a")
    if tensorboard:
      purge = None if resume_step is None or not written else resume_step + 1
      with room.writing(workdir / EVENTS, "events for TensorBoard"):
        self._sinks.append(_Events(workdir / EVENTS, purge))
    if wandb:
      name = f"{workdir.parent.name}/{workdir.name}"
      self._sinks.append(wandb_run.WandbRun(workdir, wandb, name))
      for record in self.records:
        self._sinks[-1].scalars(record)

  def write(self, step: int, values: Mapping[str, Any], prefix: str = ""):
    """Records scalars of a step, each under `prefix` and its name.

    Raises:
      NoRoom: the disk is full, or read-only; the message says what to do.
    """
    record: Record = {"step": int(step)}
    record |= {prefix + name: float(value) for name, value in values.items()}
    self.records.append(record)
    if self._file is None:
      return
    with room.writing(self._file.name, f"the metrics of step {step}"):
      self._file.write(_line(record))
      self._file.flush()
      for sink in self._sinks:
        sink.scalars(record)

  def sync(self) -> None:
    """Waits until the records are on the disk, as before a checkpoint."""
    if self._file is not None:
      with room.writing(self._file.name):
        os.fsync(self._file.fileno())

  def close(self) -> None:
    """Closes the files; `records` stays."""
    for file in (self._file, *self._sinks):
      if file is not None:
        # What could not be written has already been said in `write`.
        with contextlib.suppress(OSError):
          file.close()
    self._file, self._sinks = None, []

  def __enter__(self):
    """Returns itself."""
    return self

  def __exit__(self, *unused):
    """Closes the files."""
    self.close()


def publish(
  workdir: str | os.PathLike,
  *,
  title: str,
  figures: Mapping[str, str | os.PathLike],
  options: Mapping[str, Mapping[str, Any]],
  wandb: str = "",
) -> None:
  """Gives figures and options of a whole run to TensorBoard, and others.

  What was given before is replaced.

  Args:
    workdir: the folder of the run.
    title: what it is called.
    figures: PNG files by caption.
    options: values by class and name.
    wandb: project of Weights & Biases; empty: none.

  Raises:
    NoRoom: the disk is full, or read-only.
    ValueError: wandb is not installed.
  """
  workdir = pathlib.Path(workdir)
  for old in (workdir / EVENTS).glob("events*"):
    old.unlink()
  sinks: list[Any] = []
  with room.writing(workdir / EVENTS, "figures for TensorBoard"):
    sinks.append(_Events(workdir / EVENTS, None))
    if wandb:
      sinks.append(wandb_run.WandbRun(workdir, wandb, title, options))
    try:
      for sink in sinks:
        sink.text("options", f"# {title}\n\n{_table(options)}")
        for caption, path in figures.items():
          path = pathlib.Path(path)
          sink.image(f"figures/{path.stem}", path, caption)
    finally:
      for sink in sinks:
        sink.close()


def _table(options: Mapping[str, Mapping[str, Any]]) -> str:
  """Returns options as a table of markdown, which TensorBoard shows."""
  lines = ["| option | value |", "|---|---|"]
  for name, values in options.items():
    for field, value in values.items():
      shown = str(value).replace("|", "\\|").replace("\n", " ")
      lines.append(f"| {name}.{field} | {shown} |")
  return "\n".join(lines)


def read_metrics(workdir: str | os.PathLike) -> list[Record]:
  """Reads the records of a run, in order; none if it has written none.

  Raises:
    ValueError: a line other than the last is no record; the message names it.
  """
  path = pathlib.Path(workdir) / FILE
  if not path.exists():
    return []
  records = []
  lines = path.read_text().split("\n")
  for number, line in enumerate(lines[:-1], start=1):  # The rest was cut off.
    try:
      record = json.loads(line)
      records.append(
        {k: math.nan if v is None else v for k, v in record.items()}
      )
      record["step"]
    except (ValueError, AttributeError, KeyError) as error:
      raise ValueError(
        f"{path}, line {number}: not a record of metrics ({error!r}); delete"
        " this line"
      ) from error
  return records


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Reads a file that a run has written of itself.

  Raises:
    ValueError: it is damaged.
  """
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(
      f"{path} is damaged ({error}); restore it, or remove its folder and start"
      " the run again"
    ) from error
  if not isinstance(content, dict):
    raise ValueError(
      f"{path} is damaged (it holds no object); restore it, or remove its"
      " folder and start the run again"
    )
  return content


class _Events:
  """Writes TensorBoard events at once: no thread that could die or lag."""

  def __init__(self, folder: pathlib.Path, purge_step: int | None):
    """Opens a new file; TensorBoard hides what is from `purge_step` on."""
    folder.mkdir(parents=True, exist_ok=True)
    # The time makes the name unique: two starts may share a second.
    self._writer = event_file_writer.EventsWriter(
      str(folder / "events"), f".{time.time_ns()}"
    )
    if purge_step is not None:
      log = _SessionLog(status=_SessionLog.START)
      self._add(_Event(step=purge_step, session_log=log))
    self._writer.flush()

  def text(self, name: str, text: str) -> None:
    """Adds a text, of markdown."""
    self._add(_Event(step=0, summary=summary.text(name, text)))
    self._writer.flush()

  def image(self, name: str, path: pathlib.Path, caption: str) -> None:
    """Adds a picture, under its caption."""
    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])  # Of the PNG's header.
    picture = _Summary.Image(
      height=height, width=width, colorspace=4, encoded_image_string=content
    )
    about = _Metadata(display_name=name, summary_description=caption)
    value = _Summary.Value(tag=name, image=picture, metadata=about)
    self._add(_Event(step=0, summary=_Summary(value=[value])))
    self._writer.flush()

  def scalars(self, record: Record) -> None:
    """Adds the finite scalars of a record."""
    for name, value in record.items():
      if name != "step" and math.isfinite(value):
        scalar = summary.scalar(name, value)
        self._add(_Event(step=record["step"], summary=scalar))
    self._writer.flush()

  def close(self) -> None:
    """Closes the file."""
    self._writer.close()

  def _add(self, event):
    event.wall_time = time.time()
    self._writer.write_event(event)


def _line(record: Record) -> str:
  """Returns a record as one line of strict JSON."""
  values = {
    k: v if isinstance(v, int) or math.isfinite(v) else None
    for k, v in record.items()
  }
  return json.dumps(values, allow_nan=False) + "\n"
