"""PyTorch models, traced: what is found leaves their output alone."""

import numpy as np
import pytest

from sne_jax.networks import augment, inference, symmetry

torch = pytest.importorskip("torch")
nn = torch.nn

from sne_jax.networks.tracing import traced_torch  # noqa: E402


class Run(nn.Module):
  """A model of layers and a function that runs them."""

  def __init__(self, run, **layers):
    super().__init__()
    self.run = run
    for name, layer in layers.items():
      setattr(self, name, layer)

  def forward(self, *inputs):
    return self.run(self, *inputs)


class Block(nn.Module):
  def __init__(self, into, out, stride):
    super().__init__()
    self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(out)
    self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
    self.bn2 = nn.BatchNorm2d(out)
    self.downsample = None
    if into != out:
      short = nn.Conv2d(into, out, 1, stride, bias=False)
      self.downsample = nn.Sequential(short, nn.BatchNorm2d(out))

  def forward(self, x):
    y = torch.relu(self.bn1(self.conv1(x)))
    y = self.bn2(self.conv2(y))
    return torch.relu(y + (self.downsample(x) if self.downsample else x))


class ResNet(nn.Module):
  def __init__(self):
    super().__init__()
    self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(8)
    self.relu = nn.ReLU(inplace=True)
    self.layer1 = nn.Sequential(Block(8, 8, 1), Block(8, 8, 1))
    self.layer2 = nn.Sequential(Block(8, 12, 2))
    self.fc = nn.Linear(12, 5)

  def forward(self, x):
    x = self.relu(self.bn1(self.conv1(x)))
    x = nn.functional.max_pool2d(x, 3, 2, 1)
    x = self.layer2(self.layer1(x))
    return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


def flattened():
  return nn.Sequential(
    nn.Conv2d(1, 6, 3),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(6, 8, 3, groups=2),
    nn.Tanh(),
    nn.Conv2d(8, 16, 3, groups=8, padding=1),
    nn.GroupNorm(4, 16),
    nn.Flatten(),
    nn.Linear(256, 20),
    nn.LayerNorm(20),
    nn.GELU(),
    nn.Dropout(),
    nn.Linear(20, 7),
  )


class Transformer(nn.Module):
  def __init__(self):
    super().__init__()
    self.words = nn.Embedding(11, 16)
    self.position = nn.Parameter(torch.randn(1, 5, 16))
    self.token = nn.Parameter(torch.randn(1, 1, 16))
    layer = nn.TransformerEncoderLayer(
      16, 4, 24, batch_first=True, norm_first=True
    )
    self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    self.norm = nn.LayerNorm(16)
    self.head = nn.Linear(16, 11, bias=False)
    self.head.weight = self.words.weight

  def forward(self, words):
    x = self.words(words)
    x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
    return self.head(self.norm(self.blocks(x))[:, 0])


def fused_attention(m, x):
  batch, tokens, dim = x.shape
  q, k, v = m.qkv(x).reshape(batch, tokens, 3, 4, 4).permute(2, 0, 3, 1, 4)
  y = (q @ k.transpose(-2, -1) / 2).softmax(-1) @ v
  return m.head((x + m.out(y.transpose(1, 2).reshape(x.shape))).mean(1))


def shared_keys(m, x):
  """Two queries for each key, and an explicit repetition."""
  batch, tokens, _ = x.shape
  q = m.q(x).view(batch, tokens, 4, 4).transpose(1, 2)
  k, v = (f(x).view(batch, tokens, 2, 4).transpose(1, 2) for f in (m.k, m.v))
  repeat = lambda y: y[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2)
  y = nn.functional.scaled_dot_product_attention(q, repeat(k), repeat(v))
  return m.head((x + m.out(y.transpose(1, 2).flatten(2))).mean(1))


def u_net(m, x):
  a = torch.relu(m.a(x))
  b = m.up(torch.relu(m.b(nn.functional.max_pool2d(a, 2))))
  return m.out(torch.cat([a, b], 1)).mean((2, 3))


