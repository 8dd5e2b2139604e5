"""What is no chain of layers is refused, and each remedy works on the file."""

import json
import re

import numpy as np
import pytest

from sne_jax import checkpoints, errors
from sne_jax.networks import inference
from tests.checkpoints import samples


def lin(*layers, bias=True, end="weight"):
  """Dense layers: (name, out, in)."""
  shapes = {}
  for name, *shape in layers:
    shapes[f"{name}.{end}"] = tuple(shape)
    if bias:
      shapes[f"{name}.bias"] = (shape[0],)
  return shapes


def mlp(prefix, *widths, start=0):
  pairs = zip(widths, widths[1:], strict=False)
  return lin(
    *((f"{prefix}{2 * i + start}", b, a) for i, (a, b) in enumerate(pairs))
  )


def put(shapes, path, dtypes=None):
  """Writes tensors of these shapes, as safetensors or as PyTorch's archive."""
  rng = np.random.default_rng(0)
  arrays = {
    name: np.asarray(
      rng.standard_normal(shape), (dtypes or {}).get(name, np.float32)
    )
    for name, shape in shapes.items()
  }
  if path.suffix == ".pt":
    path.write_bytes(samples.torch_bytes(samples.state_dict(arrays)))
  else:
    path.write_bytes(samples.safetensors_bytes(arrays))
  return str(path)


@pytest.mark.parametrize(
  "shapes",
  [
    {"images": (100, 8, 8), "labels": (100,)},
    {"images": (100, 64), "logits": (10, 100)},
    {"x_train": (60, 5), "y_train": (60, 60), "test_images": (5, 60)},
  ],
)
def test_tables_of_samples_are_no_networks(shapes, tmp_path):
  path = put(shapes, tmp_path / "a.safetensors")
  with pytest.raises(errors.CheckpointError, match="of samples by name") as got:
    checkpoints.load(path)
  assert try_remedies(path, str(got.value)) == ["opaque"]


def test_a_layer_may_be_called_as_samples_are(tmp_path):
  shapes = lin(("inputs", 8, 4), ("logits", 3, 8))
  found = checkpoints.load(put(shapes, tmp_path / "a.safetensors"))
  assert found.spec.num_weights == 8 * 4 + 8 + 3 * 8 + 3


def try_remedies(path, line):
  """Follows what a line says, on the very file; returns what was tried."""
  tried = []
  for text in re.findall(r'\{"(?:opaque|leave_out|order)".*?\}', line):
    try:
      override = json.loads(text)
    except ValueError:  # {"order": [...]} is to be filled in.
      continue
    found = checkpoints.load(path, override=override)
    assert found.spec.num_weights
    tried.append(next(iter(override)))
  for part in re.findall(r'part="([^"]+)"', line):
    found = checkpoints.load(path, part=part)
    assert all(s.name.startswith(part) for s in found.inferred.sources)
    assert found.tensors.metadata["left_out"]
    # Names stay the file's, so that what is written fits it.
    assert set(found.inferred.scatter(found.weights())) <= set(
      checkpoints.read(path).entries
    )
    tried.append("part")
  return tried


