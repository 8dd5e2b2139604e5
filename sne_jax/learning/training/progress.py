"""How far long work is: a live line on a terminal, else a log line at times."""

import sys
import time
from collections.abc import Callable

import rich.console
import rich.progress
from absl import logging


class Progress:
  """A context that shows how much of some work is done and what is left.

  On a terminal it is one live line; elsewhere a line is logged every
  `every_seconds`, and one at the end. Time left is extrapolated from what was
  done since the first update, so that a resumed run is not misjudged.

  Example:
    >>> with Progress("reading") as progress:
    ...   for i in range(3):
    ...     progress.update(i + 1, 3, f"member {i}")
  """

  def __init__(
    self,
    title: str,
    *,
    every_seconds: float = 30.0,
    interactive: bool | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Prepares the line; nothing is shown before the first update.

    Args:
      title: what the work is, one or two words.
      every_seconds: between log lines, where the output is no terminal.
      interactive: whether to draw a live line; None asks the output.
      clock: seconds from an arbitrary origin.
    """
    self._title = title
    self._every = every_seconds
    self._interactive = (
      sys.stderr.isatty() if interactive is None else interactive
    )
    self._clock = clock
    self._first: tuple[float, int] | None = None  # When, and done by then.
    self._shown_at = 0.0
    self._last: tuple[int, int, str] | None = None  # Not yet shown.
    self._live: rich.progress.Progress | None = None
    self._task = rich.progress.TaskID(0)

  def __enter__(self):
    """Returns itself."""
    return self

  def __exit__(self, *unused):
    """Ends the live line, or logs what was not yet shown."""
    self.hide()
    if self._last is not None:
      self._log(*self._last)

  def hide(self) -> None:
    """Takes the live line away, as before a question; an update shows it."""
    if self._live is not None:
      self._live.stop()
      self._live = None

  def update(self, done: int, total: int, message: str = "") -> None:
    """Says that `done` of `total` parts are done.

    Args:
      done: parts that are done, at most `total`.
      total: all parts; may change.
      message: what to show after that, such as the latest metrics.
    """
    now = self._clock()
    if self._first is None:
      self._first = (now, done)
      self._shown_at = now
    if self._interactive:
      self._draw(done, total, message)
      return
    self._last = (done, total, message)
    if now - self._shown_at >= self._every:
      self._log(done, total, message)
      self._shown_at = now
      self._last = None

  def describe(self, done: int, total: int, message: str = "") -> str:
    """Returns the line: title, parts, share, time left and message."""
    share = 100 * done // max(total, 1)
    parts = [f"{self._title} {done}/{total} ({share} %)"]
    left = self.seconds_left(done, total)
    if left is not None and done < total:
      parts.append(f"{format_seconds(left)} left")
    if message:
      parts.append(message)
    return ", ".join(parts)

  def seconds_left(self, done: int, total: int) -> float | None:
    """Returns the time left in seconds; None where nothing was done yet."""
    if self._first is None or done <= self._first[1]:
      return None
    seconds = self._clock() - self._first[0]
    return (total - done) * seconds / (done - self._first[1])

  def _log(self, done, total, message):
    logging.info("%s", self.describe(done, total, message))

  def _draw(self, done, total, message):
    if self._live is None:
      self._live = rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[message]}"),
        console=rich.console.Console(stderr=True),
        transient=False,
      )
      self._task = self._live.add_task(self._title, total=total, message="")
      self._live.start()
    left = self.seconds_left(done, total)
    if left is not None and done < total:
      message = f"{format_seconds(left)} left, {message}".rstrip(", ")
    self._live.update(self._task, completed=done, total=total, message=message)


class Stopwatch:
  """Seconds while it runs; it runs from the start."""

  def __init__(self, seconds: float = 0.0):
    """Starts from the seconds that were counted before."""
    self._before = seconds
    self._since: float | None = time.monotonic()

  @property
  def seconds(self) -> float:
    """What was counted so far."""
    running = 0.0 if self._since is None else time.monotonic() - self._since
    return self._before + running

  def stop(self) -> None:
    """Pauses."""
    self._before, self._since = self.seconds, None

  def start(self) -> None:
    """Continues."""
    self._since = time.monotonic()


def format_seconds(seconds: float) -> str:
  """Returns a duration in words: `42 s`, `3 min 20 s`, `2 h 5 min`."""
  seconds = round(seconds)
  if seconds < 60:
    return f"{seconds} s"
  if seconds < 3600:
    return f"{seconds // 60} min {seconds % 60} s"
  return f"{seconds // 3600} h {seconds % 3600 // 60} min"