def excited(m, x):
  y = m.a(x)
  gate = torch.sigmoid(m.more(torch.tanh(m.less(y.mean((2, 3))))))
  return m.out(torch.tanh(y * gate[:, :, None, None] + m.b(x)).mean((2, 3)))


def shuffled(m, x):
  x = torch.tanh(m.a(x))
  x = x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)
  return m.out(m.b(x).mean((2, 3)))


def gated(m, x):
  value, gate = m.a(x).chunk(2, -1)
  return m.out(value * nn.functional.silu(gate))


def pixels(m, x):
  return m.b(nn.functional.pixel_shuffle(torch.relu(m.a(x)), 2)).mean((2, 3))


def turned(m, x):
  return m.out(torch.relu(m.a(x)).flip(1))


def again(m, x):
  return m.out(torch.tanh(m.b(torch.tanh(m.b(m.a(x))))))


L, C = nn.Linear, nn.Conv2d
IMAGE = (2, 3, 8, 8)
CASES = {
  "resnet": (ResNet, IMAGE),
  "flattened": (flattened, (2, 1, 14, 14)),
  "transformer": (Transformer, None),
  "fused_attention": (
    lambda: Run(fused_attention, qkv=L(16, 48), out=L(16, 16), head=L(16, 3)),
    (2, 5, 16),
  ),
  "shared_keys": (
    lambda: Run(
      shared_keys,
      q=L(16, 16),
      k=L(16, 8),
      v=L(16, 8),
      out=L(16, 16),
      head=L(16, 3),
    ),
    (2, 5, 16),
  ),
  "u_net": (
    lambda: Run(
      u_net,
      a=C(3, 6, 3, padding=1),
      b=C(6, 8, 3, padding=1),
      up=nn.ConvTranspose2d(8, 6, 2, 2),
      out=C(12, 2, 1),
    ),
    IMAGE,
  ),
  "excited": (
    lambda: Run(
      excited,
      a=C(3, 8, 1),
      b=C(3, 8, 1),
      less=L(8, 4),
      more=L(4, 8),
      out=L(8, 3),
    ),
    IMAGE,
  ),
  "shuffled": (
    lambda: Run(shuffled, a=C(3, 8, 1), b=C(8, 6, 3, groups=2), out=L(6, 2)),
    IMAGE,
  ),
  "gated": (lambda: Run(gated, a=L(6, 16), out=L(8, 3)), (4, 6)),
  "again": (lambda: Run(again, a=L(4, 8), b=L(8, 8), out=L(8, 2)), (4, 4)),
}


def case(name, seed=0):
  torch.manual_seed(seed)
  build, shape = CASES[name]
  model = build()
  with torch.no_grad():
    for key, buffer in model.named_buffers():
      if "running" in key:
        buffer.copy_(0.1 * torch.randn_like(buffer) + ("var" in key))
    for parameter in model.parameters():
      parameter.add_(0.2 * torch.randn_like(parameter))
  if shape is None:
    return model, torch.randint(0, 11, (3, 4))
  return model, torch.randn(shape)


@pytest.mark.parametrize("name", CASES)
def test_claimed_permutations_change_nothing(name):
  model, x = case(name)
  found = traced_torch.trace(model, x)
  assert model.training  # It is left as it was.
  tensors = traced_torch.tensors_of(model)
  weights = found.gather(tensors)
  check = inference.permutation_check(
    found,
    weights,
    traced_torch.make_forward(model),
    x,
    np.random.default_rng(0),
    draws=6,
  )
  assert check.change < 1e-4
  assert check.control is not None and check.control > 1e-3
  assert check.log_order > 5
  back = found.scatter(weights, tensors)
  assert list(back) == list(tensors)
  for key, value in tensors.items():
    assert back[key].tobytes() == value.tobytes(), key


