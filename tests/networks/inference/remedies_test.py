"""What a message says to write down works on the file that raised it."""

import json

import pytest

from sne_jax.networks import inference
from tests.networks.inference import conventions_test
from tests.networks.inference.plain_networks import infer, layer, named, norm


def remedies(text):
  """The overrides that a message shows."""
  decoder, found, start = json.JSONDecoder(), [], text.find('{"')
  while start >= 0:
    value, end = decoder.raw_decode(text, start)
    found.append(value)
    start = text.find('{"', end)
  return found


def said(shapes, framework, override=None):
  """What is refused, or noted."""
  try:
    return infer(shapes, framework, override).guesses, False
  except inference.AmbiguousError as error:
    return (str(error),), True


IMAGE = layer(8, 3, 3, 3)
FILES = {
  "an unknown part": ("torch", named(a=layer(4, 3)) | {"a.spam_eggs": (7,)}),
  "a layer of unknown shape": ("torch", {"a.weight": (4, 3), "a.bias": (2, 2)}),
  "names of another kind": (
    "torch",
    named(attention1=layer(4, 3), out=layer(2, 4)),
  ),
  "a table of words": ("torch", named(embedding=layer(4, 3), out=layer(2, 4))),
  "no order": ("torch", named(a=layer(4, 3), b=layer(6, 5))),
  "no order but another layout": (
    "torch",
    {"gc1.weight": (9, 4), "gc2.weight": (4, 2)},
  ),
  "more than one order": (
    "safetensors",
    named(one=layer(4, 4), two=layer(4, 4)),
  ),
  "another order": ("torch", named(top=layer(4, 9), low=layer(9, 4))),
  "square kernels": ("npz", {"w1": (4, 4), "w2": (4, 4)}),
  "kernels of MLX": ("safetensors", named(a=layer(3, 3, 3, 3))),
  "square images": (
    "torch",
    named(_0=IMAGE, _2=layer(8, 8, 3, 3), _4=layer(3, 8, 3, 3)),
  ),
  "a square list": (
    "torch",
    named(_0=IMAGE, _2=layer(8, 8, 3, 3), _4=layer(2, 8)),
  ),
  "squares beside others": (
    "torch",
    {"0.weight": (4, 9), "0.bias": (9,), "2.weight": (9, 9), "4.weight": (9, 9)}
    | {"6.weight": (9, 3), "6.bias": (3,), "2.bias": (9,)},
  ),
  "a last channel": (
    "torch",
    named(_0=layer(8, 1, 3, 3), _2=layer(8, 1, 3, 3, bias=False)),
  ),
  "channels alone": (
    "torch",
    named(_0=IMAGE, _2=layer(8, 1, 3, 3), _4=layer(5, 8, 1, 1)),
  ),
  "a first layer of few channels": (
    "torch",
    named(_0=layer(3, 1, 3, 3), _2=layer(2, 3)),
  ),
  "groups": ("torch", named(_0=IMAGE, _2=layer(6, 4, 3, 3), _4=layer(2, 6))),
  "a transposed first layer": (
    "torch",
    {"0.weight": (10, 32, 4, 4), "2.weight": (16, 32, 3, 3)},
  ),
  "groups of square kernels": (
    "torch",
    named(c1=layer(8, 4, 3, 3), c2=layer(16, 4, 3, 3), c3=layer(8, 8, 1, 1))
    | named(head=layer(4, 8)),
  ),
  "a skip": ("torch", named(a=layer(8, 3), b=layer(8, 8), c=layer(2, 8))),
  "a skip from the inputs": ("torch", named(fc1=layer(8, 8), fc2=layer(2, 8))),
  "a skip, and another order": (
    "torch",
    named(a=layer(8, 8), b=layer(8, 8), c=layer(8, 8)),
  ),
  "norms before or behind": (
    "safetensors",
    named(bn1=norm(8), bn2=norm(8), conv0=IMAGE, conv1=layer(8, 8, 3, 3))
    | named(conv2=layer(8, 8, 3, 3)),
  ),
  "norms of no place": (
    "torch",
    named(_0=layer(4, 3), _2=layer(2, 4), strange=norm(7)),
  ),
  "norms of no place in a list": (
    "torch",
    named(_0=layer(4, 3), _1=norm(7), _2=layer(2, 4)),
  ),
  "norms without numbers": (
    "safetensors",
    named(fc1=layer(6, 6), fc2=layer(6, 6), norm=norm(6)),
  ),
  "groups of a norm": (
    "torch",
    named(_0=layer(8, 3), _1=norm(8, running=False), _3=layer(2, 8)),
  ),
  "a flattening": ("torch", named(conv=IMAGE, fc=layer(2, 8 * 9))),
  "a convention and more": (
    "torch",
    conventions_test.hf_vit_shapes(dim=64) | {"more.weight": (3, 3)},
  ),
  "heads of a convention": (
    "torch",
    conventions_test.hf_vit_shapes(dim=128, hidden=256),
  ),
  "heads that are not known": ("torch", conventions_test.hf_vit_shapes()),
}


@pytest.mark.parametrize("what", FILES)
def test_every_remedy_works(what):
  """A file is then read, or what was noted is settled."""
  framework, shapes = FILES[what]
  texts, refused = said(shapes, framework)
  assert texts
  for text in texts:
    assert "\n" not in text and "..." not in text.replace(", ...", "")
    hints = remedies(text)
    assert hints, text
    for override in hints:
      now, failed = said(shapes, framework, override)
      if refused:
        assert not failed, (override, now)
      else:
        assert not failed and text not in now, (override, now)
