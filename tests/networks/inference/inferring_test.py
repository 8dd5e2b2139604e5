"""Plain networks from names and shapes, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from sne_jax.networks import families, inference, symmetry
from tests.networks.inference.plain_networks import groups_of, mlp

RNG = np.random.default_rng


def draw(shapes, seed=0):
  rng = RNG(seed)
  return {
    name: rng.standard_normal(shape, np.float32)
    for name, shape in shapes.items()
  }


@pytest.mark.parametrize(
  "names",
  [
    ("0", "2", "10"),
    ("fc1", "fc2", "fc3"),
    ("model.layers.8", "model.layers.9", "model.layers.10"),
    ("body.net0", "body.net1", "head"),
  ],
)
@pytest.mark.parametrize("framework", ["torch", "safetensors"])
def test_layers_in_any_names(names, framework):
  shapes = mlp(2, 5, 6, 3, names=names)
  if framework == "safetensors":
    shapes = dict(sorted(shapes.items()))
  found = inference.infer(shapes, framework=framework)
  weights = [t for t in found.spec.tensors if t.kind == "linear_weight"]
  assert [t.name for t in weights] == [f"{n}.weight" for n in names]
  assert [t.level for t in weights] == [0, 1, 2]
  assert groups_of(found, f"{names[1]}.weight") == [[names[1]], [names[0]]]
  assert groups_of(found, f"{names[2]}.weight") == [[None], [names[1]]]
  assert found.spec.tensor(f"{names[1]}.bias").of == f"{names[1]}.weight"
  assert symmetry.log_order(found.spec) == pytest.approx(np.log(120 * 720))


def test_names_of_arrays_alone():
  shapes = {"W1": (5, 2), "b1": (5,), "W2": (3, 5), "b2": (3,)}
  found = inference.infer(shapes, framework="npz")
  assert [t.kind for t in found.spec.tensors] == [
    "linear_weight",
    "linear_bias",
  ] * 2
  assert groups_of(found, "W2")[1] == groups_of(found, "W1")[0] == ["W1"]


def test_a_family_that_fits_can_be_run():
  built = families.build("mlp", widths=(2, 5, 6, 3))
  override = {
    "family": "mlp",
    "options": {"widths": [2, 5, 6, 3], "activation": "relu"},
  }
  shapes = mlp(2, 5, 6, 3)
  found = inference.infer(shapes, framework="torch", override=override)
  assert found.spec == built
  weights = found.gather(draw(shapes))
  x = RNG(1).standard_normal((4, 2), np.float32)
  y = families.forward(found.spec, weights, x)
  t, h = draw(shapes), x
  for name in ("0", "2", "4"):
    h = h @ t[f"{name}.weight"].T + t[f"{name}.bias"]
    h = np.maximum(h, 0) if name != "4" else h
  np.testing.assert_allclose(y, h, rtol=1e-5, atol=1e-5)
  override["options"]["widths"] = [2, 5, 3]
  with pytest.raises(ValueError, match="family 'mlp' with these options has"):
    inference.infer(shapes, framework="torch", override=override)


CNN = {
  "image_shape": (3, 9, 9),
  "channels": (4, 6),
  "dense": (7,),
  "num_classes": 5,
  "head": "flatten",
}


@pytest.mark.parametrize("framework", ["torch", "flax", "keras"])
def test_conv_nets_with_a_flattening(framework):
  """In the layout of each framework, against our own family, run."""
  last = framework != "torch"
  order = "channels_last" if last else "channels_first"
  options = CNN | {"flatten_order": order}
  spec = families.build("cnn", **options)
  weights = families.random_weights(spec, RNG(0))
  file = {}
  for name, array in spec.unflatten(weights).items():
    layer, part = name.split(".")
    number = int(layer[-1])
    if last and part == "weight":
      array = array.transpose((2, 3, 1, 0) if array.ndim == 4 else (1, 0))
    kind = "conv" if layer.startswith("conv") else "dense"
    names = {
      "torch": f"{kind}{number}.{part}",
      "flax": f"params/{kind.title()}_{number}/"
      + {"weight": "kernel", "bias": "bias"}[part],
      "keras": f"layers/{kind}{f'_{number}' if number else ''}/vars/"
      + {"weight": "0", "bias": "1"}[part],
    }
    file[names[framework]] = np.ascontiguousarray(array)
  file = dict(sorted(file.items()))
  shapes = {name: array.shape for name, array in file.items()}
  override = {"family": "cnn", "options": options}
  plain = inference.infer(shapes, framework=framework)
  found = inference.infer(shapes, framework=framework, override=override)
  assert found.spec == spec
  for mine, theirs in zip(plain.spec.tensors, spec.tensors, strict=True):
    assert mine.level == theirs.level and mine.shape == theirs.shape
    assert [[(f.size, f.group is None) for f in a] for a in mine.axes] == [
      [(f.size, f.group is None) for f in a] for a in theirs.axes
    ]
  assert symmetry.log_order(plain.spec) == pytest.approx(
    symmetry.log_order(spec)
  )
  np.testing.assert_array_equal(found.gather(file), weights)
  back = found.scatter(weights, file)
  assert all((back[k] == v).all() for k, v in file.items())
  run = jax.jit(lambda t, x: families.run(spec, spec_tensors(found, t), x))
  x = RNG(1).standard_normal((2, 3, 9, 9), np.float32)
  check = inference.permutation_check(plain, weights, run, x, RNG(2))
  assert check.passes()
  other = {"flatten": "channels_last" if not last else "channels_first"}
  wrong = inference.infer(shapes, framework=framework, override=other)
  weights = wrong.gather(file)
  assert not inference.permutation_check(
    wrong, weights, run, x, RNG(2), draws=5
  ).passes()


def spec_tensors(found, tensors):
  """The tensors of a file as those of the spec, also under jit."""
  made = {}
  for source in found.sources:
    array = tensors[source.name].reshape(source.view).transpose(source.order)
    made[source.tensor] = array.reshape(source.shape)
  return made


def test_vgg_with_norms_by_numbers():
  shapes = {}
  for place, (into, out) in zip(
    (0, 3, 7, 10), ((3, 8), (8, 8), (8, 8), (8, 8)), strict=True
  ):
    shapes[f"features.{place}.weight"] = (out, into, 3, 3)
    shapes[f"features.{place}.bias"] = (out,)
    for part in ("weight", "bias", "running_mean", "running_var"):
      shapes[f"features.{place + 1}.{part}"] = (out,)
  shapes |= {"classifier.0.weight": (9, 8 * 49), "classifier.0.bias": (9,)}
  shapes |= {"classifier.3.weight": (4, 9), "classifier.3.bias": (4,)}
  found = inference.infer(dict(sorted(shapes.items())), framework="safetensors")
  assert found.spec.tensor("features.8.running_var").of == "features.7.weight"
  assert found.spec.tensor("classifier.0.weight").level == 4
  flat = found.spec.tensor("classifier.0.weight").axes[1]
  assert [(f.size, f.group) for f in flat] == [(8, "features.0"), (49, None)]
  # Square kernels could be those of transposed convolutions.
  found = inference.infer(
    dict(sorted(shapes.items())),
    framework="safetensors",
    override={"layout": "out_in"},
  )
  flat = found.spec.tensor("classifier.0.weight").axes[1]
  assert [(f.size, f.group) for f in flat] == [(8, "features.10"), (49, None)]
  assert any("49 places" in guess for guess in found.guesses)


def test_norms_of_one_number_with_their_layer():
  shapes = mlp(3, 8, 8, 8, 2, names=["fc1", "fc2", "fc3", "fc4"])
  for place in (1, 3):
    shapes |= {f"bn{place}.{p}": (8,) for p in ("running_mean", "running_var")}
  found = inference.infer(dict(sorted(shapes.items())), framework="safetensors")
  assert found.spec.tensor("bn3.running_var").of == "fc3.weight"
  # Of Flax the numbers count each kind of layer: two of three are behind.
  flax = {f"params/Dense_{i}/kernel": (8, 8) for i in range(3)}
  flax["params/Dense_3/kernel"] = (8, 2)
  flax |= {f"params/LayerNorm_{i}/scale": (8,) for i in range(2)}
  with pytest.raises(inference.AmbiguousError, match='{"norm_behind": {"Layer'):
    inference.infer(flax, framework="flax")
  behind = {"LayerNorm_0": "Dense_0", "LayerNorm_1": "Dense_2"}
  found = inference.infer(
    flax, framework="flax", override={"norm_behind": behind, "skips": []}
  )
  assert groups_of(found, "params/LayerNorm_1/scale") == [["params/Dense_2"]]


def test_groups_of_a_norm_are_not_made_up():
  shapes = {
    "0.weight": (8, 3, 3, 3),
    "1.weight": (8,),
    "1.bias": (8,),
    "3.weight": (5, 8, 3, 3),
  }
  unknown = inference.infer(shapes, framework="torch")
  assert groups_of(unknown, "0.weight")[0] == [None]
  assert any("norm_groups" in guess for guess in unknown.guesses)
  known = inference.infer(
    shapes, framework="torch", override={"norm_groups": {"1": 4}}
  )
  assert [f.size for f in known.spec.tensor("0.weight").axes[0]] == [4, 2]
  one = inference.infer(
    shapes, framework="torch", override={"norm_groups": {"1": 1}}
  )
  assert groups_of(one, "0.weight")[0] == ["0"]


def test_keras_depthwise_kernels():
  shapes = {
    "layers/conv2d/vars/0": (3, 3, 1, 4),
    "layers/depthwise_conv2d/vars/0": (3, 3, 4, 1),
    "layers/dense/vars/0": (4, 2),
    "optimizer/vars/0": (),
  }
  override = {
    "order": ["layers/conv2d", "layers/depthwise_conv2d", "layers/dense"]
  }
  found = inference.infer(shapes, framework="keras", override=override)
  t = found.spec.tensor("layers/depthwise_conv2d/vars/0")
  assert t.shape == (4, 1, 3, 3)
  assert t.axes[0] == found.spec.tensor("layers/conv2d/vars/0").axes[0]
  assert found.left_out == {"optimizer/vars/0": "the state of an optimizer"}
  tensors = draw(shapes)
  back = found.scatter(found.gather(tensors), tensors)
  assert all((back[k] == v).all() for k, v in tensors.items())


@dataclasses.dataclass
class Entry:
  array: np.ndarray
  tied_to: str | None = None

  @property
  def shape(self):
    return self.array.shape

  @property
  def dtype(self):
    return str(self.array.dtype)

  def read(self):
    return self.array


@dataclasses.dataclass
class Tensors:
  entries: dict
  format: str
  graph: object = None


def test_a_file_of_tensors():
  tensors = draw(mlp(2, 3, 1))
  tensors["steps"] = np.arange(3)
  entries = {name: Entry(array) for name, array in tensors.items()}
  entries["copy"] = Entry(tensors["0.weight"], tied_to="0.weight")
  found = inference.infer_file(Tensors(entries, "safetensors"))
  assert found.tied == {"copy": "0.weight"}
  assert "int64" in found.left_out["steps"]
  back = found.scatter(found.gather(entries), entries)
  assert list(back) == list(entries)
  for name, entry in entries.items():
    assert back[name].dtype == entry.array.dtype
    np.testing.assert_array_equal(back[name], entry.array)


def test_other_shapes_and_missing_tensors_are_named():
  shapes = mlp(2, 3, 1)
  found = inference.infer(shapes, framework="torch")
  tensors = draw(shapes)
  with pytest.raises(ValueError, match="'2.bias' is missing"):
    found.gather({k: v for k, v in tensors.items() if k != "2.bias"})
  with pytest.raises(ValueError, match=r"'0.bias' has shape \(4,\)"):
    found.gather(tensors | {"0.bias": np.zeros(4, np.float32)})


class TwiceGraph:
  """A file that says: `one`, then `two`, whose kernel is used twice."""

  def __init__(self, fails=False):
    self.fails = fails

  def play(self, player):
    if self.fails:
      raise inference.Mismatch("loops in it")
    x = player.tape.input((1, 2))
    for name in ("one", "two", "again", "out"):
      x = player.activate(player.linear(x, f"{name}.weight"))
    player.tape.output(x)


def test_a_graph_in_the_file_comes_first():
  """Names would read four layers in the order of the file, last first."""
  tensors = draw(mlp(2, 4, 4, names=["one", "two"], bias=False))
  tensors = draw({"out.weight": (3, 4)}) | tensors
  tensors |= draw({"unused.weight": (4, 4)})
  entries = {name: Entry(array) for name, array in tensors.items()}
  entries["again.weight"] = Entry(tensors["two.weight"], "two.weight")
  entries["again.unused"] = Entry(tensors["unused.weight"], "unused.weight")
  file = Tensors(entries, "torch", TwiceGraph())
  found = inference.infer_file(file)
  assert found.how == "traced" and set(found.known.values()) == {"traced"}
  assert [s.name for s in found.sources] == [
    "one.weight",
    "two.weight",
    "out.weight",
  ]
  # What is used twice reads what it gives: one group.
  assert groups_of(found, "two.weight") == [["one"], ["one"]]
  assert "no part" in found.left_out["unused.weight"]
  assert found.tied == {"again.weight": "two.weight"}
  back = found.scatter(found.gather(entries), entries)
  assert all((back[k] == e.array).all() for k, e in entries.items())

  def run(t, x):
    for name in ("one", "two", "two", "out"):
      x = np.maximum(x @ t[f"{name}.weight"].T, 0)
    return x

  x = RNG(1).standard_normal((5, 2))
  check = inference.permutation_check(
    found, found.gather(entries), run, x, RNG(2)
  )
  assert check.passes() and check.log_order > 3
  file.graph = TwiceGraph(fails=True)
  with pytest.raises(inference.AmbiguousError, match="loops in it") as error:
    inference.infer_file(file)
  assert '{"opaque": true}' in str(error.value)
  # A person's word on how layers follow each other counts for more.
  del entries["again.unused"]
  order = ["one", "unused", "two", "again", "out"]
  for twice in ("again", "two"):  # Under its second name or its own.
    order[3] = twice
    found = inference.infer_file(file, {"order": order, "skips": []})
    assert found.how == "guessed"
    assert groups_of(found, "unused.weight") == [["unused"], ["one"]]
    assert groups_of(found, "two.weight") == [["unused"], ["unused"]]


NNX = {
  "layers/0/kernel/value": (4, 8),
  "layers/0/bias/value": (8,),
  "layers/1/kernel/value": (8, 5),
  "layers/1/bias/value": (5,),
}


@pytest.mark.parametrize(
  "name", [lambda n: n, lambda n: n.replace("value", "raw_value")]
)
@pytest.mark.parametrize("framework", ["orbax", "flax"])
def test_leaves_of_nnx_are_called_value(framework, name):
  shapes = {name(n): shape for n, shape in NNX.items()}
  found = inference.infer(shapes, framework=framework)
  plain = {n.removesuffix("/value"): shape for n, shape in NNX.items()}
  same = inference.infer(plain, framework=framework)
  kinds = lambda spec: [(t.kind, t.shape, t.level) for t in spec.tensors]
  assert kinds(found.spec) == kinds(same.spec)
  assert {s.name for s in found.sources} == set(shapes)


def test_norms_of_nnx():
  shapes = {
    "conv/kernel/value": (3, 3, 1, 8),
    "conv/bias/value": (8,),
    "bn/mean/value": (8,),
    "bn/var/value": (8,),
    "bn/scale/value": (8,),
    "bn/bias/value": (8,),
    "fc/kernel/value": (8, 3),
    "dropout/rngs/count/value": (),
  }
  dtypes = dict.fromkeys(shapes, "float32")
  dtypes["dropout/rngs/count/value"] = "uint32"
  found = inference.infer(
    shapes,
    framework="orbax",
    dtypes=dtypes,
    override={"order": ["conv", "fc"], "norm_behind": {"bn": "conv"}},
  )
  kinds = {s.name: t.kind for s, t in zip(
    found.sources, found.spec.tensors, strict=True
  )}  # fmt: skip
  assert kinds["bn/mean/value"] == "norm_mean"
  assert kinds["bn/scale/value"] == "norm_scale"
  assert kinds["conv/kernel/value"] == "conv_weight"
  assert "dropout/rngs/count/value" in found.left_out
