"""Tests of benchmarks/time_to_accuracy.py, with a peer that does not train."""

import dataclasses
import json
import math
import sys
import types
from typing import Any

import jax
import numpy as np
import pytest
from absl import flags

from benchmarks import nfn_peer, results, shapes, time_to_accuracy
from experiments.tasks import members
from sne_jax.cli import config
from sne_jax.learning.data import pipeline
from sne_jax.networks import families

Race = time_to_accuracy.Race


def race(name, curve, seed=0):
  return Race(
    name=name,
    seed=seed,
    curve=curve,
    validation_mse=curve[-1][1],
    test_mse=1.0,
    num_params=10,
    networks_per_second=5.0,
  )


def tiny_data(counts=(12, 4, 4)):
  rng = np.random.default_rng(0)
  spec = families.build("inr")
  parts = {
    part: pipeline.Networks(
      (spec,),
      np.zeros(count, int),
      [families.random_weights(spec, rng) for _ in range(count)],
      rng.uniform(0.5, 10, (count, 1)),
    )
    for part, count in zip(members.PARTS, counts, strict=True)
  }
  ids = {"id": np.arange(max(counts)).astype(str)}
  zoo: Any = types.SimpleNamespace(properties=(), members=ids)
  rows = {
    part: members.Members(np.zeros(count, int), np.arange(count))
    for part, count in zip(members.PARTS, counts, strict=True)
  }
  return members.Data((zoo,), ("tiny",), parts, rows)


def tiny_options(**changes):
  usual = {
    "width": 8,
    "heads": 2,
    # As little to compile as there can be.
    "chunk_function": "linear",
    "identifiers": "none",
    "index_features": "none",
    "layer_function": "none",
    "network_function": "deepsets",
    "network_blocks": 1,
    "augment_signs": False,
    "batch_size": 4,
    "num_steps": 7,
    "head_width": 8,
    "devices": 1,
    "seeds": 2,
    "eval_every": 1000,
  }
  return shapes.flagfile_options().replaced(**(usual | changes))


def fake_peer(calls):
  def train(*, options, **arrays):
    calls.append((options, arrays))
    curve = [(2.0 * (e + 1), 1.0 / (e + 1)) for e in range(options.epochs)]
    return nfn_peer.PeerResult(curve, 0.5, 99, 7.0)

  return train


def test_the_first_evaluation_at_the_threshold_counts():
  found = race("x", [(1.0, 0.9), (2.0, 0.64), (3.0, 0.7), (4.0, 0.1)])
  assert found.seconds_to(0.64) == 2.0
  assert found.seconds_to(0.63) == 4.0
  assert found.seconds_to(0.05) == math.inf


def test_the_peer_has_its_best_schedule_in_every_seed():
  pairs = [
    (
      race("SNE", [(1.0, 0.5)], 0),
      [race("20", [(8.0, 0.6)]), race("40", [(4.0, 0.6)])],
    ),
    (
      race("SNE", [(3.0, 0.5)], 1),
      [race("20", [(2.0, 0.6)]), race("40", [(9.0, 0.7)])],
    ),
    (race("SNE", [(2.0, 0.5)], 2), [race("20", [(4.0, 0.6)])]),
  ]
  found = time_to_accuracy.summarize(pairs, 0.64)
  assert [row["nfn_schedule"] for row in found["seeds"]] == ["40", "20", "20"]
  assert [row["ratio"] for row in found["seeds"]] == [0.25, 1.5, 0.5]
  assert found["median_ratio"] == 0.5
  assert found["median_sne_seconds"] == 2.0
  assert found["median_nfn_seconds"] == 4.0


def test_who_never_arrives_is_said():
  late = race("x", [(1.0, 2.0)])
  soon = race("y", [(1.0, 0.1)])
  cases = {"neither": (late, [late]), "ours": (soon, [late])}
  cases |= {"theirs": (late, [soon])}
  found = {
    name: time_to_accuracy.summarize([pair], 0.64)
    for name, pair in cases.items()
  }
  assert math.isnan(found["neither"]["median_ratio"])
  assert found["ours"]["median_ratio"] == 0.0
  assert found["theirs"]["median_ratio"] == math.inf
  said = time_to_accuracy.text([cases["ours"]], found["ours"])
  assert "NFN-HNP never reached 0.64 with seeds 0" in said
  assert "SNE never" not in said
  assert "inf" in said


def test_who_goes_first_alternates():
  order = []

  class Racer:
    def __init__(self, name):
      self.name = name

    def race(self, seed, epochs=0):
      order.append((self.name, seed, epochs))
      return race(self.name, [(1.0, 1.0)], seed)

  pairs = time_to_accuracy.run_all(Racer("sne"), Racer("nfn"), [5, 6], [20, 40])
  assert order == [
    ("sne", 5, 0),
    ("nfn", 5, 20),
    ("nfn", 5, 40),
    ("nfn", 6, 20),
    ("nfn", 6, 40),
    ("sne", 6, 0),
  ]
  assert [(ours.seed, len(peers)) for ours, peers in pairs] == [(5, 2), (6, 2)]


