"""Claims about random networks, in every container, are true.

The writers are held to the libraries' own: ONNX's evaluator, Flax, and, where
they are installed, Keras and PyTorch.
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.checkpoints import random_files, random_networks
from tests.checkpoints.drawn import graphs, judging, plans, running

Layer, Plan = plans.Layer, plans.Plan
CONTAINERS = list(random_files.CONTAINERS)


def inputs_of(network):
  shape = (judging.INPUTS, *network.input_shape)
  return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def want(network, written, x):
  network = graphs.flattened(network, written.last)
  return running.run(network, graphs.true_params(network), x)


def apart(a, b):
  return float(np.abs(np.asarray(a) - b).max() / max(1, np.abs(b).max()))


def verdicts(container, seeds, folder):
  """Judges networks; no claim may be false."""
  pytest.importorskip("h5py"), pytest.importorskip("onnx")
  kinds = []
  for seed in seeds:
    plan = plans.draw(seed)
    verdict = random_networks.try_plan(plan, container, folder)
    if verdict is not None:
      said = f"{seed}: {verdict.why}\n{plans.said(plan)}"
      assert verdict.kind not in ("WRONG", "CRASH"), said
      kinds.append(verdict.kind)
  return kinds


@pytest.mark.parametrize("container", CONTAINERS)
def test_no_claim_is_false(container, tmp_path):
  kinds = verdicts(container, range(10), tmp_path)
  assert not kinds or set(kinds) != {"refused"}, "control: some are read"


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
def test_no_claim_is_false_of_two_hundred(container, tmp_path):
  kinds = verdicts(container, range(200), tmp_path)
  if container in ("onnx", "keras"):  # They say what they are.
    assert kinds.count("full") >= 0.95 * len(kinds)


def test_a_false_claim_is_seen(tmp_path):
  # The file is of a plain network; what it is held against has a skip, or
  # other numbers, or another order.
  plain = Plan(layers=(Layer(), Layer(), Layer(width=6)), seed=3)
  layers = (Layer(), Layer(skip=1), Layer(width=6))
  skip = dataclasses.replace(plain, layers=layers)
  other = dataclasses.replace(plain, seed=4)
  written = random_files.write(graphs.build(plain), "torch", tmp_path)
  judge = lambda plan: judging.judge(
    graphs.build(plan), written.path, written.rows, written.last
  )
  assert judge(plain).kind == "full"
  assert judge(skip).kind == "WRONG" and "change" in judge(skip).why
  assert "numbers" in judge(other).why


def test_a_false_symmetry_is_seen(tmp_path, monkeypatch):
  plan = Plan(layers=(Layer(), Layer(skip=1)), seed=3, habit="numbered")
  network = graphs.build(plan)
  written = random_files.write(network, "torch", tmp_path)
  load = judging.checkpoints.load
  names = [row.name for row in written.rows if row.key[1] == "weight"]
  order = {"order": [name.removesuffix(".weight") for name in names]}
  order["skips"] = []  # A person's word, which is false.
  monkeypatch.setattr(
    judging.checkpoints, "load", lambda path: load(path, override=order)
  )
  verdict = judging.judge(network, written.path, written.rows, written.last)
  assert verdict.kind == "WRONG" and "change" in verdict.why


def counted(network) -> float | None:
  """Permutations by a count of one's own; None where channels have groups."""
  link: dict = {}

  def root(a):
    while link.get(a, a) != a:
      a = link[a]
    return a

  def tie(a, b):
    a, b = sorted((root(a), root(b)), key=lambda k: k != "fixed")
    link[b] = a

  sizes, axes = {}, ["fixed"]
  for node in network.nodes:
    given = [axes[i] for i in node.inputs]
    axis = given[0]
    if node.op == "concat":
      for one in given:
        tie(one, "fixed")
      axis = "fixed"
    if node.op in ("add", "mul"):
      tie(*given)
    if node.op == "module":
      module = network.modules[node.module]
      if module.kind not in plans.NORMS:
        weight = module.params["weight"]
        out = weight.shape[1 if module.kind == "transposed" else 0]
        if module.groups > 1 and (weight.shape[1] > 1 or out > module.groups):
          return None
        if module.groups == 1:
          tie(axis, ("in", node.module))
          axis = ("out", node.module)
          sizes[axis] = out
        else:
          tie(axis, ("in", node.module))
      elif module.kind == "group":
        return None
    axes.append(axis)
  tie(axes[-1], "fixed")
  free = {root(a): n for a, n in sizes.items() if root(a) != "fixed"}
  return sum(math.lgamma(n + 1) for n in free.values())


