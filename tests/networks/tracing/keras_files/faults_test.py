"""Configurations of Keras that are damaged, or not known to us."""

import copy

import numpy as np
import pytest

from sne_jax import checkpoints, errors
from sne_jax.networks import inference
from sne_jax.networks.tracing.keras_files import graph
from tests.networks.tracing.keras_files import written
from tests.networks.tracing.keras_files.cases import (
  CASES,
  dense,
  of_sizes,
)
from tests.networks.tracing.keras_files.written import (
  arrays,
  functional,
  given,
  layer,
  runnable,
  sequential,
)

pytest.importorskip("h5py")


def lambda_network(kind, module="keras.layers"):
  odd = layer(kind, "odd", ["a"], module=module, function="os.system")
  last = dense("out", 2, [written.value("odd", shape=(8,))], act=None)
  model = functional(given(4), dense("a", 8, ["in"]), odd, last)
  last = "dense_2" if kind == "Dense" else "dense_1"  # Its class counts.
  return model, of_sizes(**{"dense": (4, 8), last: (8, 2)})


@pytest.mark.parametrize(
  ("kind", "module"),
  [("Lambda", "keras.layers"), ("Strange", "keras.layers"), ("Dense", "mine")],
)
def test_what_is_not_known_is_pinned_and_said(kind, module, tmp_path):
  model, held = lambda_network(kind, module)
  network = checkpoints.load(written.archive(tmp_path / "a.keras", model, held))
  assert not network.spec.groups
  assert any(kind in guess for guess in network.inferred.guesses)
  with pytest.raises(ValueError, match=f"{kind}.* is not run here"):
    runnable(network).example_input(np.random.default_rng(0))


def faults():
  good = lambda: sequential(given(4), dense("a", 8), dense("out", 2))
  held = of_sizes(dense=(4, 8), dense_1=(8, 2))
  yield "no variable", good(), of_sizes(dense=(4, 8)), "no kernel"
  model = sequential(given(4), dense("a", 9), dense("out", 2))
  yield "other sizes", model, held, "other units"
  model = functional(given(4), dense("a", 8, ["b"]), dense("b", 8, ["a"]))
  yield (
    "a circle",
    model,
    of_sizes(dense=(4, 8), dense_1=(8, 8)),
    "nothing gives",
  )
  model = good()
  for _ in range(40):
    model = sequential(model)
  yield "too deep", model, held, "nested"
  model = functional(given(4), given(4), dense("b", 8, ["in"]))
  yield "one name twice", model, held, "one name"
  model = good()
  model["config"]["layers"][1]["config"] = 3
  yield "nonsense", model, held, "not understood|says no shape"


@pytest.mark.parametrize(
  ("model", "held", "message"),
  [pytest.param(*case[1:], id=case[0]) for case in faults()],
)
def test_what_does_not_fit_is_refused(model, held, message, tmp_path):
  path = written.archive(tmp_path / "a.keras", model, held)
  with pytest.raises(errors.CheckpointError, match=message) as caught:
    checkpoints.load(path)
  assert len(str(caught.value).splitlines()) == 1
  # The remedy that is named works.
  network = checkpoints.load(path, override={"opaque": True})
  assert not network.spec.groups


def test_calls_are_counted(tmp_path, monkeypatch):
  monkeypatch.setattr(graph, "MAX_CALLS", 8)
  model = functional(given(4), dense("a", 4, ["in"], use_bias=False), name="m0")
  for number in range(3):  # Two calls of two calls of two calls ...
    inner = model
    inner["inbound_nodes"] = [
      {"args": [written.value("in")], "kwargs": {}} for _ in range(2)
    ]
    sums = [written.value(inner["name"], call) for call in range(2)]
    model = functional(
      given(4), inner, layer("Add", "s", [sums]), name=f"m{number + 1}"
    )
  held = arrays(functional___functional___functional___dense__0=(4, 4))
  path = written.archive(tmp_path / "a.keras", model, held)
  with pytest.raises(errors.CheckpointError, match="more than 8 calls"):
    checkpoints.load(path)


ODD = (None, -1, 0, "x", [], {}, 10**30, 1.5, [[]], {"class_name": "Model"})


def places(tree, path=()):
  yield path
  if isinstance(tree, dict | list):
    keys = tree if isinstance(tree, dict) else range(len(tree))
    for key in keys:
      yield from places(tree[key], (*path, key))


def test_any_damage_of_a_configuration_is_one_error():
  rng = np.random.default_rng(0)
  done = {"read": 0, "refused": 0}
  for name, (model, held, *_) in CASES.items():
    shapes = {n: np.shape(a) for n, a in held.items()}
    found = [p for p in places(model) if p]
    for _ in range(12):
      damaged = inner = copy.deepcopy(model)
      *path, last = found[rng.integers(len(found))]
      for key in path:
        inner = inner[key]
      inner[last] = ODD[rng.integers(len(ODD))]
      if not graph.KerasGraph.describes(damaged):
        continue
      try:
        inference.infer(
          shapes,
          framework="keras",
          graph=graph.KerasGraph(damaged, shapes, {}),
        )
        done["read"] += 1
      except inference.AmbiguousError as error:
        assert len(str(error).splitlines()) == 1, name
        done["refused"] += 1
  assert min(done.values()) > 20, done


def test_a_class_of_ones_own_is_read_by_names(tmp_path):
  model = sequential(given(4), dense("a", 8), dense("out", 2, act=None))
  model |= {"class_name": "Mine", "module": "mine"}
  held = of_sizes(dense=(4, 8), dense_1=(8, 2))
  network = checkpoints.load(written.archive(tmp_path / "a.keras", model, held))
  assert network.tensors.graph is None and network.inferred.how != "traced"
