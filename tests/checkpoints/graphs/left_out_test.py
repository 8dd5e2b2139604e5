"""Operators whose inputs are left out, or not what they need."""

import pytest

from sne_jax import errors
from sne_jax.checkpoints import network
from sne_jax.networks.tracing.onnx_operators import table

pytest.importorskip("onnx")
from tests.checkpoints.graphs.onnx_models import Net  # noqa: E402

HIDDEN = 6
INPUTS = {
  "none": lambda x, z: (),
  "the first alone": lambda x, z: (x,),
  "the second left out": lambda x, z: (x, ""),
  "the first left out": lambda x, z: ("", x),
  "the second not known": lambda x, z: (x, z),
  "the third not known": lambda x, z: (x, x, z),
  "all not known": lambda x, z: (x, z, z, z, z, z),
}


@pytest.mark.parametrize(
  "inputs",
  [
    pytest.param(given, id=name, marks=[pytest.mark.slow] * (n % 2))
    for n, (name, given) in enumerate(INPUTS.items())
  ],
)
def test_inputs_that_are_left_out_are_no_fault(inputs, tmp_path):
  read = 0
  for op in sorted(table._TABLE):
    domain, _, kind = op.rpartition(".")
    net = Net()
    x = net.relu(net.linear(net.input(2, 5), 5, HIDDEN))
    z = net.input(2, name="z")
    y = net.op(kind, *inputs(x, z), domain=domain)
    output = net.op("Add", net.linear(x, HIDDEN, 3), net.op("ReduceSum", y))
    path = net.save(tmp_path / "a.onnx", output)
    try:
      found = network.load(path)
    except errors.CheckpointError as error:
      assert "\n" not in str(error)
    else:
      read += 1
      assert len(found.weights()) == 5 * HIDDEN + HIDDEN + 3 * HIDDEN + 3
  assert read


def test_a_product_without_its_second_factor_claims_nothing(tmp_path):
  net = Net()
  x = net.relu(net.linear(net.input(2, 5), 5, HIDDEN))
  y = net.op("MatMul", x, "")
  output = net.op("Add", net.linear(x, HIDDEN, 3), net.op("ReduceSum", y))
  found = network.load(net.save(tmp_path / "a.onnx", output))
  assert not found.spec.groups and found.inferred.guesses


def test_axes_that_name_a_place_twice_are_no_fault(tmp_path):
  net = Net()
  x = net.relu(net.linear(net.input(2, 5), 5, HIDDEN))
  y = net.op("Unsqueeze", x, net.ints(1, 1))
  output = net.op("Add", net.linear(x, HIDDEN, 3), net.op("ReduceSum", y))
  path = net.save(tmp_path / "a.onnx", output)
  try:
    found = network.load(path)
  except errors.CheckpointError as error:
    assert "\n" not in str(error)
  else:
    assert not found.spec.groups
