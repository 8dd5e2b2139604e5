"""What benchmarks share: turns and tables."""

import pytest

from benchmarks import results


def test_turns_alternate_and_give_ratios(monkeypatch):
  order, clock = [], iter([0, 2, 2, 6, 6, 7, 7, 11])
  monkeypatch.setattr(results.time, "perf_counter", lambda: next(clock))

  def run(name, work):
    order.append(name)
    return work

  turns = results.in_turns(
    lambda: run("ours", 8.0), lambda: run("theirs", 4.0), 2
  )
  assert order == ["ours", "theirs"] * 2
  assert turns.ours == [4.0, 8.0]
  assert turns.theirs == [1.0, 1.0]
  assert turns.ratios == [4.0, 8.0]
  assert turns.medians == pytest.approx((6.0, 1.0))


def test_a_table_has_aligned_columns():
  rows = [{"name": "a", "ms": 1.25}, {"name": "long", "ms": 100.0}]
  text = results.table(rows, {"case": ("name", ""), "time": ("ms", ".1f")})
  assert text.split("\n") == ["case  time", "a      1.2", "long 100.0"]