def test_permutations_are_counted_twice():
  pairs = []
  for seed in range(40):
    network = graphs.build(plans.draw(seed))
    if (due := counted(network)) is not None:
      pairs.append((due, judging.true_log_order(network)))
  assert len(pairs) > 20 and sum(due > 0 for due, _ in pairs) > 15
  due, got = np.array(pairs).T
  np.testing.assert_allclose(got, due, atol=1e-6)


def test_plans_are_of_every_kind():
  drawn = [plans.draw(seed) for seed in range(300)]
  layers = [layer for plan in drawn for layer in plan.layers]
  for thing, things in ((Plan, drawn), (Layer, layers)):
    for field in dataclasses.fields(thing):
      values = {getattr(v, field.name) for v in things}
      assert len(values) > 1, field.name
  assert {plan.habit for plan in drawn} == set(plans.HABITS)
  ops = {node.op for plan in drawn for node in graphs.build(plan).nodes}
  assert {"add", "concat", "pool", "mean", "flatten", "softmax", "mul"} <= ops


def test_a_plan_shrinks_to_what_matters():
  plan = next(
    p
    for p in map(plans.draw, range(100))
    if len(p.layers) > 2 and any(v.pool for v in p.layers)
  )
  least = plans.shrink(plan, lambda p: any(v.pool for v in p.layers))
  (layer,) = least.layers
  assert layer.pool and layer.norm == "" and least.head == "dense"


@pytest.mark.parametrize("seed", range(6))
def test_onnx_graphs_compute_the_network(seed, tmp_path):
  onnx = pytest.importorskip("onnx")
  reference = pytest.importorskip("onnx.reference")
  network = graphs.build(plans.draw(seed))
  written = random_files.write(network, "onnx", tmp_path)
  model = onnx.load(written.path)
  x = inputs_of(network)
  (out,) = reference.ReferenceEvaluator(model).run(None, {"input": x})
  assert apart(out, want(network, written, x)) < 1e-5


FLAX_PLANS = {
  "dense": Plan(layers=(Layer(),)),
  "conv": Plan(layers=(Layer(kind="conv"),), rank=2),
  "grouped": Plan(layers=(Layer(kind="grouped"),), rank=2, channels=4),
  "depthwise": Plan(layers=(Layer(kind="depthwise", width=6),), rank=1),
  "transposed": Plan(layers=(Layer(kind="transposed"),), rank=2),
}


@pytest.mark.parametrize("kind", FLAX_PLANS)
def test_kernels_are_those_of_flax(kind):
  network = graphs.build(FLAX_PLANS[kind])
  module, rank = network.modules[0], network.plan.rank
  rows = random_files._flax_rows(network, "", nnx=False)
  params = graphs.true_params(network)
  made = {
    row.name.rpartition("/")[2]: row.to(params[row.key])
    for row in rows
    if row.key[0] == 0
  }
  out = len(made["bias"])
  size = made["kernel"].shape[:rank]
  layer = {
    "dense": lambda: nn.Dense(out),
    "conv": lambda: nn.Conv(out, size, feature_group_count=module.groups),
    "transposed": lambda: nn.ConvTranspose(out, size, strides=(2,) * rank),
  }[module.kind]()
  x = inputs_of(network)
  with jax.numpy_rank_promotion("allow"):
    variables = {"params": jax.tree.map(jnp.asarray, made)}
    found = np.asarray(layer.apply(variables, np.moveaxis(x, 1, -1)))
  node = network.nodes[0]
  due = running.run(dataclasses.replace(network, nodes=(node,)), params, x)
  assert apart(np.moveaxis(found, -1, 1), due) < 1e-5


@pytest.mark.parametrize("seed", range(4))
def test_keras_loads_and_computes_the_same(seed, tmp_path):
  keras = pytest.importorskip("keras")
  network = graphs.build(plans.draw(seed))
  written = random_files.write(network, "keras", tmp_path)
  x = inputs_of(network)
  due = want(network, written, x)
  with jax.numpy_rank_promotion("allow"):
    model = keras.saving.load_model(written.path, compile=False)
    out = np.asarray(model(np.moveaxis(x, 1, -1)))
  assert apart(np.moveaxis(out, -1, 1) if due.ndim > 2 else out, due) < 1e-4


@pytest.mark.parametrize("shared", [False, True])
def test_pytorch_loads_the_same_numbers(shared, tmp_path):
  torch = pytest.importorskip("torch")
  layers = (Layer(norm="batch"), Layer(), Layer(shared=shared))
  network = graphs.build(Plan(layers=layers, habit="sequential"))
  written = random_files.write(network, "torch", tmp_path)
  state = torch.load(written.path, "cpu", weights_only=True)
  params = graphs.true_params(network)
  for row in written.rows:
    np.testing.assert_array_equal(row.back(state[row.name]), params[row.key])
  places = {(t.data_ptr(), tuple(t.shape)) for t in state.values()}
  assert len(state) - len(places) == (2 if shared else 0)
