"""What a sweep varies: lists, ranges, draws, and what it refuses."""

import json
import pathlib

import numpy as np
import optuna
import pytest
from absl import flags

from experiments.sweeping import runs
from sne_jax.cli import config
from sne_jax.cli.sweeping import plan as plan_lib
from sne_jax.cli.sweeping import space

ROOT = pathlib.Path(__file__).parents[3]
SWEEPS = sorted((ROOT / "experiments" / "flags" / "sweeps").glob("*.flags"))


def defined():
  values = flags.FlagValues()
  runs.define_flags(values)
  return values


def plan(*arguments):
  values = defined()
  config.parse(["sweep.py", *arguments], values)
  return plan_lib.make(runs.SUBJECT, values)


def changes(*arguments):
  return list(plan(*arguments).planned)


def options(*arguments):
  asked = plan(*arguments)
  return [asked.options(*each) for each in enumerate(asked.planned)]


def test_a_grid_has_every_combination_with_values_of_the_right_type():
  found = changes(
    "--grid= head_width = 8,16; encoder=sne, nft;augment_signs=true,false;"
  )
  assert len(found) == 8
  assert len({json.dumps(each) for each in found}) == 8
  assert found[0] == {"augment_signs": True, "encoder": "sne", "head_width": 8}
  assert found[1] == found[0] | {"head_width": 16}
  assert found[7]["augment_signs"] is False
  assert type(found[7]["head_width"]) is int
  assert changes("--grid=learning_rate=1e-3,1") == [
    {"learning_rate": 0.001},
    {"learning_rate": 1.0},
  ]


def test_trials_differ_in_the_swept_options_and_their_folder_alone():
  one, two = options(
    "--grid=learning_rate=1e-3,1e-2", "--workdir=w", "--title=T", "--width=48"
  )
  assert (one.run.workdir, two.run.workdir) == (
    "w/trials/0000",
    "w/trials/0001",
  )
  assert two.run.title == "T: trial 1"
  assert two.sne.width == 48
  assert two.optimizer.learning_rate == 0.01
  same = two.replaced(
    workdir="w/trials/0000", title="T: trial 0", learning_rate=0.001
  )
  assert same == one


def test_options_of_encoders_are_swept_by_their_names():
  trials = options("--grid=nfn_channels=4,8", "--encoder=nfn_np", "--width=32")
  found = [trial.encoder_options("nfn_np").channels for trial in trials]
  assert found == [4, 8]
  assert {trial.sne.width for trial in trials} == {32}


def test_options_of_an_encoder_without_a_trial_are_not_swept():
  with pytest.raises(
    ValueError, match="stat_width is an option of stat_nn and"
  ):
    plan("--grid=stat_width=4,8", "--encoder=mlp")
  swept = plan(
    "--grid=encoder=sne,stat_nn;stat_width=4,8", "--encoder_option=mlp_width=7"
  )
  text = swept.flagfile()
  assert "stat_layers" in text
  assert "mlp_width" not in text


def test_swept_options_need_not_fit_the_others_unswept():
  (trial,) = options("--grid=heads=5", "--width=65")
  assert (trial.sne.heads, trial.sne.width) == (5, 65)


RANDOM = "--random=learning_rate=log:1e-4:1e-2;head_width=uniform:1:4"


def test_a_draw_depends_on_seed_and_number_alone():
  few, many = changes(RANDOM, "--num_trials=3"), changes(RANDOM)
  assert many[:3] == few
  assert len({each["learning_rate"] for each in many}) == 16
  turned = "--random=head_width=uniform:1:4;learning_rate=log:1e-4:1e-2"
  assert changes(turned) == many
  other = changes(RANDOM, "--sweep_seed=1")
  assert all(a != b for a, b in zip(other, many, strict=True))


def test_draws_are_within_their_range_and_of_its_shape():
  text = "learning_rate=log:1e-4:1e-2;head_width=uniform:1:3;encoder=sne,nft"
  kinds = {"learning_rate": float, "head_width": int, "encoder": str}
  asked = space.parse("random", text, kinds, ())
  draws = [space.draw(asked, 0, number) for number in range(600)]
  column = lambda name: np.array([each[name] for each in draws])
  rate = np.log10(column("learning_rate"))
  assert rate.min() >= -4
  assert rate.max() <= -2
  # Tolerances: about three deviations of the mean of 600 draws.
  np.testing.assert_allclose(rate.mean(), -3, atol=0.071)
  counts = np.bincount(column("head_width"), minlength=4)
  assert counts[0] == 0
  np.testing.assert_allclose(counts[1:] / 600, 1 / 3, atol=0.058)
  assert abs(np.mean(column("encoder") == "nft") - 0.5) < 0.062


def test_the_samplers_are_those_of_the_flags():
  lists = "head_width=8,16;learning_rate=1e-3,1e-2"
  assert changes(f"--random={lists}", "--sampler=grid") == changes(
    f"--grid={lists}"
  )
  drawn = changes(f"--grid={lists}", "--sampler=random", "--num_trials=7")
  assert drawn == changes(f"--random={lists}", "--num_trials=7")
  tpe = plan(RANDOM, "--sampler=tpe", "--num_trials=7")
  assert tpe.planned == ({},) * 7  # They depend on results.
  assert tpe.identity() != plan(RANDOM).identity()
  assert isinstance(tpe.sampler(0), optuna.samplers.TPESampler)


