"""Training from Python: what goes in, what comes out, what is left behind."""

import dataclasses
import inspect
import json
import os

import jax
import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import safetensors.numpy

import sne_jax
from sne_jax.encoders.baselines import stat_nn
from sne_jax.learning.objectives import invariance
from sne_jax.learning.training import recipe, records, train_state, trainer
from sne_jax.learning.training.loop import TrainingDiverged
from sne_jax.learning.training.optimizers import OptimizerOptions
from sne_jax.networks import families
from sne_jax.zoo import batching
from sne_jax.zoo.store import writing

SPECS = (families.mlp((3, 4, 1)), families.mlp((3, 5, 4, 1)))
TINY = {
  "options": sne_jax.SNEOptions(
    width=8,
    heads=2,
    chunk_function="linear",
    identifiers="none",
    index_features="none",
    layer_function="deepsets",
    layer_blocks=0,
    network_function="deepsets",
    network_blocks=0,
  ),
  "chunks": sne_jax.ChunkOptions(
    chunk_size=8, linear_rule="neuron", conv_rule="neuron"
  ),
  "data": sne_jax.DataOptions(batch_size=4),
  "training": sne_jax.TrainOptions(
    num_steps=8, log_every=2, eval_every=2, save_every=2
  ),
  "devices": 1,
}
STATS = {
  "encoder": "stat_pool",
  "options": stat_nn.StatOptions(width=8),
  "data": TINY["data"],
  "training": TINY["training"],
  "devices": 1,
  "programs": {},
}
"""The encoder that compiles fastest, and once for most of these tests."""


def state_dict(spec, weights):
  """Returns weights under names as PyTorch has them."""
  tensors = spec.unflatten(weights).values()
  names = [
    f"layers.{2 * (n // 2)}.{('weight', 'bias')[n % 2]}"
    for n in range(len(tensors))
  ]
  return dict(zip(names, tensors, strict=True))


@pytest.fixture(scope="module")
def drawn():
  """Networks of two sizes whose property is the size of their weights."""
  rng = np.random.default_rng(0)
  pairs = []
  for n in range(24):
    spec = SPECS[n % 2]
    size = rng.uniform(0.1, 1)
    weights = size * rng.normal(size=spec.num_weights)
    pairs.append((spec, weights.astype(np.float32)))
  values = np.array([float(np.abs(w).mean()) for _, w in pairs])
  return pairs, values


@pytest.fixture(scope="module")
def folder(drawn, tmp_path_factory):
  """The same as state_dicts in files, and a table."""
  path = tmp_path_factory.mktemp("files")
  (path / "nets").mkdir()
  lines = ["file,size,kind"]
  for n, ((spec, weights), value) in enumerate(zip(*drawn, strict=True)):
    name = f"net{n}.safetensors"
    arrays = state_dict(spec, weights)
    safetensors.numpy.save_file(arrays, path / "nets" / name)
    lines.append(f"{name},{float(value)!r},{'big' if value > 0.4 else 'small'}")
  (path / "table.csv").write_text("\n".join(lines) + "\n")
  table = pyarrow.csv.read_csv(path / "table.csv")
  pyarrow.parquet.write_table(table, path / "table.parquet")
  return path


@pytest.fixture(scope="module")
def parts(drawn):
  networks = sne_jax.Networks.of(drawn[0], {"size": drawn[1]})
  return networks.split(0.6, 0.2, seed=1)


@pytest.fixture(scope="module")
def trained(parts):
  train, val, _ = parts
  return sne_jax.fit(train, val, seeds=2, **STATS)


