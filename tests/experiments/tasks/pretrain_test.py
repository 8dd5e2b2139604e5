"""Pretraining without labels, probes of its codes, and what begins with it."""

import dataclasses
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from absl import flags as absl_flags

from experiments.tasks import members, pretrain
from sne_jax import errors
from sne_jax.cli import config, memory
from sne_jax.cli.commands import encode
from sne_jax.learning.evaluation import metrics
from sne_jax.learning.selfsup import pretraining
from sne_jax.learning.training import train_state
from sne_jax.networks import families
from sne_jax.zoo import batching
from sne_jax.zoo.store import writing

SMALL = {
  "sane": (
    *("--pretrain=sane", "--sane_width=8", "--sane_hidden=16"),
    *("--sane_blocks=1", "--sane_heads=2", "--pretrain_window=6"),
    *("--pretrain_align", "--pretrain_canonical_first"),
    *("--schedule=one_cycle", "--beta1=0.95", "--beta1_low=0.85"),
    *("--view_relative_noise=0.1", "--loss_gamma=0.02"),
  ),
  "hyper_representation": (
    *("--pretrain=hyper_representation", "--hyper_width=4"),
    *("--hyper_token_width=8", "--hyper_blocks=1", "--hyper_heads=2"),
    *("--hyper_feed_forward=8", "--pretrain_head_layers=1"),
    "--view_erase=0.5",
  ),
  "sne": (
    "--pretrain=sne",
    "--pretrain_head_width=8",
    "--view_relative_noise=0.3",
  ),
}
SIZES = ("--train_members=14", "--validation_members=5", "--test_members=5")
EXTRA = ("--learning_rate=2e-2", "--pretrain_projection=6")


@pytest.fixture(scope="module")
def trained(launch, tiny_zoo, tmp_path_factory):
  """Returns `trained(name) -> folder`; each is trained once."""
  root, done = tmp_path_factory.mktemp("pretrained"), {}

  def of(name):
    if name not in done:
      folder = root / name
      ended = launch(
        *(folder, tiny_zoo, *SMALL[name], *EXTRA),
        *("--num_steps=150", "--eval_every=25", "--save_every=50"),
      )
      assert ended.code == 0, ended.err
      done[name] = folder
    return done[name]

  return of