TRUNK = mlp("net.", 6, 16, 16)
TWO = mlp("", 2, 16, 2)
GATED = (("w1", 32, 16), ("w2", 16, 32), ("w3", 32, 16))
CASES = {
  "recurrent": [
    {"rnn.weight_ih_l0": (12, 4), "rnn.weight_hh_l0": (12, 12)}
    | lin(("head", 3, 12)),
    {"core.weight_ih": (12, 12), "core.weight_hh": (12, 12)}
    | lin(("out", 3, 12)),
    lin(("i2h", 12, 4), ("h2h", 12, 12), ("h2o", 3, 12)),
    {"W_xh": (12, 12), "W_hh": (12, 12), "W_hy": (3, 12)},
    {"cell.kernel": (4, 12), "cell.recurrent_kernel": (12, 12)},
    {"params/GRUCell_0/hn/kernel": (8, 8), "params/Dense_0/kernel": (8, 8)},
    lin(*((f"x.{n}", 8, 8) for n in ("hi", "hf", "hg", "ho", "ii", "if"))),
    {"lstm.weight_hr_l0": (8, 8), "fc.weight": (8, 8)},
  ],
  "several": [
    mlp("model.", 2, 16, 2) | mlp("model_ema.", 2, 16, 2),
    mlp("online_net.", 2, 16, 2) | mlp("target_net.", 2, 16, 2),
    mlp("module.encoder_q.", 6, 16, 6) | mlp("module.encoder_k.", 6, 16, 6),
    mlp("actor.", 4, 16, 4) | mlp("critic.", 4, 16, 1),
    mlp("student.", 4, 16, 4) | mlp("teacher.", 4, 32, 4),
    mlp("models.0.", 4, 16, 4) | mlp("models.1.", 4, 16, 4),
    mlp("ensemble.members.0.", 4, 9, 4) | mlp("ensemble.members.1.", 4, 9, 4),
    mlp("generator.", 4, 16, 8) | mlp("discriminator.", 8, 16, 1),
    mlp("q1.", 4, 16, 4) | mlp("q2.", 4, 16, 4),
    mlp("agent.policy_net.", 4, 8, 4) | mlp("agent.value_net.", 4, 8, 1),
    mlp("f.", 4, 16, 4) | mlp("g.", 4, 16, 4),
    mlp("text_tower.", 4, 8, 4) | mlp("image_tower.", 4, 9, 4),
    mlp("model.", 2, 16, 2)  # As LitEma names them.
    | {f"model_ema.{k.replace('.', '')}": v for k, v in TWO.items()},
  ],
  "copies": [
    lin(("fc1", 8, 6), ("fc2", 6, 8), ("fc1_ema", 8, 6), ("fc2_ema", 6, 8)),
    lin(*((f"{n}{s}", 8, 8) for s in ("", "_target") for n in ("in", "out"))),
    lin(
      *((f"net.a{s}", 8, 6) for s in ("", "_avg")),
      *((f"net.b{s}", 3, 8) for s in ("", "_avg")),
    ),
  ],
  "nameless": [
    mlp("", 6, 16, 5) | {"centers": (5, 5)},
    mlp("model.", 6, 16, 5) | {"prototype_bank": (9, 5)},
    mlp("", 6, 16, 5) | {"anchors": (5, 5), "priors": (5, 5)},
  ],
  "complex": [
    lin(("lift", 8, 2), ("ws.0", 8, 8), ("out", 1, 8))
    | {"convs.0.weight": (8, 8, 4)},
    lin(("a", 8, 2), ("b", 8, 8)) | {"fourier_weight": (8, 8)},
    mlp("", 2, 8, 8) | {"spectral.w": (8, 8, 3)},
  ],
  "halves": [
    {"fc1.weight_real": (8, 8), "fc1.weight_imag": (8, 8)},
    lin(("fc1.real", 8, 2), ("fc1.imag", 8, 2), ("out", 2, 8)),
    lin(("conv_r", 8, 8), ("conv_i", 8, 8)),
    {"w_re": (8, 8), "w_im": (8, 8)},
  ],
  "embedding": [
    lin(("embed", 50, 16), bias=False) | lin(("fc1", 32, 16), ("fc2", 16, 32)),
    lin(("tok_emb", 16, 16), bias=False) | lin(("fc", 16, 16)),
    lin(("fc1", 32, 16), ("fc2", 16, 32)) | lin(("wte", 50, 16), bias=False),
  ],
  "gated": [
    lin(("in", 16, 4), *GATED, ("out", 3, 16), bias=False),
    lin(*((f"ffn.{n}", *s) for n, *s in GATED), bias=False),
    lin(("gate_proj", 9, 4), ("down_proj", 4, 9), ("up_proj", 9, 4)),
    lin(("fc", 9, 9), ("gate", 9, 9), ("out", 2, 9)),
    lin(("wi_0", 9, 9), ("wi_1", 9, 9), ("wo", 9, 9)),
  ],
  "excitation": [
    {"conv1.weight": (8, 3, 3, 3)}
    | lin(("se.fc1", 4, 8), ("se.fc2", 8, 4), ("head", 2, 8)),
    {"a.weight": (8, 3, 3, 3), "b.weight": (8, 8, 3, 3)}
    | {"block.fc1.weight": (2, 8, 1, 1), "block.fc2.weight": (8, 2, 1, 1)},
    {"c.weight": (8, 3, 3, 3), "conv_reduce.weight": (2, 8, 1, 1)}
    | {"conv_expand.weight": (8, 2, 1, 1)},
    {"c.weight": (8, 3, 3, 3), "squeeze.weight": (2, 8, 1, 1)}
    | {"excite.weight": (8, 2, 1, 1)},
  ],
  "heads": [
    TRUNK | lin(("mu", 16, 16), ("logvar", 16, 16), ("dec", 6, 16)),
    TRUNK | lin(("fc_mean", 16, 16), ("fc_var", 16, 16), ("fc3", 6, 16)),
    TRUNK | lin(("policy", 16, 16), ("value", 1, 16)),
    TRUNK | lin(("to_mu", 16, 16), ("to_log_sigma", 16, 16)),
    TRUNK | lin(("advantage_stream", 16, 16), ("value_stream", 1, 16)),
    TRUNK | lin(("head_a", 16, 16), ("head_b", 16, 16)),
    TRUNK | lin(("heads.0", 16, 16), ("heads.1", 16, 16)),
    TRUNK | lin(("cls_score", 16, 16), ("bbox_pred", 4, 16)),
    lin(*((f"w{n}", 16, 16) for n in "qkvo"), ("out", 3, 16)),
    lin(
      *((f"to{n}", 9, 9) for n in ("queries", "keys", "values")), ("x", 3, 9)
    ),
    TRUNK | lin(*((f"w_{n}s", 16, 16) for n in "qkv"), ("fc", 16, 16)),
    lin(*((n, 9, 9) for n in ("theta", "phi", "g", "W"))),
    lin(("fc1", 16, 6), ("fc21", 16, 16), ("fc22", 16, 16))
    | lin(("fc3", 16, 16), ("fc4", 6, 16)),
    TRUNK | lin(("out1", 16, 16), ("out2", 4, 16)),
  ],
  "stacked": [
    {
      f"layers.{i}.weight": (5, a, b)
      for i, a, b in ((0, 4, 9), (1, 9, 9), (2, 9, 2))
    },
    {f"l{i}.weight": (5, b, a) for i, a, b in ((0, 4, 9), (1, 9, 2))},
    {"w1": (6, 4, 8), "w2": (6, 8, 3)},
  ],
  "branches": [
    lin(("fc0", 4, 3), ("proj0", 4, 3), ("fc1", 3, 4)),
    lin(("fc1", 9, 9), ("fc2", 9, 9), ("fc2b", 9, 9), ("out", 3, 9)),
    TRUNK | lin(("branch1", 16, 16), ("branch2", 16, 16), ("fc", 3, 16)),
    TRUNK | lin(("experts.0.fc", 16, 16), ("experts.1.fc", 16, 16)),
    TRUNK | lin(("left_tower", 16, 16), ("right_tower", 16, 16)),
  ],
}
COMPLEX = ("convs.0.weight", "fourier_weight", "spectral.w")
FLAT = [(kind, i) for kind, cases in CASES.items() for i in range(len(cases))]


