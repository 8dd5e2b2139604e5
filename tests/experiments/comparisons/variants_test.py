"""Lists of variants and flagfiles: all resolve, build, and differ."""

import collections
import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from experiments.comparisons import variants
from sne_jax.cli import config
from sne_jax.encoders.responses import seen as seen_lib
from sne_jax.encoders.sne import options as sne_options
from sne_jax.learning.evaluation import references
from sne_jax.learning.training import loop, program
from sne_jax.networks import chunking, families, scales

ROOT = pathlib.Path(__file__).parents[3]
FLAGFILES = sorted((ROOT / "experiments" / "flags").glob("*.flags"))
LABELS = [
  (name, label) for name in variants.LISTS for label in variants.LISTS[name]
]
SPEC = families.inr((1, 4, 1))


def distinct_models():
  """One variant for each different model: training options build nothing."""
  found = {}
  for name, label in LABELS:
    changes = variants.LISTS[name][label]
    kept = {
      k: v
      for k, v in changes.items()
      if k not in ("invariance_weight", "train_share", "augment_signs")
    }
    found.setdefault(json.dumps(kept, sort_keys=True), (name, label))
  return sorted(found.values())


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda p: p.stem)
def test_flagfiles_resolve(path, resolve, monkeypatch):
  monkeypatch.chdir(ROOT)
  options = resolve(f"--flagfile={path}")
  assert options.run.title != type(options.run)().title
  assert options.run.workdir == f"runs/{path.stem}"
  asked = options.run.train_members + options.run.validation_members
  assert asked + options.run.test_members <= options.zoo.num_networks
  if options.run.variants:
    assert variants.chosen(options)


def test_the_published_preset_is_its_flagfile(resolve, monkeypatch):
  monkeypatch.chdir(ROOT)
  options = resolve("--flagfile=experiments/flags/shared/published.flags")
  preset = sne_options.SNEOptions.published()
  assert sne_options.SNEOptions.published(width=16) == dataclasses.replace(
    preset, width=16
  )
  # A tile changes no number.
  assert dataclasses.replace(options.sne, chunk_tile=0) == preset
  assert options.chunk == chunking.ChunkOptions.published()
  paper = resolve("--flagfile=experiments/flags/paper.flags")
  assert (paper.sne, paper.chunk) == (options.sne, options.chunk)
  assert paper.invariance.invariance_weight == 1
  assert not paper.data.augment_signs
  ours = resolve("--flagfile=experiments/flags/inr_frequency.flags")
  assert ours.sne == sne_options.SNEOptions()
  assert ours.chunk == chunking.ChunkOptions()
  assert ours.data.augment_signs
  assert (paper.zoo, paper.train) == (ours.zoo, ours.train)


def test_flagfiles_are_those_that_are_promised():
  names = {path.stem for path in FLAGFILES}
  assert names >= {"quickstart", "inr_frequency", "components", "chunk_size"}
  assert "data_efficiency" in names


@pytest.mark.slow
def test_every_list_has_a_flagfile(resolve, monkeypatch):
  monkeypatch.chdir(ROOT)
  paths = (ROOT / "experiments" / "flags").rglob("selfsup/*.flags")
  paths = [*FLAGFILES, *paths]
  named = {resolve(f"--flagfile={p}").run.variants for p in paths}
  assert named - {""} == set(variants.LISTS)


@pytest.mark.slow
def test_variants_of_one_task_share_its_zoo(resolve, monkeypatch):
  monkeypatch.chdir(ROOT)
  folder = ROOT / "experiments" / "flags"
  bases = {
    begins: resolve(f"--flagfile={folder / name}.flags")
    for begins, name in (
      ("cnn_", "properties/epoch"),
      ("response", "responses"),
      ("", "inr_frequency"),
    )
  }
  for path in FLAGFILES:
    options = resolve(f"--flagfile={path}")
    if options.run.variants:
      base = next(b for n, b in bases.items() if path.stem.startswith(n))
      assert options.zoo == base.zoo
      assert options.run.zoo == base.run.zoo
      for changed in variants.chosen(options).values():
        assert (changed.zoo, changed.run.zoo) == (base.zoo, base.run.zoo)


@pytest.mark.parametrize("name", variants.LISTS)
def test_variants_differ_and_have_folders_of_their_own(
  name, resolve, monkeypatch
):
  monkeypatch.chdir(ROOT)
  [path] = (ROOT / "experiments" / "flags").rglob(f"{name}.flags")
  path = f"--flagfile={path}"
  chosen = variants.chosen(resolve(path, "--workdir=w"))
  assert len({c.run.workdir for c in chosen.values()}) == len(chosen)
  for changed in chosen.values():
    assert changed.run.workdir.startswith("w/")
    assert not changed.run.variants
  computed = set()
  for changed in chosen.values():
    table = config.resolved(*changed.groups())
    for key in ("workdir", "title"):
      del table["RunOptions"][key]
    computed.add(json.dumps(table, sort_keys=True))
  assert len(computed) == len(chosen)