def values_of(folder, name):
  lines = (folder / "seed0" / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  return [row[name] for row in rows if name in row]


@pytest.mark.parametrize(
  "name",
  [
    pytest.param("sane", marks=pytest.mark.slow),
    "sne",
    pytest.param("hyper_representation", marks=pytest.mark.slow),
  ],
)
def test_the_smallest_run(name, trained):
  folder = trained(name)
  losses = values_of(folder, "train/loss")
  assert np.mean(losses[-10:]) < np.mean(losses[:10])
  results = json.loads((folder / "results.json").read_text())
  assert np.isfinite(results["summary"]["frequency r_squared"]["mean"])
  text = (folder / "report.md").read_text()
  assert "frequency kendall_tau" in text
  assert (folder / "figures" / "learning_curves.png").exists()
  assert ("## Reconstruction" in text) == (name != "sne")
  with np.load(folder / "seed0" / "codes.npz") as codes:
    assert {p: len(codes[p]) for p in codes} == {
      **{"train": 14, "val": 5, "test": 5}
    }
  best = min(values_of(folder, "val/loss"))
  assert json.loads((folder / "seed0" / "result.json").read_text())[
    "val_loss"
  ] == pytest.approx(best)  # Validation loss has chosen.


def test_an_autoencoder_beats_the_mean_network(trained):
  results = json.loads((trained("sane") / "results.json").read_text())
  assert results["reconstruction"]["test"]["all"]["mean"] > 0


def test_what_was_trained_can_be_loaded(trained, tiny_zoo):
  own = pretraining.Pretrained.load(trained("sane") / "seed0")
  rng = np.random.default_rng(0)
  weights = rng.normal(size=(3, own.spec.num_weights)).astype(np.float32)
  x = own.prepare(weights)
  assert own.encode(weights).shape == (3, 8)
  assert own.method.reconstruct(own.params, x).shape == x.shape
  # Restored, they are the networks again, in the order of the reference.
  again = np.sort(own.restore(x), axis=1)
  np.testing.assert_allclose(again, np.sort(weights, axis=1), atol=1e-5)


def test_files_are_encoded_by_what_was_pretrained(trained, tmp_path):
  own = pretraining.Pretrained.load(trained("sane") / "seed0")
  rng = np.random.default_rng(0)
  weights = rng.normal(size=(2, own.spec.num_weights)).astype(np.float32)
  names = [f"fc{n}.{kind}" for n in (1, 2, 3) for kind in ("weight", "bias")]
  for number, row in enumerate(weights):
    arrays = map(np.asarray, own.spec.unflatten(row).values())
    np.savez(
      tmp_path / f"{number}.npz", **dict(zip(names, arrays, strict=True))
    )
  np.savez(tmp_path / "other.npz", **{"fc1.weight": np.zeros((3, 2))})
  out = tmp_path / "codes.csv"
  values = absl_flags.FlagValues()
  config.define_flags(*encode.CLASSES, flag_values=values)
  arguments = [f"--out={out}", f"--workdir={trained('sane')}", str(tmp_path)]
  left = config.parse(["encode.py", *arguments], values, positional=True)
  assert encode.main(left, values) == 1  # One is of another architecture.
  rows = np.loadtxt(out, delimiter=",", skiprows=1, usecols=range(1, 9))
  np.testing.assert_allclose(rows, own.encode(weights), atol=1e-5)
  with pytest.raises(ValueError, match="reads networks whole"):
    encode.opened(
      memory.ModelOptions(workdir=str(trained("sane")), memory_limit="1GiB")
    )


def test_what_has_not_finished_or_is_damaged_is_named(trained, tmp_path):
  run = pathlib.Path(shutil.copytree(trained("sane"), tmp_path / "run"))
  seed = run / "seed0"
  (run / "results.json").unlink()
  with pytest.raises(ValueError, match="run has not finished"):
    pretraining.load_all(run)
  assert len(pretraining.load_all(seed)) == 1
  good = (seed / pretraining.FILE).read_text()
  for text, words in (
    (good[:100], "is damaged .*; restore it, or remove its folder"),
    ("[]", "is damaged"),
    ("{}", "describes nothing that this version of sne_jax can build"),
  ):
    (seed / pretraining.FILE).write_text(text)
    with pytest.raises(errors.DamagedError, match=r"pretrained\.json: changed"):
      pretraining.load_all(seed)
    with pytest.raises(ValueError, match=words):
      pretraining.Pretrained.load(seed, verify=False)
  (seed / "result.json").unlink()
  with pytest.raises(ValueError, match="seed0 has not finished"):
    pretraining.Pretrained.load(seed)


@pytest.mark.slow
def test_a_run_that_stopped_continues_to_the_same_bits(
  launch, trained, tiny_zoo, tmp_path, monkeypatch
):
  flags = (*SMALL["sane"], *EXTRA, "--num_steps=150")
  flags = (*flags, "--eval_every=25", "--save_every=50")
  calls = []
  original = batching.batch_rows

  def breaking(*args):
    calls.append(args)
    if len(calls) > 90:
      raise KeyboardInterrupt
    return original(*args)

  folder = tmp_path / "run"
  monkeypatch.setattr(batching, "batch_rows", breaking)
  assert launch(folder, tiny_zoo, *flags).code == 130
  assert not (folder / "seed0" / "result.json").exists()
  monkeypatch.undo()
  assert launch(folder, tiny_zoo, *flags).code == 0
  with (
    np.load(folder / "seed0" / "codes.npz") as one,
    np.load(trained("sane") / "seed0" / "codes.npz") as other,
  ):
    for part in one:
      np.testing.assert_array_equal(one[part], other[part])


def test_labels_of_the_test_part_touch_nothing(resolve, tiny_zoo):
  options = resolve(f"--zoo={tiny_zoo}", "--pretrain=weights", *SIZES)
  data = members.gathered(options)
  rng = np.random.default_rng(0)
  codes = {p: rng.normal(size=(n, 3)) for p, n in data.sizes().items()}
  before = pretrain.probed(options, data, codes)

  def shuffled(part):
    networks = data.parts[part]
    targets = rng.permutation(networks.targets)
    return data.parts | {part: dataclasses.replace(networks, targets=targets)}

  find = lambda part: pretrain.probed(
    options, dataclasses.replace(data, parts=shuffled(part)), codes
  )
  after = find("test")
  assert after["penalties"] == before["penalties"]
  assert after["metrics"]["val"] == before["metrics"]["val"]
  # The control: those of training do.
  assert find("train")["metrics"]["val"] != before["metrics"]["val"]


def test_every_seed_draws_its_split_by_network(resolve, write_zoo, tmp_path):
  zoo = write_zoo(
    tmp_path / "zoo",
    properties={
      "frequency": writing.Property(np.arange(24.0), "a number"),
      "network": writing.Property(np.arange(24) // 3, "of three snapshots"),
    },
  )
  data = members.gathered(resolve(f"--zoo={zoo.path}", *SIZES))
  one, other = (members.resplit(data, seed) for seed in (0, 1))
  assert one.members["test"].row.tolist() != other.members["test"].row.tolist()
  for drawn in (one, other):
    rows = {p: set(drawn.members[p].row.tolist()) for p in members.PARTS}
    assert len(set.union(*rows.values())) == sum(map(len, rows.values()))
    runs = [{row // 3 for row in own} for own in rows.values()]
    assert not runs[0] & runs[1] and not runs[0] & runs[2]
    assert not runs[1] & runs[2]
    for part in members.PARTS:  # Targets and weights go with their rows.
      own = drawn.parts[part]
      found = zip(drawn.members[part].row, own.vectors, strict=True)
      for place, (row, vector) in enumerate(found):
        assert own.targets[place, 0] == row
        np.testing.assert_array_equal(vector, zoo.vectors([int(row)])[0])


@pytest.mark.parametrize("name", ["statistics", "pca", "weights"])
def test_baselines_find_what_is_in_the_weights(
  name, launch, tiny_zoo, tmp_path
):
  ended = launch(tmp_path / "run", tiny_zoo, f"--pretrain={name}")
  assert ended.code == 0, ended.err
  results = json.loads((tmp_path / "run" / "results.json").read_text())
  found = results["summary"]["frequency r_squared"]["mean"]
  if name == "statistics":  # Sizes of weights make the target.
    assert found > 0.5


def test_probes_are_compared_in_one_table(
  launch, tiny_zoo, write_zoo, tmp_path
):
  other = write_zoo(tmp_path / "other", seed=1)
  small = tmp_path / "small.flags"
  small.write_text("--pretrain=pca\n--pretrain_components=3\n")
  flags = (
    *(f"--probes=statistics,{small}", f"--test_zoos={other.path}"),
    *("--seeds=2", "--pretrain_resplit", "--num_steps=4"),
  )
  ended = launch(tmp_path / "run", tiny_zoo, *flags)
  assert ended.code == 0, ended.err
  text = (tmp_path / "run" / "report.md").read_text()
  for words in ("## test\n", "## test on other", "| statistics", "| small"):
    assert words in text
  found = json.loads((tmp_path / "run" / "results.json").read_text())
  row = found["probes"]["statistics"]["summaries"]["test"]
  assert row["frequency r_squared"]["count"] == 2
  seeds = found["probes"]["statistics"]["seeds"]
  values = [s["metrics"]["test"]["frequency r_squared"] for s in seeds]
  assert row["frequency r_squared"] == pytest.approx(
    metrics.mean_interval([v["value"] for v in values])
  )
  # What has finished is not done again.
  stamp = (tmp_path / "run" / "small" / "seed0" / "result.json").stat()
  with np.load(tmp_path / "run" / "small" / "seed0" / "codes.npz") as codes:
    assert codes["test"].shape[1] == 3
  assert launch(tmp_path / "run", tiny_zoo, *flags).code == 0
  again = (tmp_path / "run" / "small" / "seed0" / "result.json").stat()
  assert again.st_mtime_ns == stamp.st_mtime_ns


def test_an_encoder_begins_with_pretrained_parameters(
  launch, trained, tiny_zoo, tmp_path
):
  begin = f"--init_from={trained('sne')}"
  still = ("--learning_rate=1e-30", "--num_steps=1", "--weight_decay=0")
  still = (*still, "--ema_decay=0")
  found = {}
  for label, flags in {"with": (begin,), "without": ()}.items():
    ended = launch(tmp_path / label, tiny_zoo, *still, *flags)
    assert ended.code == 0, ended.err
    params, _ = train_state.load_best(tmp_path / label / "seed0")
    found[label] = params["params"]
  there, _ = train_state.load_best(trained("sne") / "seed0")
  there = there["params"]

  def same(one, other):
    pairs = zip(leaves(one), leaves(other), strict=True)
    return all(np.abs(a - b).max() < 1e-20 for a, b in pairs)  # Biases: 0.

  assert same(found["with"]["encoder"], there["encoder"])
  assert not same(found["without"]["encoder"], there["encoder"])  # Control.
  assert same(found["with"]["logits"], found["without"]["logits"])  # New head.


def leaves(tree):
  if isinstance(tree, dict):
    return [leaf for key in sorted(tree) for leaf in leaves(tree[key])]
  return [np.asarray(tree)]


@pytest.mark.parametrize(
  ("of", "flags", "words"),
  [
    ("sne", ("--width=16",), "width is 8 in .*, and 16 here; set width to 8"),
    ("sane", (), "holds a pretraining of sane, and the encoder is sne"),
    ("nothing", (), "holds no pretrained.json; pretrain sne"),
    (
      *("sne", ("--split=another", "--split_seed=3")),
      "was pretrained on .* of the networks that are now tested on",
    ),
  ],
)
def test_what_cannot_be_begun_with(of, flags, words, launch, trained, own_zoo):
  folder = own_zoo.parent / "nothing"
  folder = folder if of == "nothing" else trained(of)
  run = own_zoo.parent / "run"
  ended = launch(run, own_zoo, f"--init_from={folder}", *flags)
  assert re.search(words, ended.error), ended.error


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (("--pretrain_table_tokens=3",), "the table of token positions has 3"),
    (
      ("--pretrain_whole", "--pretrain_window=4"),
      "tokens, more than the 4 of the window",
    ),
    (("--monitor=kendall_tau",), "monitor is 'kendall_tau', but pretraining"),
    (("--pretrain=autoencoder",), "pretrain is 'autoencoder'; choose one of"),
    (("--batch_size=1",), "batch_size is 1 over 1 devices; contrast needs"),
    (("--batch_size=99",), "batch_size is 99, but there are"),
    (
      ("--probes=,", "--pretrain="),
      "probes is ',' and names ''; choose",
    ),
    (("--probes=pca",), "probes is pca and pretrain is sane; a run is"),
    (("--micro_batches=2",), "micro_batches is 2, but pretraining contrasts"),
    (("--loss=classes", "--targets=dataset"), "linear probes predict numbers"),
    (("--init_from=x",), "init_from is 'x', but what is trained is sane"),
    (("--probes=sane,what",), "names 'what'; choose of"),
    (("--view_erase=2",), "erase is 2.0; must be at least 0 and at most 1"),
  ],
)
def test_bad_options_end_in_one_line(flags, words, launch, tiny_zoo, tmp_path):
  ended = launch(tmp_path / "run", tiny_zoo, *SMALL["sane"], *flags)
  assert words in ended.error


def test_networks_of_another_architecture_are_named(
  launch, tiny_zoo, write_zoo, tmp_path
):
  other = write_zoo(tmp_path / "wide", specs=(families.inr((1, 5, 4, 1)),))
  ended = launch(
    *(tmp_path / "run", tiny_zoo, *SMALL["sane"], f"--test_zoos={other.path}")
  )
  assert "but wide has" in ended.error


def test_flagfiles_resolve(resolve, monkeypatch):
  root = pathlib.Path(__file__).parents[3]
  monkeypatch.chdir(root)
  paths = sorted((root / "experiments" / "flags").rglob("selfsup/*.flags"))
  assert len(paths) >= 7
  for path in paths:
    options = resolve(f"--flagfile={path}")
    assert options.run.workdir == f"runs/selfsup/{path.stem}"
    run = options.run
    asked = (run.pretrain, run.probes, run.variants, run.sample_from)
    assert any(asked), path