def test_the_curve_is_read_at_the_evaluations_only():
  history = [
    {"step": 2, "train/loss": 3.0, "time/seconds": 0.5},
    {"step": 4, "train/loss": 2.0, "time/seconds": 1.0},
    {"step": 4, "val/loss": 5.0},
    {"step": 5, "time/seconds": 1.5},
    {"step": 5, "val/loss": 4.0},
  ]
  assert time_to_accuracy.read_curve(history) == [(1.0, 5.0), (1.5, 4.0)]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"threshold": 0.0}, "threshold is 0.0; must be above 0"),
    ({"nfn_epochs": "20;40"}, "numbers between commas, got '20;40'"),
    ({"nfn_epochs": "20,0"}, "nfn_epochs must be at least 1"),
    ({"sne_steps": -1}, "sne_steps is -1; must be at least 0"),
    ({"peak_size": 0}, "peak_size is 0; must be at least 1"),
  ],
)
def test_faulty_options_are_named(change, message):
  with pytest.raises(ValueError, match=message):
    time_to_accuracy.RaceOptions(**change)


@pytest.mark.parametrize("change", [{"targets": "a,b"}, {"loss": "bce"}])
def test_what_the_peer_cannot_do_is_refused(change):
  with pytest.raises(ValueError, match="one target by loss mse"):
    time_to_accuracy.check(tiny_options(**change))


def test_missing_torch_is_said_in_one_line(monkeypatch):
  monkeypatch.setitem(sys.modules, "nfn", None)
  with pytest.raises(ValueError, match="needs nfn; install it with") as found:
    time_to_accuracy.set_torch_threads()
  assert "\n" not in str(found.value)


def test_the_peer_gets_the_same_networks_and_split():
  data, calls = tiny_data(), []
  racer = time_to_accuracy.NfnRacer(data, fake_peer(calls))
  found = racer.race(seed=3, epochs=2)
  assert (found.seed, found.test_mse, found.num_params) == (3, 0.5, 99)
  ((options, arrays),) = calls
  assert (options.seed, options.epochs, options.batch_size) == (3, 2, 64)
  assert (options.channels, options.depth, options.learning_rate) == (
    32,
    3,
    1e-3,
  )
  for part, networks in data.parts.items():
    rows = arrays[f"{part}_rows"]
    np.testing.assert_array_equal(arrays["weights"][rows], networks.vectors)
    np.testing.assert_array_equal(
      arrays["targets"][rows], networks.targets[:, 0]
    )


@pytest.mark.slow
def test_a_whole_comparison(monkeypatch, capsys, tmp_path):
  data, calls = tiny_data(), []
  monkeypatch.setattr(members, "gathered", lambda options: data)
  race_options = time_to_accuracy.RaceOptions(
    nfn_epochs="1,2", sne_steps=7, peak_size=64
  )
  found = time_to_accuracy.compare(
    tiny_options(), race_options, nfn_train=fake_peer(calls)
  )
  results.write(tmp_path / "out.json", found)
  races = json.loads((tmp_path / "out.json").read_text())["races"]
  ours = [r for r in races if r["name"] == "SNE, 7 steps"]
  assert [r["seed"] for r in ours] == [0, 1]
  for one in ours:
    # Every 3 steps are a pass over 12 members, and the last step counts too.
    assert len(one["curve"]) == 3
    seconds = [s for s, _ in one["curve"]]
    assert seconds == sorted(seconds)
    assert one["validation_mse"] == one["curve"][-1][1]
    assert one["test_mse"] > 0
    # The clock does not hold the compilation.
    assert seconds[-1] < found["compile_seconds"]["sne"]
  assert ours[0]["validation_mse"] != ours[1]["validation_mse"]
  # 4 trainings of the peer and its first batches.
  assert len(calls) == 5
  summary = found["summary"]
  assert [row["nfn_seconds"] for row in summary["seeds"]] == [4.0, 4.0]
  assert [row["nfn_schedule"] for row in summary["seeds"]] == [
    "NFN-HNP, 2 epochs"
  ] * 2
  out = capsys.readouterr().out
  assert "SNE compiles for" in out
  assert "GFLOP/s before" in out


def test_a_compilation_under_the_clock_is_an_error(monkeypatch):
  class Racer:
    programs = 0

    def __init__(self, options, data):
      del options, data

    def warm_up(self):
      return 0.0

    def race(self, seed):
      Racer.programs += 1
      return race("SNE", [(1.0, 1.0)], seed)

    def num_compilations(self):
      return Racer.programs

  monkeypatch.setattr(members, "gathered", lambda options: tiny_data())
  monkeypatch.setattr(time_to_accuracy, "SneRacer", Racer)
  with pytest.raises(RuntimeError, match="compiled again"):
    time_to_accuracy.compare(
      tiny_options(),
      time_to_accuracy.RaceOptions(nfn_epochs="1", peak_size=64),
      nfn_train=fake_peer([]),
    )


def test_another_backend_is_refused(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  with pytest.raises(ValueError, match="JAX_PLATFORMS=cpu"):
    time_to_accuracy.check(tiny_options())


def test_every_option_can_become_a_flag():
  values = flags.FlagValues()
  config.define_flags(
    time_to_accuracy.RaceOptions,
    *shapes.options_lib.CLASSES,
    prefixes=shapes.options_lib.PREFIXES,
    flag_values=values,
  )
  names = {f.name for f in dataclasses.fields(time_to_accuracy.RaceOptions)}
  assert all(name in values for name in names)
