"""Files that hold no network: adapters are described, and refused."""

import json

import numpy as np
import pytest

from sne_jax import checkpoints, errors
from sne_jax.networks import inference
from tests.checkpoints import samples


def pairs(form, layers, a, b, **more):
  """Two tensors for every layer, by a form of their names."""
  shapes = {}
  for layer in layers:
    shapes[form[0].format(layer)] = a
    shapes[form[1].format(layer)] = b
    for end, shape in more.items():
      shapes[f"{layer}.{end}"] = shape
  return shapes


PEFT = (
  "base_model.model.{}.lora_A.weight",
  "base_model.model.{}.lora_B.weight",
)
QV = ("h.0.self_attn.q_proj", "h.0.self_attn.v_proj")
UNET = ("lora_unet_down_blocks_0_attn1_to_q", "lora_te_layers_1_mlp_fc1")
ADAPTERS = {
  "peft": (pairs(PEFT, QV, (4, 32), (16, 4)), "LoRA", "4", "q_proj, v_proj"),
  "classifier": (
    pairs(PEFT, QV, (4, 32), (16, 4))
    | {"base_model.model.classifier.weight": (3, 32)},
    *("LoRA", "4", "q_proj, v_proj"),
  ),
  "named": (
    pairs(("{}.lora_A.default.weight", "{}.lora_B.default.weight"), QV, (2, 8),
          (8, 2)),
    *("LoRA", "2", "q_proj, v_proj"),
  ),
  "kohya": (
    pairs(("{}.lora_down.weight", "{}.lora_up.weight"), UNET, (8, 32),
          (32, 8), alpha=()),
    *("LoRA", "8", "attn1_to_q, mlp_fc1"),
  ),
  "conv": (
    pairs(("{}.lora_down.weight", "{}.lora_up.weight"), ("conv_in",),
          (8, 4, 3, 3), (32, 8, 1, 1)),
    *("LoRA", "8", "conv_in"),
  ),
  "diffusers": (
    pairs(("{}.to_q_lora.down.weight", "{}.to_q_lora.up.weight"),
          ("unet.attn1.processor",), (4, 9), (9, 4)),
    *("LoRA", "4", "to_q"),
  ),
  "mlx": (
    pairs(("{}.lora_a", "{}.lora_b"), QV, (32, 6), (6, 32)),
    *("LoRA", "6", "q_proj, v_proj"),
  ),
  "loha": (
    pairs(("{}.hada_w1_a", "{}.hada_w1_b"), UNET, (32, 5), (5, 32), alpha=())
    | pairs(("{}.hada_w2_a", "{}.hada_w2_b"), UNET, (32, 5), (5, 32)),
    *("LoHa", "5", "attn1_to_q, mlp_fc1"),
  ),
  "lokr": (
    pairs(("{}.lokr_w1", "{}.lokr_w2_a"), UNET, (4, 4), (8, 3), alpha=())
    | {f"{layer}.lokr_w2_b": (3, 8) for layer in UNET},
    *("LoKr", "3", "attn1_to_q, mlp_fc1"),
  ),
}  # fmt: skip


def put(path, shapes, metadata=None):
  rng = np.random.default_rng(0)
  arrays = {
    name: np.float32(16) if name.endswith("alpha") else rng.normal(size=shape)
    for name, shape in shapes.items()
  }
  arrays = {n: np.asarray(a, np.float32) for n, a in arrays.items()}
  path.write_bytes(
    samples.torch_bytes(samples.state_dict(arrays))
    if path.suffix == ".bin"
    else samples.safetensors_bytes(arrays, metadata)
  )
  return str(path)


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_an_adapter_is_named_and_refused(name, suffix, tmp_path):
  shapes, kind, rank, targets = ADAPTERS[name]
  path = put(tmp_path / f"adapter_model{suffix}", shapes)
  facts = checkpoints.describe_contents(checkpoints.read(path)).facts
  assert (facts["kind"], facts["rank"]) == (kind, rank)
  assert facts["target modules"] == targets
  assert facts.get("alpha") == ("16" if f"{UNET[0]}.alpha" in shapes else None)
  with pytest.raises(errors.CheckpointError) as error:
    checkpoints.load(path)
  line = str(error.value)
  assert f"a {kind} adapter of rank {rank} for " in line and "\n" not in line
  assert ("1 other tensor" in line) == (name == "classifier")
  # The remedy works: its numbers alone, and no permutation.
  assert '{"opaque": true}' in line
  found = checkpoints.load(path, override={"opaque": True})
  assert not found.spec.groups
  with pytest.raises(inference.AmbiguousError, match=f"a {kind} adapter"):
    inference.infer(shapes, framework="safetensors")


def test_what_the_file_and_its_neighbour_say_is_shown(tmp_path):
  path = put(tmp_path / "adapter_model.safetensors", ADAPTERS["peft"][0])
  config_file = tmp_path / "adapter_config.json"
  said = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"}
  said |= {"target_modules": ["v_proj", "q_proj"]}
  said |= {"base_model_name_or_path": "some/base"}
  config_file.write_text(json.dumps(said))
  facts = checkpoints.describe_contents(checkpoints.read(path)).facts
  assert facts["alpha"] == "8" and facts["base model"] == "some/base"
  assert facts["target modules"] == "q_proj, v_proj"
  config_file.write_text("[1, 2")  # A damaged neighbour does no harm.
  assert (
    "alpha" not in checkpoints.describe_contents(checkpoints.read(path)).facts
  )
  stated = {"ss_network_alpha": "2", "ss_sd_model_name": "sd15"}
  path = put(tmp_path / "k.safetensors", ADAPTERS["kohya"][0], stated)
  facts = checkpoints.describe_contents(checkpoints.read(path)).facts
  assert facts["alpha"] == "2" and facts["base model"] == "sd15"


@pytest.mark.parametrize(
  "shapes",
  [
    {"fc.weight": (9, 8), "fc.lora_A": (4, 8), "fc.lora_B": (9, 4)},
    {
      "fc.base_layer.weight": (9, 8),
      "fc.lora_A.default.weight": (4, 8),
      "fc.lora_B.default.weight": (9, 4),
    },
    {"fc/kernel": (8, 9), "fc/lora_a": (8, 4), "fc/lora_b": (4, 9)},
  ],
  ids=["loralib", "peft", "flax"],
)
def test_a_network_whose_adapter_is_not_merged_is_one(shapes, tmp_path):
  path = put(tmp_path / "n.safetensors", shapes)
  said = "a network with a LoRA adapter of rank 4 that is not merged into 1 of"
  with pytest.raises(errors.CheckpointError, match=said) as error:
    checkpoints.load(path)
  assert "merge it into its base model" in str(error.value)


def test_networks_are_no_adapters(tmp_path):
  path = put(tmp_path / "n.safetensors", {"alpha.weight": (3, 2)})
  assert checkpoints.describe_contents(checkpoints.read(path)) is None