def built():
  """The first variants of every list; with the slow ones, all."""
  seen = collections.Counter()
  for name, label in distinct_models():
    seen[name] += 1
    yield pytest.param(
      name, label, marks=pytest.mark.slow if seen[name] > 2 else ()
    )


@pytest.mark.parametrize(("name", "label"), list(built()))
def test_variants_build(name, label, resolve):
  """Their models encode an INR: traced only, and with few blocks."""
  options = resolve(
    *("--layer_blocks=1", "--network_blocks=1", "--chunk_blocks=1"),
    *("--width=8", "--heads=2", "--identifier_dim=4", f"--variants={name}"),
    *("--linear_rule=neuron", "--conv_rule=neuron", "--chunk_size=6"),
    *(["--init_from=w"] if name == "pretrained_efficiency" else []),
  )
  changed = variants.chosen(options)[label]
  description = {
    "encoder": changed.run.encoder,
    "encoder_options": vars(changed.encoder_options(changed.run.encoder)),
    "chunk_options": vars(changed.chunk),
    "global_scale": 1.0,
    "place_scales": [1.0] * len(scales.PLACES),
    "head": {"hidden_width": 4, "dropout": 0.0},
    "targets": ["frequency"],
    "loss": "mse",
  }
  seen = seen_lib.measure([(SPEC, None)])  # Of those that run networks.
  description |= {**seen, "seen": seen}
  encoder = program.build_encoder(description)
  net = program.build_model(description, encoder)

  def build():
    params = program.init_params(net, encoder, SPEC, 0)
    packed = encoder.make_packer((SPEC,)).pack(
      (0, 0), [np.ones(SPEC.num_weights, np.float32)] * 2
    )
    rngs = {"identifiers": jax.random.key(0)}
    return net.apply(params, packed, True, rngs=rngs)

  logits, codes = jax.eval_shape(build)
  assert logits.shape == (2, 1) and len(codes) == 2
  if changed.run.encoder == "sne":
    assert codes.shape == (2, 8)


def test_replaced_knows_prefixes_and_names_strangers(resolve):
  options = resolve()
  assert options.replaced(zoo_hidden=5).zoo.hidden == 5
  assert options.replaced(width=16).sne.width == 16
  assert options.replaced(width=16).zoo == options.zoo
  with pytest.raises(ValueError, match="no option is called hidden"):
    options.replaced(hidden=5)
  with pytest.raises(ValueError, match="width 9"):
    options.replaced(width=9)


def test_only_some(resolve):
  options = resolve(
    "--variants=index_features", "--only=none; io, logit invariance"
  )
  assert list(variants.chosen(options)) == ["none", "io, logit invariance"]
  with pytest.raises(ValueError, match="no variant .'everything'"):
    variants.chosen(options.replaced(only="everything"))


@pytest.mark.slow
def test_a_later_run_takes_over_what_is_finished(
  launch, tiny_zoo, tmp_path, monkeypatch
):
  fit, titles = loop.fit, []

  def counted(*args, **kwargs):
    titles.append(args[5].parent.name)
    if args[5].parent.name == "gone":
      raise loop.TrainingDiverged(1, float("inf"), "loss is inf")
    return fit(*args, **kwargs)

  monkeypatch.setattr(loop, "fit", counted)
  monkeypatch.setattr(references, "all_references", None)
  lists = {"half": {"train_share": 0.5}, "all": {}, "gone": {"clip_norm": 2.0}}
  monkeypatch.setitem(variants.LISTS, "shares", lists)
  arguments = (tmp_path / "run", tiny_zoo, "--variants=shares")
  ended = launch(*arguments, "--only=half")
  assert ended.code == 0
  assert titles == ["half"]
  ended = launch(*arguments)
  assert ended.code == 0
  assert titles == ["half", "all", "gone"]
  assert ended.out.endswith(f"The report is {tmp_path}/run/report.md\n")
  report = (tmp_path / "run" / "report.md").read_text()
  for words in ("| half ", "| all ", "| gone ", "0 of 1", "shares.png"):
    assert words in report
  assert "**gone, seed 0 failed**: training diverged" in report
  results = json.loads((tmp_path / "run" / "results.json").read_text())
  assert results["variants"]["half"]["sizes"]["train"] == 7
  assert results["variants"]["all"]["sizes"]["train"] == 14
  assert results["variants"]["gone"]["summary"] == {}
  assert results["environment"]["versions"]["jax"]