def test_networks_are_the_same_from_everywhere(drawn, folder, tmp_path):
  pairs, values = drawn
  dicts = [state_dict(*pair) for pair in pairs]
  files = sne_jax.Networks.from_files(
    folder / "nets", folder / "table.csv", "size"
  )
  zoo = writing.write_zoo(
    tmp_path / "zoo",
    specs=SPECS,
    weights=[np.stack([w for s, w in pairs if s == own]) for own in SPECS],
    ids=[f"m{n}" for n in range(24)],
    spec_numbers=[n % 2 for n in range(24)],
    rows=[n // 2 for n in range(24)],
    properties={"size": writing.Property(values, "of the weights")},
    splits={"default": {"train": [f"m{n}" for n in range(20)], "val": ["m20"]}},
  )
  known = {
    "pairs": sne_jax.Networks.of(pairs, values),
    "dicts": sne_jax.Networks.of(dicts, {"size": values}),
    "files": files,
    "paths": sne_jax.Networks.of(list(files.names), values[:, None]),
    "frame": sne_jax.Networks.from_files(
      folder / "nets",
      {"path": [f"net{n}" for n in range(24)], "size": values.tolist()},
      files="path",
    ),
    "parquet": sne_jax.Networks.from_files(
      folder / "nets", folder / "table.parquet", ["size"]
    ),
    "zoo": sne_jax.Networks.from_zoo(zoo, "size"),
  }
  for name, networks in known.items():
    count = 20 if name == "zoo" else 24
    assert len(networks) == count
    np.testing.assert_allclose(networks.targets[:, 0], values[:count])
    for (spec, one), (other, two) in zip(pairs, networks.pairs(), strict=False):
      assert spec.anatomy == other.anatomy, name
      np.testing.assert_array_equal(one, two)
  assert files.target_names == known["zoo"].target_names == ("size",)
  assert known["pairs"].target_names == ("target",)


def test_a_data_frame_has_columns(drawn):
  class Frame:
    columns = ("a", "b")

    def __getitem__(self, name):
      return list(drawn[1]) if name == "a" else list(2 * drawn[1])

  networks = sne_jax.Networks.of(drawn[0], Frame())
  assert networks.target_names == ("a", "b")
  np.testing.assert_allclose(networks.targets[:, 1], 2 * drawn[1])


def test_splits_are_drawn_and_keep_clusters_whole(parts, drawn):
  assert [len(part) for part in parts] == [14, 5, 5]
  every = np.concatenate([part.targets[:, 0] for part in parts])
  np.testing.assert_allclose(np.sort(every), np.sort(drawn[1]))
  networks = dataclasses.replace(
    sne_jax.Networks.of(*drawn), clusters=np.arange(24) // 3
  )
  one, two = networks.split(0.5)
  assert not set(one.clusters) & set(two.clusters)


@pytest.mark.parametrize(
  ("targets", "words"),
  [
    ([1.0] * 23, r"'target' has shape \(23,\), but there are 24 networks"),
    ({"a": [1.0] * 5 + [np.nan] * 19}, "'a' is nan for network 5 .19 in all"),
    ({"a": ["0.5"] * 23 + ["n/a"]}, "holds numbers, but 'n/a' for network 23"),
    ({"a": ["x", "y"] * 12, "b": [1.0] * 24}, "'a' is text .first: 'x'."),
    (np.zeros((24, 1, 1)), "targets have shape"),
  ],
)
def test_bad_targets_are_named(targets, words, drawn):
  with pytest.raises(ValueError, match=words):
    sne_jax.Networks.of(drawn[0], targets)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"file": ["net0", "net99"]}, "names 'net99', and .*1 of 2 are missing"),
    ({"file": ["net0", "net0"]}, "twice"),
    ({"name": ["net0", "net1"]}, "no column 'file'; it has value, name"),
    ({"file": [], "value": []}, "no rows"),
  ],
)
def test_bad_tables_are_named(changes, words, folder):
  table = {"value": [1.0, 2.0]} | changes
  with pytest.raises(ValueError, match=words):
    sne_jax.Networks.from_files(folder / "nets", table)


def test_cells_of_a_csv_are_read_as_written(drawn, tmp_path):
  for n, name in enumerate(("000", "001")):
    arrays = state_dict(*drawn[0][n])
    safetensors.numpy.save_file(arrays, tmp_path / f"{name}.safetensors")
  table = tmp_path / "table.csv"

  def read(text, *targets):
    table.write_text(text)
    return sne_jax.Networks.from_files(tmp_path, table, *targets)

  numbers = read("file,size\n000,1\n001,2\n")
  assert [os.path.basename(n)[:3] for n in numbers.names] == ["000", "001"]
  kinds = read("file,kind\n000,null\n001,NA\n").targets
  assert kinds.tolist() == [["null"], ["NA"]]
  with pytest.raises(ValueError, match=r"'kind' is missing for .*001\.safe"):
    read("file,kind\n000,big\n001,\n")
  with pytest.raises(ValueError, match=r"'size' is nan for .*001\.safe"):
    read("file,size\n000,1\n001,\n")
  with pytest.raises(ValueError, match="names no file in row 1"):
    read("file,size\n000,1\n,2\n")
  with pytest.raises(ValueError, match=r"table\.csv has 2 columns 'size'"):
    read("file,size,size\n000,1,2\n001,2,3\n", "size")


