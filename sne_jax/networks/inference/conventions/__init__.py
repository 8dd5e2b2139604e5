"""Networks known by the names of their tensors.

Each function plays a published architecture's forward pass. It raises
`Mismatch` where the file is another's; tensors that are left over refuse the
convention too, as they could do anything.

Residual networks: torchvision (`layer1.0.conv1`, `features.1.conv.0`).
Transformers: torchvision (`encoder.layers.encoder_layer_0`), timm (`blocks.0`),
the transformers library (ViT and BERT `encoder.layer.0`, GPT-2 `h.0`, nanoGPT
alike) and `torch.nn.TransformerEncoder` (`layers.0.self_attn.in_proj_weight`).
"""

from collections.abc import Callable, Mapping
from typing import Any

from sne_jax.networks.inference.conventions import language, vision
from sne_jax.networks.tracing.player import Player

Play = Callable[[Player], Mapping[str, Any] | None]
"""May return options of `families.transformer`, which then runs the same."""

CONVENTIONS: dict[str, Play] = {
  "a torchvision residual network": vision.torchvision_resnet,
  "a torchvision MobileNetV2": vision.torchvision_mobilenet,
  "a torchvision vision transformer": vision.torchvision_vit,
  "a timm vision transformer": vision.timm_vit,
  "ViT of the transformers library": vision.huggingface_vit,
  "BERT of the transformers library": language.huggingface_bert,
  "GPT-2 of the transformers library": language.gpt2,
  "torch.nn.TransformerEncoder": language.torch_layers,
}
"""By what a message calls them."""
