"""How ONNX files keep numbers and graphs: quantised, elsewhere, or not."""

import numpy as np
import pytest

from sne_jax import errors
from sne_jax.checkpoints import network, reading
from sne_jax.networks.tracing import traced_onnx

onnx = pytest.importorskip("onnx")

from tests.checkpoints.graphs.onnx_models import (  # noqa: E402
  HIDDEN,
  Net,
  checked,
  groups,
  hidden,
  left,
)


@pytest.mark.parametrize("kind", ["tensor", "channel", "block"])
def test_quantised_weights_are_read_as_numbers(kind, tmp_path):
  net = Net(opset=21)
  raw = net.rng.integers(-128, 128, (HIDDEN, 4)).astype(np.int8)
  shape = {"tensor": (), "channel": (HIDDEN,), "block": (HIDDEN, 2)}[kind]
  scale = net.rng.uniform(0.01, 0.02, shape).astype(np.float32)
  zero = net.rng.integers(-9, 9, shape).astype(np.int8)
  given = {"axis": 0} if kind == "channel" else {}
  given = {"axis": 1, "block_size": 2} if kind == "block" else given
  kernel = net.op(
    "DequantizeLinear", *map(net.array, (raw, scale, zero)), **given
  )
  x = net.relu(net.op("Gemm", net.input(2, 4), kernel, transB=1))
  path = net.save(tmp_path / "a.onnx", net.linear(x, HIDDEN, 3))
  found, check = checked(path)
  assert check.passes() and groups(found) == [HIDDEN]
  if kind == "channel":
    scale, zero = scale[:, None], zero[:, None]
  if kind == "block":
    scale, zero = scale.repeat(2, 1), zero.repeat(2, 1)
  want = (raw.astype(np.float32) - zero) * scale
  np.testing.assert_allclose(
    found.spec.unflatten(found.weights())[kernel], want, rtol=1e-6
  )
  assert "int8" in found.inferred.left_out["w0"]
  # What a weight is computed from is said, and not that it is left out.
  assert f"computed is {kernel} from w0, w1, w2, by DequantizeLinear" in (
    found.notes
  )
  assert not {"w0", "w1", "w2"} & found.left_out.keys()
  assert "left out" not in str(found.notes)


@pytest.mark.parametrize(
  ("scale", "given"),
  [
    ((HIDDEN + 1,), {"axis": 0}),
    ((HIDDEN,), {"axis": 7}),
    ((2, 2, 2), {}),
    ((HIDDEN, 2), {"axis": 1, "block_size": 1 << 50}),
    ((HIDDEN, 2), {"axis": 1, "block_size": -2}),
  ],
)
def test_scales_that_do_not_fit_are_refused(scale, given, tmp_path):
  net = Net(opset=21)
  arrays = np.ones((HIDDEN, 4), np.int8), np.ones(scale, np.float32)
  kernel = net.op("DequantizeLinear", *map(net.array, arrays), **given)
  output = net.op("MatMul", net.input(1, HIDDEN), kernel)
  path = net.save(tmp_path / "a.onnx", output)
  with pytest.raises(errors.CheckpointError, match="scales of"):
    reading.read(path)


def test_operators_on_quantised_numbers_are_pinned(tmp_path):
  net = Net(opset=21)
  x, last = hidden(net)
  scale, zero = net.array(np.float32(0.1)), net.array(np.int8(0))
  q = net.op("QuantizeLinear", x, scale, zero)
  kernel = net.array(net.rng.integers(-99, 99, (HIDDEN, 8)).astype(np.int8))
  y = net.op("QLinearMatMul", q, scale, zero, kernel, scale, zero, scale, zero)
  y = net.op("DequantizeLinear", y, scale, zero)
  found, check = checked(net.save(tmp_path / "a.onnx", last(y, 8)))
  assert check.passes() and not groups(found)
  assert "int8" in found.inferred.left_out[kernel]
  assert "QLinearMatMul" in found.inferred.guesses[0]