def test_a_damaged_file_is_named(folder, tmp_path):
  (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04")
  with pytest.raises(ValueError, match="cut.pt"):
    sne_jax.Networks.from_files(tmp_path, {"file": ["cut"], "a": [1.0]})


def test_a_state_dict_that_is_none_is_named(drawn):
  with pytest.raises(ValueError, match="network 1: .*holds no weights"):
    sne_jax.Networks.of([drawn[0][0], {"a": {"b": 1}}])
  with pytest.raises(ValueError, match="network 0 is int"):
    sne_jax.Networks.of([3])


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"encoder": "dws"}, "options are StatOptions, .* dws takes DWSOptions"),
    ({"encoder": "snr"}, "no encoder 'snr'"),
    ({"loss": "l1"}, "loss is 'l1'; choose one of mse"),
    ({"loss": "classes"}, "size: numbers, and loss is classes"),
    ({"seeds": 0}, "seeds is 0"),
    ({"seeds": [1, 1]}, r"seeds are \[1, 1\]; give each once"),
    ({"rates": (0.0,)}, "rates must be above 0"),
    ({"data": sne_jax.DataOptions(batch_size=5, micro_batches=2)}, "multiple"),
    (
      {"optimizer": OptimizerOptions(probe_rate=0.01)},
      "probe_rate is 0.01, but the encoder stat_pool with these options has no"
      " learned inputs; leave it 0",
    ),
  ],
)
def test_options_that_do_not_go_together(changes, words, parts, tmp_path):
  train, val, _ = parts
  with pytest.raises(ValueError, match=words):
    sne_jax.fit(train, val, workdir=tmp_path / "run", **STATS | changes)
  assert not (tmp_path / "run").exists()


def test_networks_that_cannot_be_learned(parts, drawn):
  train, val, _ = parts
  with pytest.raises(ValueError, match="there are no val networks"):
    sne_jax.fit(train, val.take([]), **STATS)
  with pytest.raises(ValueError, match="train networks have no targets"):
    sne_jax.fit(sne_jax.Networks.of(drawn[0]), val, **STATS)
  other = dataclasses.replace(val, target_names=("mass",))
  with pytest.raises(ValueError, match="targets of val are mass"):
    sne_jax.fit(train, other, **STATS)
  text = sne_jax.Networks.of(drawn[0], {"kind": ["a"] * 24})
  with pytest.raises(ValueError, match="'kind' is text .* loss='classes'"):
    sne_jax.fit(text, text, **STATS)
  with pytest.raises(ValueError, match="all training members are of one class"):
    sne_jax.fit(text, text, loss="classes", **STATS)


def test_what_is_no_networks_with_targets_is_refused(trained, parts, drawn):
  train, val, test = parts
  paths = ["net0.safetensors"]
  # The types that tests check at calls would refuse them before.
  for given in ((paths, val), (train, paths)):
    with pytest.raises(ValueError, match="are list; make them by Networks"):
      recipe.checked(*given, {}, recipe.Recipe())
  evaluate = inspect.unwrap(sne_jax.Predictor.evaluate)
  for given in (paths, sne_jax.Networks.of(drawn[0])):
    with pytest.raises(ValueError, match="give Networks with the targets size"):
      evaluate(trained, given)
  two = dataclasses.replace(
    test, targets=np.ones((len(test), 2)), target_names=()
  )
  with pytest.raises(ValueError, match="have 2 targets, .* predicts 1: size"):
    trained.evaluate(two)


def test_networks_take_other_targets(drawn):
  names = [f"n{n}" for n in range(24)]
  first = sne_jax.Networks.of(*drawn, names=names)
  other = sne_jax.Networks.of(first, {"mass": 2 * drawn[1]})
  assert other.target_names == ("mass",) and other.names == tuple(names)
  np.testing.assert_allclose(other.targets[:, 0], 2 * drawn[1])
  np.testing.assert_array_equal(other.vectors[3], first.vectors[3])
  with pytest.raises(ValueError, match=r"shape \(3,\), but there are 24"):
    sne_jax.Networks.of(first, [1.0, 2.0, 3.0])


