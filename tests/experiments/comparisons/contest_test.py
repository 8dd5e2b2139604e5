"""Encoders compared with an equal search: who is chosen, and the table."""

import json
import pathlib

import pytest

from experiments.comparisons import contest
from sne_jax.learning.objectives import invariance
from sne_jax.networks import families

ROOT = pathlib.Path(__file__).parents[3]
FLAGS = ("--rates=1e-2,1e-3", "--encoders=stat_pool,deep_sets:7")
LABELS = [
  f"{encoder}, rate {rate}"
  for encoder in ("stat_pool", "deep_sets")
  for rate in ("0.01", "0.001")
]


def outcome(val, test=0.0, seeds=1):
  parts = {"val": {"mse": {"value": val}}, "test": {"mse": {"value": test}}}
  return {"seeds": [{"seed": n, "metrics": parts} for n in range(seeds)]}


def test_every_encoder_has_the_same_search(resolve):
  options = resolve(*FLAGS, "--num_steps=5", "--workdir=w")
  found = contest.chosen(options)
  assert list(found) == LABELS
  assert [o.train.num_steps for o in found.values()] == [5, 5, 7, 7]
  rates = [o.optimizer.learning_rate for o in found.values()]
  assert rates == [1e-2, 1e-3] * 2
  assert {o.run.seeds for o in found.values()} == {1}
  assert {o.run.rates for o in found.values()} == {""}
  assert [o.run.references for o in found.values()] == [True] + [False] * 3


def test_only_learned_inputs_have_the_rate_of_learned_inputs(resolve):
  flags = ("--rates=1e-2,1e-3", "--encoders=stat_pool,neural_graph:7")
  probes = "--encoder_option=graph_probes=3"
  options = resolve(*flags, probes, "--probe_rate=0.1", "--workdir=w")
  found = contest.chosen(options)
  assert [o.optimizer.probe_rate for o in found.values()] == [0, 0, 0.1, 0.1]


def test_validation_chooses_and_the_test_part_does_not(resolve):
  options = resolve(*FLAGS, "--seeds=3", "--workdir=w")
  values = (0.5, 0.4, 0.1, 0.2)
  outcomes = {
    label: outcome(value, test=1 - value)
    for label, value in zip(LABELS, values, strict=True)
  }
  won = contest.winners(options, outcomes)
  assert won == {"stat_pool": 1e-3, "deep_sets": 1e-2}
  finals = contest.finals(options, outcomes)
  assert list(finals) == [LABELS[1], LABELS[2]]
  assert {o.run.seeds for o in finals.values()} == {3}
  # The same folder, so the seed of the search is not trained again.
  first = contest.chosen(options)
  for label, changed in finals.items():
    assert changed.run.workdir == first[label].run.workdir


def test_a_short_search_has_folders_of_its_own(resolve):
  options = resolve(
    *FLAGS, "--seeds=3", "--num_steps=40", "--search_share=0.25", "--workdir=w"
  )
  first = contest.chosen(options)
  assert [o.train.num_steps for o in first.values()] == [10, 10, 2, 2]
  outcomes = {label: outcome(0.1) for label in first}
  finals = contest.finals(options, outcomes)
  assert [o.train.num_steps for o in finals.values()] == [40, 7]
  folders = {o.run.workdir for o in (*first.values(), *finals.values())}
  assert len(folders) == 6


def test_a_rank_correlation_is_to_be_high(resolve):
  options = resolve(*FLAGS, "--monitor=kendall_tau", "--workdir=w")
  outcomes = {
    label: {
      "seeds": [
        {"seed": 0, "metrics": {"val": {"kendall_tau": {"value": value}}}}
      ]
    }
    for label, value in zip(LABELS, (0.1, 0.9, 0.8, None), strict=True)
  }
  won = contest.winners(options, outcomes)
  assert won == {"stat_pool": 1e-3, "deep_sets": 1e-2}