def test_what_has_no_part_in_the_output_is_left_out(tmp_path):
  net = Net()
  x, last = hidden(net)
  net.linear(x, HIDDEN, HIDDEN)
  spare = net.weight(3, 3)
  path = net.save(tmp_path / "a.onnx", last(x))
  found, check = checked(path)
  assert check.passes() and groups(found) == [HIDDEN]
  assert left(net, found) == {"w2", "w3", spare}
  assert all("no part" in why for why in found.inferred.left_out.values())


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 21, 23])
def test_many_opsets(opset, tmp_path):
  """What were attributes became inputs."""
  net = Net(opset=opset)
  x = net.relu(net.conv(net.input("n", 3, 6, 6), 3, 8))
  x = net.op(
    "ReduceMean",
    x,
    *([net.ints(2, 3)] if opset >= 18 else []),
    **({} if opset >= 18 else {"axes": [2, 3]}),
  )
  if opset < 13:
    x = net.op("Squeeze", x, axes=[2, 3])
    x = net.op("Softmax", x, axis=1)
  else:
    x = net.op("Softmax", net.op("Squeeze", x, net.ints(2, 3)))
  if opset >= 10:
    given = [net.ints(0), net.ints(2**62), net.ints(1)]
    x = net.op("Slice", x, *given)
  x = net.op(
    "Unsqueeze",
    x,
    *([net.ints(2)] if opset >= 13 else []),
    **({} if opset >= 13 else {"axes": [2]}),
  )
  x = net.op("Flatten", x)
  found, check = checked(
    net.save(tmp_path / "a.onnx", net.linear(x, 8, 3)), draws=1
  )
  assert check.passes() and groups(found) == [8]


def test_numbers_in_another_file(tmp_path):
  net = Net()
  x, last = hidden(net)
  model = net.model(last(x))
  onnx.save(
    model,
    tmp_path / "a.onnx",
    save_as_external_data=True,
    location="a.bin",
    size_threshold=0,
  )
  assert (tmp_path / "a.bin").stat().st_size
  found, check = checked(tmp_path / "a.onnx")
  assert check.passes() and groups(found) == [HIDDEN]


def test_a_function_of_the_file_is_not_what_it_is_called(tmp_path):
  net = Net()
  x, last = hidden(net)
  net.domains["eggs"] = 1
  kinds = ["com.microsoft", "Gelu"]
  y = net.op(kinds[1], x, domain=kinds[0])
  body = [onnx.helper.make_node("CumSum", ["a", "one"], ["b"])]
  body.insert(0, onnx.helper.make_node("Constant", [], ["one"], value_int=1))
  function = onnx.helper.make_function(
    *kinds, ["a"], ["b"], body, [onnx.helper.make_opsetid("", 17)]
  )
  output = last(net.op("Reshape", y, net.ints(2, HIDDEN)))
  path = net.save(tmp_path / "a.onnx", output, functions=[function])
  assert not network.load(path).spec.groups
  without = net.save(tmp_path / "b.onnx", output)
  assert groups(network.load(without)) == [HIDDEN]


@pytest.mark.parametrize(
  ("kinds", "names"),
  [
    (["Relu", "Tanh"], "relu tanh none"),
    (["Sigmoid", ("LeakyRelu", {"alpha": 0.01})], "sigmoid leaky_relu none"),
    (["Relu", ("LeakyRelu", {"alpha": 0.2})], "relu unknown none"),
    (["Relu", "LayerNormalization"], "relu none none none"),
    ([("Gelu", {"approximate": "tanh"}), "Gelu"], "unknown gelu none"),
    (["Elu", "Softplus"], ""),
  ],
)
def test_activations_by_level(kinds, names, tmp_path):
  """What comes after the outputs alone does not count."""
  net = Net(opset=20)
  x = net.input(2, HIDDEN)
  for kind in kinds:
    kind, given = (kind, {}) if isinstance(kind, str) else kind
    x = net.linear(x, HIDDEN, HIDDEN)
    norm = [net.weight(HIDDEN)] if kind == "LayerNormalization" else []
    x = net.op(kind, x, *norm, **given)
  output = net.op("Softmax", net.linear(x, HIDDEN, 3))
  path = net.save(tmp_path / "a.onnx", output)
  names = tuple(names.split())
  assert network.load(path).spec.activations == names
  said = network.load(path, override={"activation": "silu"}).spec.activations
  wanted = [n.replace("unknown", "silu") for n in names]
  assert said == (tuple(wanted) or ("silu", "silu", "none"))