def test_weights_that_are_not_finite_are_named(trained, drawn):
  spec, weights = drawn[0][1]
  broken = weights.copy()
  broken[2] = np.nan
  for one in (broken, spec.unflatten(broken)):
    pairs = [drawn[0][0], (spec, one)]
    with pytest.raises(ValueError, match="network 1 .* not finite"):
      sne_jax.Networks.of(pairs)
  with pytest.raises(ValueError, match="network 1 .* not finite"):
    trained.predict([drawn[0][0], (spec, broken)])
  with pytest.raises(ValueError, match="network 0 .* not finite"):
    trained.predict((spec, broken))


def test_integers_are_classes(drawn):
  labels = np.array([3, 10, 7] * 8)
  networks = sne_jax.Networks.of(drawn[0], {"kind": labels})
  train, val = networks.split(0.7)
  model = sne_jax.fit(train, val, loss="classes", **STATS)
  assert set(model.classes) == {"3", "7", "10"}
  assert model.predict(val).shape == (len(val), 3)
  found = np.array(model.classes)[model.predict(val).argmax(axis=-1)]
  share = np.mean(found == val.targets[:, 0].astype(int).astype(str))
  measured = model.evaluate(val)["kind"]["accuracy"]["value"]
  assert measured == pytest.approx(share)


def test_a_predictor_judges(trained, parts, drawn, folder):
  _, _, test = parts
  found = trained.predict(test)
  assert found.shape == (5, 1)
  assert len(trained.params) == 2
  low, high = trained.interval(test, coverage=0.5)
  assert (low < found).all() and (found < high).all()
  assert np.isinf(trained.interval(test, coverage=0.99)).all()
  judged = trained.judge(test, coverage=0.5)
  np.testing.assert_array_equal(judged.low, low)
  assert judged.known.all() and np.isfinite(judged.unlike).all()
  wide = [(s, 100 * w) for s, w in test.pairs()]
  assert (trained.unlike(wide) > 1).all()
  assert (trained.unlike(wide) > trained.unlike(test)).all()
  other = families.mlp((3, 2, 2, 2, 1))
  weights = np.ones(other.num_weights, np.float32)
  assert not trained.judge((other, weights)).known[0]
  measured = trained.evaluate(test)["size"]
  error = np.mean((found - test.targets) ** 2)
  assert measured["mse"]["value"] == pytest.approx(error)
  # However a network is given, it is the same one.
  wanted = trained.predict([drawn[0][1]])
  path = folder / "nets" / "net1.safetensors"
  for one in (drawn[0][1], path, str(path), state_dict(*drawn[0][1])):
    np.testing.assert_allclose(trained.predict(one), wanted, rtol=1e-6)
    both = trained.predict([drawn[0][0], one])
    assert both.shape == (2, 1)
    np.testing.assert_allclose(both[1:], wanted, rtol=1e-5)