def test_a_training_that_diverged_never_wins(resolve):
  options = resolve(*FLAGS, "--workdir=w")
  outcomes = {label: outcome(0.3) for label in LABELS}
  outcomes[LABELS[0]] = {"seeds": [{"seed": 0, "failed": "loss is nan"}]}
  outcomes[LABELS[3]] = outcome(float("nan"))
  won = contest.winners(options, outcomes)
  assert won == {"stat_pool": 1e-3, "deep_sets": 1e-2}


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (("--rates=fast",), "rates must be numbers above 0"),
    (("--rates=1e-3,-1",), "rates must be numbers above 0"),
    (("--rates=1e-3,0.001",), "rates names one twice"),
    (("--rates=1e-3", "--encoders=snr"), "encoders names 'snr'"),
    (("--rates=1e-3", "--matrix=each"), "keep one of them"),
    (("--rates=1e-3", "--targets=a,b"), "name one"),
  ],
)
def test_what_is_refused(resolve, flags, words):
  with pytest.raises(ValueError, match=words):
    contest.chosen(resolve("--workdir=w", *flags))


def test_all_names_every_encoder(resolve):
  steps = resolve("--rates=1e-3", "--encoders=all").run.encoder_steps
  assert {"sne", "mlp", "dws", "neural_graph"} < set(steps)


@pytest.mark.parametrize(
  "name", ["inr_encoders", "cnn_encoders", "cross_architecture"]
)
def test_tables_have_a_control_without_weights_and_metanetworks(
  name, resolve, monkeypatch
):
  monkeypatch.chdir(ROOT)
  flagfile = f"--flagfile=experiments/flags/{name}.flags"
  steps = resolve(flagfile).run.encoder_steps
  assert {"sne", "architecture", "gmn", "scale_gmn"} <= set(steps)


def test_who_cannot_read_the_zoo_is_said_before_the_first_training(
  launch, tmp_path, write_zoo
):
  write_zoo(tmp_path / "zoo", specs=(families.inr((1, 4, 1)),))
  flags = ("--rates=1e-2", "--encoders=stat_pool,dws")
  ended = launch(tmp_path / "run", tmp_path / "zoo", *flags)
  assert "dws cannot read" in ended.error
  assert not list((tmp_path / "run").glob("*/seed0"))


def test_the_smallest_contest(launch, tiny_zoo, tmp_path, monkeypatch):
  traces, make = [], invariance.make_loss

  def counted(*args, **kwargs):
    loss = make(*args, **kwargs)
    return lambda *given: traces.append(args[0].encoder) or loss(*given)

  monkeypatch.setattr(invariance, "make_loss", counted)
  flags = ("--rates=1e-2,1e-3,1e-4", "--encoders=stat_pool", "--num_steps=2")
  flags += ("--references=true", "--seeds=2")
  ended = launch(tmp_path / "run", tiny_zoo, *flags)
  assert not ended.code, ended.error
  assert len(traces) == 1  # One program for all rates and seeds.
  found = json.loads((tmp_path / "run" / "results.json").read_text())
  won = contest.label("stat_pool", found["winners"]["stat_pool"])
  counts = {n: len(t["seeds"]) for n, t in found["trainings"].items()}
  assert counts.pop(won) == 2 and set(counts.values()) == {1}
  values = {
    name: t["seeds"][0]["metrics"]["val"]["mse"]["value"]
    for name, t in found["trainings"].items()
  }
  assert min(values, key=values.__getitem__) == won
  text = (tmp_path / "run" / "report.md").read_text()
  assert "| stat_pool" in text and "reference: ridge" in text
  assert (tmp_path / "run" / "figures" / "mse.png").stat().st_size
  # A second start trains nothing.
  files = sorted((tmp_path / "run").rglob("result.json"))
  before = [path.stat().st_mtime_ns for path in files]
  assert not launch(tmp_path / "run", tiny_zoo, *flags).code
  assert [path.stat().st_mtime_ns for path in files] == before
