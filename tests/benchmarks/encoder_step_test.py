"""Tests of benchmarks/encoder_step.py and of its shapes, on tiny ones."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from benchmarks import encoder_step, machine, results, shapes
from sne_jax.networks import families

TINY = shapes.Case(
  name="tiny",
  specs=(families.build("mlp", widths=(2, 3, 2)),),
  batch_size=2,
  sne=shapes.attention(
    width=8,
    heads=2,
    chunk_function="linear",
    layer_function="none",
    network_function="deepsets",
    network_blocks=1,
  ),
  chunk=shapes.chunking.ChunkOptions.published(4),
)


@pytest.fixture(scope="module")
def step():
  return shapes.Step(TINY)


def row(**changes):
  return {
    "case": "x",
    "chunks": 3,
    "num_params": 5,
    "compile_seconds": 1.0,
    "seconds": 0.5,
    "fastest": 0.25,
    "slowest": 1.0,
    "networks_per_second": 4.0,
    "gflop": 10.0,
    "gflops_per_second": 20.0,
    "program_bytes": 2**20,
    "host_seconds": 0.001,
  } | changes


def test_the_flagfile_gives_the_options_of_its_product_shape():
  options = shapes.flagfile_options()
  assert options.chunk.linear_rule == "neuron"
  assert options.sne.chunk_function == "product"
  assert options.data.batch_size == 32


def test_the_shapes_are_those_that_were_asked_for():
  found = shapes.cases()
  labels = [case.label for case in found]
  assert len(set(labels)) == len(labels)
  inr = [c for c in found if "attention, INR" in c.name]
  assert {c.batch_size for c in inr} == {64}
  assert {(c.sne.width, c.sne.chunk_blocks) for c in inr} == {
    (64, 2),
    (64, 3),
    (128, 2),
  }
  for case in inr:
    layout = shapes.chunking.layout(case.specs[0], case.chunk)
    assert len(layout.index) == 37
  (kernel,) = [c for c in found if "by kernel" in c.name]
  assert kernel.specs[0].num_weights == 4970
  layout = shapes.chunking.layout(kernel.specs[0], kernel.chunk)
  # One chunk per 3x3 kernel; 160 dense weights; 3 x 16 and 10 biases.
  assert len(layout.index) == 16 + 256 + 256 + 18 + 3 * 2 + 2
  (mixed,) = [c for c in found if "mixed" in c.name]
  assert len({spec.family for spec in mixed.specs}) == 4
  assert mixed.batch_size % len(mixed.specs) == 0


def test_quick_shapes_are_all_of_them_and_small():
  full, quick = shapes.cases(), shapes.cases(quick=True)
  assert [c.name for c in quick] == [c.name for c in full]
  assert max(c.sne.width * c.batch_size for c in quick) <= 32


@pytest.mark.parametrize("size", encoder_step.CURVE_SIZES)
def test_the_curve_reaches_its_sizes(size):
  for case in shapes.curve_cases(size).values():
    assert case.specs[0].num_weights == pytest.approx(size, rel=0.05)
    # Among all the chunks of a layer, attention could not be run.
    assert case.sne.layer_function == "isab"
    assert 1 <= case.batch_size <= 32


@pytest.mark.slow
def test_a_step_moves_the_state_and_counts_what_is_in_the_batch(step):
  assert step.num_weights == 2 * 17
  before = jax.device_get(step.state.params)
  first = int(step.state.step)
  timing = step.time_update(repeats=2)
  assert int(step.state.step) == first + 3  # One before the clock runs.
  assert 0 < timing.fastest <= timing.seconds <= timing.slowest
  after = jax.device_get(step.state.params)
  same = jax.tree.map(np.array_equal, before, after)
  assert not all(jax.tree.leaves(same))
  predictions, codes = step.forward(step.state.params, step.packed)
  each = 2 // jax.local_device_count()  # Networks of the first device.
  assert (predictions.shape, codes.shape) == ((each, 1), (each, 8))


def test_a_program_that_needs_too_much_is_not_run(step):
  first = int(step.state.step)
  timing = step.time_update(repeats=1, max_bytes=1)
  assert math.isnan(timing.seconds)
  assert machine.peak_memory(timing.compiled).program > 1
  assert int(step.state.step) == first


def test_measured_speeds_belong_together(monkeypatch, step):
  monkeypatch.setattr(shapes, "Step", lambda case: step)
  found = encoder_step.measure(TINY, repeats=1)
  assert found["weights"] == 34
  # Each network: 6 + 6 weights and 3 + 2 biases in chunks of 4.
  assert found["chunks"] == 2 * (2 + 1 + 2 + 1)
  assert found["gflop"] > 0
  assert found["networks_per_second"] * found["seconds"] == pytest.approx(2)
  assert found["gflops_per_second"] * found["seconds"] == pytest.approx(
    found["gflop"]
  )
  costs = encoder_step.measure_cost([100], repeats=1, max_bytes=1)
  assert [cost["chunk_function"] for cost in costs] == ["product", "attention"]
  assert all(math.isnan(cost["forward_seconds"]) for cost in costs)
  assert all(cost["step_bytes"] > 0 for cost in costs)


def test_the_table_gives_the_share_of_peak():
  text = encoder_step.table([row()], peak=80.0)
  assert "25.0%" in text
  assert " 500.0 " in text  # Milliseconds.


def test_the_curve_is_drawn_with_gaps(tmp_path):
  rows = [
    {
      "chunk_function": name,
      "weights": size,
      "step_seconds": size * 1e-6 if size < 1000 else math.nan,
      "forward_seconds": size * 3e-7,
      "step_bytes": size * 1e3,
      "forward_bytes": size * 1e2,
    }
    for name in ("product", "attention")
    for size in (100, 1000)
  ]
  encoder_step.draw_cost(tmp_path / "cost", rows)
  assert {path.name for path in tmp_path.iterdir()} == {
    "cost_seconds.png",
    "cost_memory.png",
  }


def test_the_command_prints_and_writes(monkeypatch, tmp_path, capsys):
  peaks = iter([40.0, 80.0])
  monkeypatch.setattr(machine, "matmul_peak", lambda side: next(peaks))
  monkeypatch.setattr(
    encoder_step, "measure", lambda case, repeats: row(case=case.label)
  )
  path = tmp_path / "new" / "step.json"
  encoder_step.main(["--quick", "--only=mixed", f"--out={path}"])
  found = json.loads(path.read_text())
  assert found["peak_gflops_before"] == 40.0
  assert found["peak_gflops_after"] == 80.0
  (case,) = found["cases"]
  assert case["share_of_peak"] == 0.25
  assert "40.0 GFLOP/s before, 80.0 after" in capsys.readouterr().out
  with pytest.raises(SystemExit):
    encoder_step.main(["--only=no such shape"])


def test_json_holds_no_infinity(tmp_path):
  value = {"a": [math.inf, 1.0, (math.nan, "x")], "b": -math.inf, "c": 2}
  results.write(tmp_path / "x.json", value)
  found = json.loads((tmp_path / "x.json").read_text())
  assert found == {"a": [None, 1.0, [None, "x"]], "b": None, "c": 2}


def test_small_keeps_every_architecture():
  four = dataclasses.replace(TINY, specs=TINY.specs * 4, batch_size=32)
  assert shapes.small(four).batch_size == 4