def test_nothing_is_left_without_a_workdir(parts, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("TMPDIR", str(tmp_path))
  train, val, _ = parts
  sne_jax.fit(train, val, **STATS)
  assert not os.listdir(tmp_path)


def test_what_is_saved_is_loaded(trained, parts, tmp_path):
  _, _, test = parts
  trained.save(tmp_path / "model")
  loaded = sne_jax.Predictor.load(tmp_path / "model")
  one, other = trained.judge(test), loaded.judge(test)
  for name in one._fields:
    np.testing.assert_allclose(
      getattr(one, name), getattr(other, name), rtol=1e-5
    )
  with pytest.raises(ValueError, match="holds a model already"):
    loaded.save(tmp_path / "model")
  again = tmp_path / "again"
  loaded.save(again)  # Not through a folder of its own.
  np.testing.assert_allclose(
    sne_jax.Predictor.load(again).predict(test), one.predictions, rtol=1e-5
  )


@pytest.fixture(scope="module")
def worked(parts, tmp_path_factory):
  """A folder of a training that was killed once, and an unbroken one."""
  train, val, test = parts
  path = tmp_path_factory.mktemp("work")
  call = lambda name, **changes: sne_jax.fit(
    train, val, tests={"test": test}, workdir=path / name, **STATS | changes
  )
  whole, drawing = call("whole"), batching.batch_rows

  def breaking(seed, step, *rest):
    if step == 5:
      raise KeyboardInterrupt
    return drawing(seed, step, *rest)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(batching, "batch_rows", breaking)
    with pytest.raises(KeyboardInterrupt):
      call("broken")
  assert not (path / "broken" / "seed0" / "result.json").exists()
  assert train_state.Checkpoints(path / "broken" / "seed0").latest_step == 4
  return path, call, whole, call("broken")


def test_a_killed_training_ends_as_an_unbroken_one(worked, parts):
  path, call, whole, resumed = worked
  jax.tree.map(np.testing.assert_array_equal, whole.params, resumed.params)
  losses = [
    [r.get("train/loss") for r in records.read_metrics(path / name / "seed0")]
    for name in ("whole", "broken")
  ]
  assert losses[0] == losses[1]
  files = {p.name for p in (path / "whole" / "seed0").iterdir()}
  assert {"model.json", "result.json", "checkpoints", "codes.npz"} <= files
  loaded = sne_jax.Predictor.load(path / "whole")
  np.testing.assert_allclose(
    loaded.judge(parts[2]).high, whole.judge(parts[2]).high, rtol=1e-5
  )
  # Finished: nothing is trained again, and another seed can be added.
  before = (path / "whole" / "seed0" / "result.json").stat().st_mtime_ns
  both = call("whole", seeds=2)
  assert (path / "whole" / "seed0" / "result.json").stat().st_mtime_ns == before
  assert len(both.params) == 2
  jax.tree.map(np.testing.assert_array_equal, both.params[0], whole.params[0])


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    (
      {"options": stat_nn.StatOptions(width=4)},
      "options.width: 8 there, 4 now",
    ),
    (
      {"optimizer": OptimizerOptions(learning_rate=0.1)},
      "optimizer.learning_rate: 0.001 there, 0.1 now",
    ),
    ({"head": sne_jax.HeadOptions(hidden_width=3)}, "head.hidden_width"),
  ],
)
def test_a_folder_of_other_options_is_refused(changes, words, worked):
  with pytest.raises(ValueError, match=words) as error:
    worked[1]("whole", **changes)
  assert "\n" not in str(error.value)


def test_a_folder_of_other_networks_is_refused(worked, parts):
  train, val, _ = parts
  with pytest.raises(ValueError, match="the networks of train differ"):
    sne_jax.fit(
      train.take(range(12)), val, workdir=worked[0] / "whole", **STATS
    )


def test_a_saved_model_is_not_trained_over(trained, parts, tmp_path):
  train, val, _ = parts
  trained.save(tmp_path / "model")
  with pytest.raises(ValueError, match="has not made"):
    sne_jax.fit(train, val, workdir=tmp_path / "model", **STATS)
  head = {"head": sne_jax.HeadOptions(hidden_width=3)}
  with pytest.raises(ValueError, match="its head differs"):
    sne_jax.fit(
      train, val, seeds=[7], workdir=tmp_path / "model", **STATS | head
    )