@pytest.mark.parametrize(
  ("model", "shape", "said"),
  [
    (lambda: Run(turned, a=L(4, 8), out=L(8, 2)), (3, 4), "flip"),
    (lambda: Run(pixels, a=C(3, 8, 3), b=C(2, 4, 3)), IMAGE, "pixel_shuffle"),
    (lambda: Run(lambda m, x: m.a(x)[0], a=nn.LSTM(4, 6)), (2, 3, 4), "lstm"),
  ],
)
def test_what_is_not_known_claims_nothing_and_says_so(model, shape, said):
  found = traced_torch.trace(model(), torch.randn(shape))
  assert not found.spec.groups
  assert any(said in guess for guess in found.guesses)


def test_a_resnet_by_names_and_by_trace():
  model, x = case("resnet")
  traced = traced_torch.trace(model, x)
  shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
  named = inference.infer(shapes, framework="torch")
  assert named.spec == traced.spec
  assert named.left_out.keys() == traced.left_out.keys()


def test_tied_and_fused_tensors_of_a_transformer():
  model, x = case("transformer")
  found = traced_torch.trace(model, x)
  assert found.tied == {"head.weight": "words.weight"}
  kinds = {t.name: t.kind for t in found.spec.tensors}
  assert kinds["words.weight"] == "embedding"
  assert (kinds["token"], kinds["position"]) == ("class_token", "position")
  own = "blocks.layers.0.self_attn"
  assert [kinds[f"{own}.in_proj_weight.{p}"] for p in "qkv"] == [
    "attention_q",
    "attention_k",
    "attention_v",
  ]
  assert kinds[f"{own}.out_proj.weight"] == "attention_o"
  assert found.spec.skips == ((0, 3), (3, 6), (6, 9), (9, 12))


def test_a_group_too_many_is_caught():
  """The check itself: a flip that is claimed away must be seen."""
  model, x = case("gated")
  found = traced_torch.trace(model, x)
  forward = traced_torch.make_forward(model)
  weights = found.gather(traced_torch.tensors_of(model))
  index = symmetry.draw_uncoupled(found.spec, np.random.default_rng(1))
  moved = forward(found.scatter(weights[index]), x)
  assert np.abs(moved - forward(found.scatter(weights), x)).max() > 1e-3


def test_a_model_that_torch_cannot_trace():
  model = Run(lambda m, x: m.a(x) if float(x.sum()) > 0 else x, a=L(2, 2))
  with pytest.raises(ValueError, match="torch cannot trace Run"):
    traced_torch.trace(model, torch.randn(2, 2))


def plain_norm(m, x):
  return m.out(torch.tanh(nn.functional.layer_norm(m.a(x), (8,))))


@pytest.mark.parametrize(
  ("run", "name", "moves"),
  [
    (lambda m, x: m.out(torch.tanh(m.a(x))), "tanh", True),
    (lambda m, x: m.out(torch.relu(m.a(x))), "relu", True),
    (lambda m, x: m.out(torch.sin(30 * m.a(x))), "sine", True),
    (lambda m, x: m.out(torch.tanh(m.a(x)).mean(1)), "tanh", True),
    (lambda m, x: m.out(torch.relu(m.a(x)).amax(1)), "relu", True),
    (lambda m, x: m.out(torch.tanh(m.a(x)).amax(1)), "", False),
    (lambda m, x: m.out(torch.tanh(m.a(x) + 1)), "", False),
    (plain_norm, "", False),
  ],
)
def test_activations_of_a_trace(run, name, moves):
  """Signs and scales move only where the function stays the same."""
  model, x = Run(run, a=L(4, 8), out=L(8, 2)), torch.randn(3, 5, 4)
  found = traced_torch.trace(model, x)
  spec = found.spec
  if name:
    assert spec.activations[0] == name
  assert bool(augment.sign_groups(spec) + augment.scale_groups(spec)) == moves
  weights = found.gather(traced_torch.tensors_of(model))
  forward = traced_torch.make_forward(model)
  rng = np.random.default_rng(0)
  factor = augment.draw_signs(spec, rng) * augment.draw_scales(spec, rng)
  assert (factor != 1).any() == moves
  old, new = (forward(found.scatter(w), x) for w in (weights, weights * factor))
  np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-5)
