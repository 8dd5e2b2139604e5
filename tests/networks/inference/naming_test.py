"""What names and shapes say of tensors that are no weights."""

import pytest

from sne_jax.networks import inference
from sne_jax.networks.inference import naming

MLP = {"0.weight": (8, 4), "0.bias": (8,), "2.weight": (3, 8), "2.bias": (3,)}


@pytest.mark.parametrize(
  ("extra", "out"),
  [
    ({"log_scale": ()}, {"log_scale"}),
    ({"1.weight": (1,)}, {"1.weight"}),
    ({"temperature": (1,), "alpha": ()}, {"temperature", "alpha"}),
    ({"a.slope": (1,), "b.slope": (1,)}, {"a.slope", "b.slope"}),
    ({"criterion.pos_weight": ()}, {"criterion.pos_weight"}),
    # A norm of one channel is a norm; a bias of one output a bias.
    ({"4.weight": (1,), "4.bias": (1,)}, set()),
    ({"4.weight": (1, 3), "4.bias": (1,)}, set()),
  ],
)  # fmt: skip
def test_one_number_alone_is_of_no_neuron(extra, out):
  assert set(naming.left_out(MLP | extra)) == out


@pytest.mark.parametrize("name", ["loss", "criterion", "metric", "optimizer"])
def test_a_dense_layer_that_is_called_as_a_loss_is_one(name):
  layer = {f"{name}.weight": (8, 8), f"{name}.bias": (8,)}
  assert not naming.left_out(MLP | layer)
  below = {f"module.{n}": s for n, s in (MLP | layer).items()}
  assert not naming.left_out(below)
  for other in (
    {f"{name}.weight": (8,)},
    {f"{name}.net.weight": (8, 8), f"{name}.net.bias": (8,)},
  ):
    assert set(naming.left_out(MLP | other)) == set(other)


@pytest.mark.parametrize("framework", ["torch", "safetensors"])
@pytest.mark.parametrize("name", ["log_scale", "1.weight", "norm.scale", "a.b"])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_one_number_changes_nothing_of_the_rest(framework, name, shape):
  alone = inference.infer(MLP, framework=framework)
  found = inference.infer(MLP | {name: shape}, framework=framework)
  assert found.spec == alone.spec and set(found.left_out) == {name}
  # The remedy of messages works on what is left out already.
  override = {"leave_out": [name]}
  again = inference.infer(
    MLP | {name: shape}, framework=framework, override=override
  )
  assert again.spec == alone.spec