def test_three_rates_are_one_program(parts, monkeypatch, tmp_path):
  traces = []
  make = invariance.make_loss

  def counted(*args, **kwargs):
    loss = make(*args, **kwargs)
    return lambda *given: traces.append(1) or loss(*given)

  monkeypatch.setattr(invariance, "make_loss", counted)
  train, val, _ = parts
  rates, programs = (1e-1, 1e-2, 1e-4), {}
  found = sne_jax.fit(
    *(train, val),
    **dict(STATS, rates=rates, programs=programs, search_share=0.5),
    workdir=tmp_path / "run",
  )
  assert len(traces) == len(programs) == 1
  # The winner is that of validation, and the rest of its training is its own.
  losses = {}
  for rate in rates:
    path = tmp_path / "run" / "search" / f"rate{rate:g}" / "seed0"
    losses[rate] = records.read_json(path / "result.json")["best_metrics"]
  best = min(rates, key=lambda rate: losses[rate]["loss"])
  config = json.loads((tmp_path / "run" / "fit.json").read_text())
  assert config["optimizer"]["learning_rate"] == best
  alone = sne_jax.fit(
    train,
    val,
    **dict(STATS, optimizer=OptimizerOptions(learning_rate=best)),
  )
  for one, other in zip(
    jax.tree.leaves(alone.params), jax.tree.leaves(found.params), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
  assert len({found["loss"] for found in losses.values()}) == 3


def test_a_whole_search_is_not_trained_twice(parts, tmp_path):
  train, val, _ = parts
  given = dict(STATS, rates=(1e-2, 1e-3), workdir=tmp_path / "run")
  found = sne_jax.fit(train, val, **given)
  search = tmp_path / "run" / "search"
  texts = [p.read_text() for p in search.glob("rate*/seed0/metrics.jsonl")]
  mine = (tmp_path / "run" / "seed0" / "metrics.jsonl").read_text()
  assert mine in texts  # Clocks and all.
  again = sne_jax.fit(train, val, **given)
  jax.tree.map(np.testing.assert_array_equal, found.params, again.params)


def test_seeds_that_diverge_are_left_out(parts, monkeypatch):
  train, val, _ = parts
  run = trainer.Trainer.run

  def diverging(self, seed, folder=None):
    if seed != 1:
      raise TrainingDiverged(3, float("nan"), "so it is")
    return run(self, seed, folder)

  monkeypatch.setattr(trainer.Trainer, "run", diverging)
  found = sne_jax.fit(train, val, seeds=2, **STATS)
  assert len(found.params) == 1
  assert "diverged" in found.results[0]["failed"]
  with pytest.raises(TrainingDiverged):
    sne_jax.fit(train, val, **STATS)


def test_classes_are_learned_by_name(folder, tmp_path):
  networks = sne_jax.Networks.from_files(
    folder / "nets", folder / "table.csv", "kind"
  )
  train, val, test = networks.split(0.6, 0.2)
  found = sne_jax.fit(train, val, **STATS, loss="classes")
  assert found.classes == ("big", "small")
  chances = found.predict(test)
  np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-5)
  right = np.array(found.classes)[chances.argmax(axis=1)] == test.targets[:, 0]
  measured = found.evaluate(test)["kind"]
  assert measured["accuracy"]["value"] == pytest.approx(right.mean())
  with pytest.raises(ValueError, match="classes have probabilities"):
    found.interval(test)
  with pytest.raises(ValueError, match=r"targets of the networks are size"):
    found.evaluate(
      sne_jax.Networks.from_files(folder / "nets", folder / "table.csv", "size")
    )


def test_the_smallest_sne_learns(parts):
  """By default; on a property that is easy to see."""
  train, val, test = parts
  training = dataclasses.replace(TINY["training"], num_steps=80, eval_every=20)
  changes = {"optimizer": OptimizerOptions(learning_rate=1e-2)}
  found = sne_jax.fit(train, val, **TINY | changes | {"training": training})
  error = found.evaluate(test)["size"]["mse"]["value"]
  assert error < 0.5 * np.var(test.targets)
  spec, weights = test.pairs()[0]
  gradient = jax.grad(lambda w: found.function(spec)(w)[0])(weights)
  assert np.abs(gradient).max() > 0


def test_a_search_leaves_a_saved_model_alone(trained, parts, tmp_path):
  trained.save(tmp_path / "saved")
  before = {p: p.read_bytes() for p in (tmp_path / "saved").rglob("*.json")}
  given = dict(STATS, rates=(1e-2, 1e-3), workdir=tmp_path / "saved")
  with pytest.raises(ValueError, match="choose another workdir"):
    sne_jax.fit(*parts[:2], **given)
  after = {p: p.read_bytes() for p in (tmp_path / "saved").rglob("*.json")}
  assert after == before
  assert not (tmp_path / "saved" / "search").exists()


def test_what_is_taken_keeps_only_specs_that_are_used(drawn):
  networks = sne_jax.Networks.of(drawn[0], drawn[1])
  assert len(networks.specs) > 1
  rows = np.flatnonzero(networks.numbers == networks.numbers[0])
  some = networks.take(rows)
  assert some.specs == (networks.specs[networks.numbers[0]],)
  assert [s for s, _ in some.pairs()] == [networks.pairs()[r][0] for r in rows]
  sne_jax.fit(some, some, **dict(STATS, encoder="stat_nn"))