@pytest.mark.parametrize(("kind", "number"), FLAT)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_it_is_refused_in_one_line_whose_remedy_works(
  kind, number, suffix, tmp_path
):
  dtypes = dict.fromkeys(COMPLEX if kind == "complex" else (), np.complex64)
  shapes = CASES[kind][number]
  path = put(shapes, tmp_path / f"net{suffix}", dtypes)
  with pytest.raises(errors.CheckpointError) as error:
    checkpoints.load(path)
  line = str(error.value)
  assert "\n" not in line and any(n.split(".")[0] in line for n in shapes)
  assert try_remedies(path, line)


@pytest.mark.parametrize("number", range(len(CASES["copies"])))
def test_copies_beside_single_layers_are_left_out_by_name(number, tmp_path):
  shapes = CASES["copies"][number]
  path = put(shapes, tmp_path / "net.pt")
  line = refusal(path)
  found = checkpoints.load(
    path, override=json.loads(line[line.index("{") :].partition(";")[0])
  )
  assert len(found.spec.tensors) == len(shapes) // 2


def refusal(path, **given):
  with pytest.raises(errors.CheckpointError) as error:
    checkpoints.load(path, **given)
  return str(error.value)


def test_all_of_a_complex_layer_is_left_out_if_the_rest_is_read(tmp_path):
  shapes = mlp("", 4, 12, 20, 3)
  dtypes = {"0.weight": np.complex64}
  path = put(shapes, tmp_path / "a.pt", dtypes)
  both = '{"leave_out": ["0.weight", "0.bias"]}'
  assert both in refusal(path)
  assert both in refusal(path, override={"leave_out": ["0.weight"]})
  assert checkpoints.load(path, override=json.loads(both)).spec.num_levels == 2
  path = put(shapes, tmp_path / "b.pt", {"2.weight": np.complex64})
  line = refusal(path)  # Without it the others do not meet.
  assert "leave_out" not in line and try_remedies(path, line) == ["opaque"]


@pytest.mark.parametrize("other", ["mlp", "patch_mix"])
def test_a_part_that_is_named_is_read_with_what_is_named_beside(
  other, tmp_path
):
  shapes = lin(
    *((f"{n}.{k}", 8, 8) for n in ("token_mix", other) for k in (0, 2))
  )
  path = put(shapes | lin(("head", 3, 8)), tmp_path / "a.pt")
  line = refusal(path)
  part = re.search(r'part="([^"]+)"', line)[1]
  shown = re.search(r"and the override (.*)$", line)
  assert (part, bool(shown)) == (
    ("mlp", False) if other == "mlp" else ("token_mix", True)
  )
  override = json.loads(shown[1]) if shown else None
  found = checkpoints.load(path, part=part, override=override)
  assert found.spec.num_levels == 2