def test_open_sizes_are_found(tmp_path):
  """The dense layer says how large images are."""
  net = Net()
  x = net.relu(net.conv(net.input("n", 1, "h", "w"), 1, 4))
  x = net.relu(net.linear(net.op("Flatten", x), 4 * 28 * 28, 6))
  found, check = checked(net.save(tmp_path / "a.onnx", net.linear(x, 6, 3)))
  assert check.passes() and groups(found) == [6, 4]
  assert not found.inferred.guesses


def test_rows_of_a_table_that_other_lengths_need_do_not_move(tmp_path):
  net = Net()
  words = net.input(1, "t", name="ids", kind=onnx.TensorProto.INT64)
  x = net.op("Gather", net.weight(11, 8), words)
  last = net.op("Slice", net.op("Shape", words), net.ints(1), net.ints(2))
  table = net.op("Slice", net.weight(1, 64, 8), net.ints(0), last, net.ints(1))
  x = net.op("ReduceMean", net.op("Add", x, table), axes=[1], keepdims=0)
  found = network.load(net.save(tmp_path / "a.onnx", net.linear(x, 8, 3)))
  assert groups(found) == [8]


def chain(net, count):
  x, last = hidden(net)
  for _ in range(count):
    x = net.op("Neg", x)
  return last(x)


def cycle(net):
  output = chain(net, 3)
  net.nodes[2].input[0] = net.nodes[4].output[0]
  return output


def twice(net):
  output = chain(net, 3)
  net.nodes[3].output[0] = net.nodes[4].output[0]
  net.nodes[4].input[0] = net.nodes[2].output[0]
  return output


def unweighted(net):
  net.weight(2, 2)
  return net.relu(net.input(2, 2))


@pytest.mark.parametrize(
  ("build", "message"),
  [
    (cycle, "is used before any operator gives it"),
    (twice, "two operators give 'v4_0'"),
    (lambda net: chain(net, 50), "more than 50 operators"),
    (unweighted, "no weight has a part"),
    (lambda net: hidden(net) and "nowhere", "'nowhere' is used before"),
  ],
)
def test_graphs_that_cannot_be_played_are_refused(
  build, message, tmp_path, monkeypatch
):
  monkeypatch.setattr(traced_onnx, "MAX_NODES", 50)
  net = Net()
  path = net.save(tmp_path / "a.onnx", build(net))
  with pytest.raises(errors.CheckpointError, match=message) as error:
    network.load(path)
  assert "\n" not in str(error.value) and '{"opaque": true}' in str(error.value)
  found = network.load(path, override={"opaque": True})
  assert not found.spec.groups and left(net, found) == set()


def test_numbers_without_a_graph_go_by_their_names(tmp_path):
  net = Net()
  shapes = {"a.weight": (6, 5), "a.bias": (6,)}
  shapes |= {"b.weight": (3, 6), "b.bias": (3,)}
  for name, shape in shapes.items():
    net.weight(*shape, name=name)
  net.input(1, 5)
  found = network.load(net.save(tmp_path / "a.onnx"))
  assert (
    found.inferred.how == "guessed" and reading.read(found.path).graph is None
  )


def test_hostile_sizes_take_no_memory(tmp_path):
  net = Net()
  x, last = hidden(net)
  for shape in ((1 << 40, 1 << 40), (-5,), (1 << 62,), (0, 0)):
    y = net.op("ConstantOfShape", net.ints(*shape))
    x = net.op("Add", x, net.op("ReduceSum", y, keepdims=0))
  many = net.ints(1 << 40, 1)
  x = net.op("Slice", net.op("Tile", x, many), net.ints(0), net.ints(2))
  one, end = net.array(np.int64(1)), net.array(np.int64(1 << 62))
  y = net.op("Range", net.array(np.int64(0)), end, one)
  output = net.op("Add", last(x), net.op("Cast", net.op("Size", y), to=1))
  found = network.load(net.save(tmp_path / "a.onnx", output))
  assert not left(net, found)