def test_snapshots_of_a_zoo_stay_together(drawn, tmp_path):
  weights = [w for s, w in drawn[0] if s == SPECS[0]][:12]
  ids = [f"m{n}" for n in range(12)]
  networks = writing.Property(np.repeat(np.arange(4), 3), "of a snapshot")
  zoo = writing.write_zoo(
    tmp_path / "zoo",
    specs=SPECS[:1],
    weights=[np.stack(weights)],
    ids=ids,
    spec_numbers=[0] * 12,
    rows=list(range(12)),
    properties={"network": networks},
    splits={"default": {"train": ids}},
  )
  halves = sne_jax.Networks.from_zoo(zoo, "network").split(0.5)
  seen = [set(part.targets[:, 0].tolist()) for part in halves]
  assert all(seen) and not seen[0] & seen[1]


def test_parts_are_merged_with_what_they_know(parts):
  train, val = parts[:2]
  both = sne_jax.Networks.merged([train, val])
  assert both.labels == train.labels and len(both) == len(train) + len(val)
  other = dataclasses.replace(val, target_names=("else",))
  with pytest.raises(ValueError, match="labels of two parts"):
    sne_jax.Networks.merged([train, other])
  with pytest.raises(ValueError, match="no parts"):
    sne_jax.Networks.merged([])


CHANCE = 0.1


@pytest.fixture(scope="module")
def with_collapsed():
  """Networks of which a third have tiny weights, and the value of chance."""
  rng = np.random.default_rng(3)
  pairs, values = [], []
  for n in range(60):
    size = rng.uniform(0.2, 1) if n % 3 else 1e-3
    weights = size * rng.normal(size=SPECS[0].num_weights)
    pairs.append((SPECS[0], weights.astype(np.float32)))
    values.append(0.2 + float(np.abs(weights).mean()) if n % 3 else CHANCE)
  networks = sne_jax.Networks.of(pairs, {"accuracy": np.array(values)})
  return networks.split(0.6, 0.2, seed=0)


def collapsing(**changes):
  training = dataclasses.replace(
    STATS["training"], num_steps=150, eval_every=50, log_every=50, save_every=50
  )
  rate = OptimizerOptions(learning_rate=1e-2)
  return STATS | {"training": training, "optimizer": rate} | changes


@pytest.mark.parametrize(("loss", "seeds"), [("mse", 2), ("bce", 1)])
def test_collapsed_networks_are_predicted_at_chance(
  with_collapsed, tmp_path, loss, seeds
):
  train, val, test = with_collapsed
  head = sne_jax.HeadOptions(collapsed=True)
  model = sne_jax.fit(
    *(train, val), tests={"test": test}, seeds=seeds, head=head, loss=loss,
    **collapsing(),
  )  # fmt: skip
  assert model.description["collapsed"] == {"values": [CHANCE], "within": 0.0}
  found = model.predict(test)
  gone = test.targets[:, 0] == CHANCE
  assert found.shape == test.targets.shape and 2 < gone.sum() < len(test)
  assert (found[gone] == CHANCE).all() and (found[~gone] != CHANCE).all()
  assert model.evaluate(test)["accuracy"]["kendall_tau"]["value"] > 0.8
  low, high = model.interval(test, coverage=0.5)
  assert (low <= found).all() and (found <= high).all()
  one = jax.jit(model.function(SPECS[0]))(test.vectors[0])
  np.testing.assert_allclose(one, found[0], rtol=1e-5)
  (note,) = [n for n in model.results[0]["notes"] if "collapsed" in n]
  count = int((train.targets == CHANCE).sum())
  assert f"{count} of {len(train)} training networks" in note
  model.save(tmp_path / "model")
  loaded = sne_jax.Predictor.load(tmp_path / "model")
  np.testing.assert_allclose(loaded.predict(test), found, rtol=1e-6)


def test_without_the_switch_nothing_is_tied(with_collapsed):
  train, val, test = with_collapsed
  model = sne_jax.fit(train, val, **STATS)
  assert "collapsed" not in model.description
  assert len(np.unique(model.predict(test))) == len(test)
  assert not [n for n in model.results[0]["notes"] if "collapsed" in n]


def test_a_head_for_collapsed_networks_needs_some(parts, with_collapsed):
  head = sne_jax.HeadOptions(collapsed=True)
  with pytest.raises(ValueError, match="no two of the .* the same size"):
    sne_jax.fit(parts[0], parts[1], head=head, **STATS)
  with pytest.raises(ValueError, match="head.collapsed is on, and loss is"):
    sne_jax.fit(*with_collapsed[:2], head=head, loss="classes", **STATS)