@pytest.mark.parametrize(
  "shapes",
  [
    mlp("", 4, 16, 16, 3),
    mlp("model.", 4, 16, 16, 3),
    mlp("module._orig_mod.net.", 4, 16, 16, 3),
    mlp("encoder.", 8, 16, 2) | mlp("decoder.", 2, 16, 8),
    mlp("features.", 4, 16) | mlp("classifier.", 16, 16, 3),
    lin(("fc1", 16, 4), ("fc2", 16, 16), ("fc3", 3, 16)),
    lin(("input_layer", 16, 4), ("hidden", 16, 16), ("output_layer", 3, 16)),
    mlp("backbone.", 4, 16) | mlp("head.", 16, 16, 3),
    lin(*((f"fc{i + 1}", 8, 8) for i in range(25))),
    {"W1": (5, 4), "b1": (5,), "W2": (6, 5), "b2": (6,), "W3": (2, 6)},
    mlp("layers.", 4, 16, 16, 16, 3),
    mlp("actor.", 4, 16, 16, 3),
    mlp("blocks.0.", 8, 16, 8) | mlp("blocks.1.", 8, 16, 8),
    {"conv1.weight": (8, 3, 3, 3), "conv2.weight": (8, 8, 3, 3)}
    | lin(("fc", 3, 8)),
  ],
  ids=lambda shapes: next(iter(shapes)),
)
def test_plain_networks_are_read(shapes):
  found = inference.infer(shapes, framework="torch")
  assert {s.name for s in found.sources} == shapes.keys()


LEFT = [
  ("criterion.weight", (5,), "of a loss"),
  ("criterion.pos_weight", (), "of a loss"),
  ("loss_fn.weight", (5,), "of a loss"),
  ("ce_loss.class_weights", (5,), "of a loss"),
  ("loss.discriminator.0.weight", (5, 5), "of a loss"),
  ("class_weights", (5,), "of classes"),
  ("val_confmat.confmat", (5, 5), "confusion"),
  ("val_confmat_confmat", (5, 5), "confusion"),
  ("confusion_matrix", (5, 5), "confusion"),
  ("metrics.total", (5,), "of a metric"),
  ("train_acc.correct", (5,), "of a metric"),
  ("queue", (5, 32), "a queue"),
  ("text_queue", (5, 32), "a queue"),
  ("memory_bank", (9, 5), "a memory"),
  ("log_scale", (), "one number"),
  ("n_averaged", (), "a counter"),
  ("0.weight_fake_quant.scale", (16,), "whole numbers"),
  ("2.activation_post_process.min_val", (5,), "whole numbers"),
]


@pytest.mark.parametrize(("name", "shape", "why"), LEFT)
@pytest.mark.parametrize("wrapper", ["", "module."])
def test_what_is_no_layer_is_left_out_and_said(name, shape, why, wrapper):
  plain = mlp("model.", 6, 16, 5)
  shapes = {f"{wrapper}{n}": s for n, s in (plain | {name: shape}).items()}
  found = inference.infer(shapes, framework="torch")
  assert why in found.left_out[f"{wrapper}{name}"]
  assert len(found.sources) == len(plain)


def test_a_loss_alone_is_a_network():
  shapes = mlp("loss.", 6, 16, 5)
  assert len(inference.infer(shapes, framework="torch").sources) == 4
  shapes = lin(("metric_fc", 16, 6), ("out", 5, 16))
  assert not inference.infer(shapes, framework="torch").left_out


def test_an_order_says_that_it_is_a_chain():
  shapes = TRUNK | lin(("mu", 16, 16), ("logvar", 16, 16))
  order = ["net.0", "net.2", "mu", "logvar"]
  found = inference.infer(shapes, framework="torch", override={"order": order})
  assert found.spec.num_levels == 4
  # But what is certainly none stays none.
  shapes = CASES["recurrent"][2]
  with pytest.raises(inference.AmbiguousError, match="recurrent"):
    inference.infer(
      shapes, framework="torch", override={"order": ["i2h", "h2h", "h2o"]}
    )


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_parts_by_the_start_of_names(suffix, tmp_path):
  shapes = mlp("module.encoder_q.", 6, 16, 6)
  shapes |= mlp("module.encoder_k.", 6, 16, 6) | {"module.queue": (6, 32)}
  path = put(shapes, tmp_path / f"moco{suffix}")
  want = list(mlp("module.encoder_k.", 6, 16, 6))
  for part in ("module.encoder_k", "encoder_k", "module/encoder_k"):
    found = checkpoints.load(path, part=part)
    assert [s.name for s in found.inferred.sources] == sorted(
      want, key=list(found.tensors.entries).index
    )
    assert "module.encoder_q (4 tensors" in found.tensors.metadata["left_out"]
  with pytest.raises(errors.CheckpointError, match="module.encoder_q, "):
    checkpoints.load(path, part="encoder")
