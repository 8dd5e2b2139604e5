"""Progress lines: time left by hand, and when a line is logged."""

import pytest
from absl import logging as absl_logging

from sne_jax.learning.training import progress


class Clock:
  """A clock that is set by hand."""

  now = 100.0

  def __call__(self):
    return self.now


@pytest.fixture
def lines(monkeypatch):
  """Collects what is logged."""
  found = []
  monkeypatch.setattr(
    absl_logging, "info", lambda text, *values: found.append(text % values)
  )
  return found


def test_lines_are_logged_at_times_and_at_the_end(lines):
  clock = Clock()
  with progress.Progress(
    "reading", every_seconds=10.0, interactive=False, clock=clock
  ) as line:
    for done in range(1, 31):
      line.update(done, 30, f"member {done}")
      clock.now += 1
  assert lines == [
    "reading 11/30 (36 %), 19 s left, member 11",
    "reading 21/30 (70 %), 9 s left, member 21",
    "reading 30/30 (100 %), member 30",
  ]


def test_a_resumed_run_is_not_misjudged():
  clock = Clock()
  line = progress.Progress("training", interactive=False, clock=clock)
  line.update(900, 1000)
  clock.now += 10
  assert line.seconds_left(900, 1000) is None
  assert line.seconds_left(905, 1000) == 190  # 2 s each, not 10 / 905.


def test_a_terminal_gets_a_live_line(capsys, lines):
  with progress.Progress("reading", interactive=True) as line:
    line.update(1, 2, "half")
    line.update(2, 2, "all")
  assert not lines
  assert "reading" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("seconds", "words"),
  [
    (0.4, "0 s"),
    (59.6, "1 min 0 s"),
    (200.0, "3 min 20 s"),
    (7500.0, "2 h 5 min"),
  ],
)
def test_durations_in_words(seconds, words):
  assert progress.format_seconds(seconds) == words