def test_what_makes_two_sweeps_the_same():
  base = plan("--grid=head_width=8,16;learning_rate=1e-3", "--seeds=1")
  for same in (
    ("--grid=learning_rate=0.001;head_width=8, 16", "--seeds=4"),
    ("--grid=head_width=8,16;learning_rate=1e-3", "--head_width=99"),
    ("--grid=head_width=8,16;learning_rate=1e-3", "--num_trials=99"),
    ("--grid=head_width=8,16;learning_rate=1e-3", "--pruner=median"),
  ):
    found = plan(*same).identity()
    for name in ("seeds", "workdir", "title"):
      found["RunOptions"][name] = base.identity()["RunOptions"][name]
    assert found == base.identity()
    assert plan(*same).planned == base.planned
  for other in (
    ("--grid=head_width=8,32;learning_rate=1e-3", "--seeds=1"),
    ("--grid=head_width=16,8;learning_rate=1e-3", "--seeds=1"),
    ("--grid=head_width=8,16;learning_rate=1e-3", "--seeds=1", "--width=8"),
    ("--random=head_width=8,16;learning_rate=1e-3", "--seeds=1"),
  ):
    assert plan(*other).identity() != base.identity()
  drawn = plan(RANDOM)
  assert plan(RANDOM, "--sweep_seed=1").identity() != drawn.identity()
  assert plan(RANDOM, "--num_trials=2").identity() == drawn.identity()


def test_the_flagfile_gives_the_same_sweep(tmp_path):
  one = plan(RANDOM, "--title=T", "--gpus_per_trial=0.5", "--workdir=w")
  (tmp_path / "flags.txt").write_text(one.flagfile())
  assert plan(f"--flagfile={tmp_path / 'flags.txt'}") == one


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_flagfiles_resolve(path, monkeypatch):
  monkeypatch.chdir(ROOT)
  found = plan(f"--flagfile={path}")
  assert str(found.workdir) == f"runs/sweep_{path.stem}"
  assert len(found.planned) > 4


def test_there_is_an_example():
  assert "quickstart" in {path.stem for path in SWEEPS}


def test_the_options_of_a_task_cannot_be_swept():
  names = set(runs.swept_fields())
  assert names >= {"learning_rate", "head_width", "encoder", "chunk_size"}
  assert not names & {"workdir", "zoo", "split", "targets", "first_seed"}
  assert not any(name.startswith("zoo_") for name in names)


def test_values_are_shown_as_flags():
  shown = space.show_all({"a": True, "b": 0.00123456, "c": "x", "d": 3})
  assert shown == "a=true, b=0.001235, c=x, d=3"


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (["--grid=learning_rat=1"], "did you mean learning_rate?"),
    (["--grid=quark=1"], "no option is called 'quark'"),
    (["--grid=sweep_seed=1"], "sweep_seed cannot be swept"),
    (["--grid=split_seed=1,2"], "judged on different networks"),
    (["--grid=workdir=a,b"], "workdir cannot be swept"),
    (["--grid=target_scale=log,linear"], "target_scale cannot be swept"),
    (["--grid=zoo_hidden=4,8"], "zoo_hidden cannot be swept"),
    (["--grid=head_width=4.5"], "head_width cannot be '4.5'"),
    (["--grid=augment_signs=maybe"], "augment_signs cannot be 'maybe'"),
    (["--grid=learning_rate=1e-3,,1"], "learning_rate cannot be ''"),
    (["--grid=learning_rate=1e-3,0.001"], "the value 0.001 twice"),
    (["--grid=learning_rate=1;learning_rate=2"], "learning_rate twice"),
    (["--grid=learning_rate"], "write it as option=value"),
    (["--grid= ; "], "name at least one option"),
    (["--grid=learning_rate=log:1e-3:1"], "list its values, or use --random"),
    (
      ["--random=learning_rate=log:1e-3:1", "--sampler=grid"],
      "learning_rate is a range; list its values",
    ),
    (["--grid=head_width=4", "--sampler=best"], "sampler is 'best'; choose"),
    (["--grid=head_width=4", "--pruner=rose"], "pruner is 'rose'; choose"),
    (["--random=head_width=uniform:1.5:4"], "takes whole numbers"),
    (["--random=encoder=log:1:2"], "encoder is no number"),
    (["--random=learning_rate=log:0:1"], "must rise, from above 0 if log"),
    (["--random=learning_rate=log:1"], "with two numbers"),
    ([], "give one of them"),
    (["--grid=head_width=1", "--random=head_width=1"], "give one of them"),
    (
      ["--grid=width=64,65", "--heads=4"],
      "trial 1 (width=65): width 65 is not a multiple of heads 4",
    ),
    (["--grid=encoder=sne,snee"], "encoder is 'snee'; choose one of"),
    (["--grid=learning_rate=1,nan"], "trial 1 (learning_rate=nan): learning"),
    (["--grid=head_width=4", "--variants=components"], "leave it empty"),
    (["--grid=head_width=4", "--metric=beauty"], "metric is 'beauty'"),
    (["--grid=head_width=4", "--metric="], "metric is ''"),
    (["--grid=head_width=4", "--gpus_per_trial=1.5"], "a share of one GPU"),
    (["--grid=head_width=4", "--gpus_per_trial=nan"], "must be at least 0"),
    (["--grid=head_width=4", "--retries=-1"], "retries is -1"),
    (["--grid=head_width=4", "--cpus_per_trial=0"], "cpus_per_trial is 0"),
    (["--random=head_width=4,5", "--num_trials=0"], "num_trials is 0"),
    (["--grid=head_width=4", "--address="], "address is empty"),
  ],
)
def test_what_is_refused(arguments, words):
  with pytest.raises(ValueError) as caught:  # noqa: PT011
    plan(*arguments)
  assert words in str(caught.value)
