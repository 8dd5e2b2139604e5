"""What a file holds that is no network: adapters, shards, quantised weights.

Such files are shown, and not encoded.

Dimensions: none; a tensor has any shape.
"""

import dataclasses
import json
import os
from collections.abc import Mapping

from sne_jax import errors
from sne_jax.checkpoints import foreign
from sne_jax.checkpoints.formats import gguf_file, shards
from sne_jax.checkpoints.limits import Budget, Limits
from sne_jax.checkpoints.tensors import Tensors
from sne_jax.networks import inference
from sne_jax.networks.inference import refusals

CONFIG = "adapter_config.json"
"""What PEFT writes beside an adapter."""

MOST_ALPHAS = 1000


@dataclasses.dataclass(frozen=True)
class Contents:
  """What a file is.

  Attributes:
    what: one line, as "it is ..." goes on.
    facts: what else the file says, by what it is called.
    remedy: what helps to read a network.
    unread: types and shapes of tensors that are listed and not read.
    final: whether it is none whatever an override says of its layers.
  """

  what: str
  facts: Mapping[str, str]
  remedy: str
  unread: Mapping[str, tuple[str, tuple[int, ...]]] = dataclasses.field(
    default_factory=dict
  )
  final: bool = True


def describe(tensors: Tensors) -> Contents | None:
  """Returns what a file is where that is no network; None where it may be."""
  quantised = json.loads(tensors.metadata.get(gguf_file.QUANTISED, "{}"))
  if quantised:
    return _of_quantised(tensors, quantised)
  shard = shards.single(tensors.source)
  if shard is not None:
    return Contents(shard[0], {}, shard[1])
  adapter = refusals.adapter({n: e.shape for n, e in tensors.entries.items()})
  if adapter is None:
    return _of_gguf(tensors) if tensors.format == "gguf" else None
  facts = {"kind": adapter.kind, "layers": str(len(adapter.ranks))}
  facts |= {"rank": adapter.rank, "target modules": ", ".join(adapter.targets)}
  facts |= {"alpha": _alphas(tensors)}
  facts |= _said(tensors)
  alpha = f", alpha {facts['alpha']}" if facts.get("alpha") else ""
  base = (
    f", base model {facts['base model']}" if facts.get("base model") else ""
  )
  return Contents(
    adapter.describe(f"{alpha}{base}"),
    {name: text for name, text in facts.items() if text},
    refusals.MERGE,
  )


def _of_quantised(tensors: Tensors, quantised: dict) -> Contents:
  kinds = sorted({kind for kind, _ in quantised.values()})
  count = len(quantised) + len(tensors.entries)
  listed = ", ".join(list(quantised)[:3])
  more = ", ..." if len(quantised) > 3 else ""
  return Contents(
    f"GGUF with {len(quantised)} of {count} tensors quantised as"
    f" {', '.join(kinds)} ({listed}{more})",
    _general(tensors),
    "write its numbers as float32: gguf.dequantize(tensor.data,"
    " tensor.tensor_type) for each tensor of gguf.GGUFReader(path), saved as"
    " safetensors",
    {name: (kind, tuple(shape)) for name, (kind, shape) in quantised.items()},
  )


def _of_gguf(tensors: Tensors) -> Contents | None:
  """Returns what GGUF of plain numbers is, or None where it is a network.

  Names of llama.cpp do not say how layers are joined.
  """
  try:
    inference.infer_file(tensors)
  except inference.AmbiguousError as error:
    facts = _general(tensors)
    kind = f" of {facts['architecture']}" if "architecture" in facts else ""
    return Contents(
      f"GGUF{kind} with {len(tensors.entries)} tensors; {error.problem}",
      facts,
      error.remedy,
      final=False,
    )
  return None


def _general(tensors: Tensors) -> dict[str, str]:
  """Returns what a GGUF file says of itself."""
  return {
    name.removeprefix("general."): text
    for name, text in tensors.metadata.items()
    if name.startswith("general.")
  }


def _alphas(tensors: Tensors) -> str:
  """Returns the alphas that are tensors, as kohya's and LyCORIS's."""
  names = [name for name in tensors.entries if name.endswith(".alpha")]
  values = {
    float(tensors.entries[name].read().reshape(-1)[0])
    for name in names[:MOST_ALPHAS]
    if tensors.entries[name].size == 1
  }
  ends = sorted({min(values), max(values)}) if values else []
  return " to ".join(f"{value:g}" for value in ends)


def _said(tensors: Tensors) -> dict[str, str]:
  """Returns what the configuration beside the file, or in it, says."""
  keys = {
    "kind": ("peft_type",),
    "rank": ("r", "ss_network_dim", "rank"),
    "alpha": ("lora_alpha", "alpha", "ss_network_alpha"),
    "target modules": ("target_modules",),
    "base model": (
      *("base_model_name_or_path", "ss_sd_model_name"),
      *("ss_base_model_version", "modelspec.architecture"),
    ),
  }
  said = {**tensors.metadata, **_config(tensors.source)}
  found = {}
  for name, wanted in keys.items():
    texts = [_text(said.get(key)) for key in wanted]
    found[name] = next(filter(None, texts), "")
  return {name: text for name, text in found.items() if text}


def _config(source: str) -> dict:
  """Returns PEFT's configuration beside a file; empty if there is none."""
  path = os.path.join(os.path.dirname(os.path.abspath(source)), CONFIG)
  if not os.path.isfile(path):
    return {}
  try:
    size = foreign.file_size(path)
    Budget(path, Limits()).check_header("a configuration", size)
    config = foreign.parse_json(foreign.read_head(path), path, "it")
  except errors.CheckpointError:
    return {}
  return config if isinstance(config, dict) else {}


def _text(value) -> str:
  """Returns a value of a configuration as a short text."""
  if isinstance(value, list):
    value = ", ".join(sorted(v for v in value if isinstance(v, str)))
  if isinstance(value, bool) or not isinstance(value, str | int | float):
    return ""
  text = str(value)[:200]
  return text if text.isprintable() and text != "None" else ""
