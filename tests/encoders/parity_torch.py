"""Reads parameters of the authors' PyTorch code of the neural functionals.

Modules here have the authors' names, so the mapping is a rule. A number in an
official name is joined to the name before it by an underscore
(`ff.0.weight_maps.1` -> `ff_0`, `weight_maps_1`), and of the last part

  weight [out, in, 1, ...]   becomes kernel [in, out]
  weight [features]          becomes scale (of a norm)
  gamma, beta                become scale, bias
  bias, latents, ...         stay
  in_embed [1, cK, 1, N], out_embed [1, cK, M, 1], out_bias_embed [1, c, M]
                             become [N or M, channels]
  *_emb.weight               becomes *_emb
  position_embeddings.weight, pe<n>.weight
                             become embedding, not transposed
  comp_token [1, 1, d]       becomes [d]

Parts named `fn`, `linear` and `net` without a number hold nothing of their own
and are left out.
"""

from collections.abc import Mapping

import numpy as np

from tests.encoders import parity

_LEFT_OUT = ("fn", "linear")
_RENAMED = {"gamma": "scale", "beta": "bias"}
_TABLES = ("position_embeddings", "pe1", "pe2", "pe3")
_EMBEDDINGS = ("in_embed", "out_embed", "out_bias_embed")


def params_from_torch(state: Mapping[str, np.ndarray]) -> dict:
  """Turns arrays by their official names into nested params of ours."""
  params: dict = {}
  for name, array in state.items():
    *path, leaf = _joined(name.split("."))
    array = np.asarray(array)
    if leaf in _EMBEDDINGS:
      array = array[0].reshape(array.shape[1], -1).T
    elif leaf == "weight" and path[-1].endswith("_emb"):
      leaf = path.pop()
    elif leaf == "weight" and path[-1] in _TABLES:
      leaf = "embedding"
    elif leaf == "comp_token":
      array = array.reshape(-1)
    elif leaf == "weight" and array.ndim > 1:
      leaf, array = "kernel", array.reshape(array.shape[:2]).T
    elif leaf == "weight":
      leaf = "scale"
    place = params
    for part in path:
      place = place.setdefault(part, {})
    place[_RENAMED.get(leaf, leaf)] = array
  return params


def _joined(parts: list[str]) -> list[str]:
  """Joins numbers to the part before them."""
  found: list[str] = []
  for part in parts:
    if part.isdigit() and found:
      found[-1] = f"{found[-1]}_{part}"
    elif part not in _LEFT_OUT:
      found.append(part)
  return found


def dws_params_from_torch(state: Mapping[str, np.ndarray]) -> dict:
  """Turns the state of the authors' DWSLayer into params of `dws.DWSLayer`.

  The block `weight_to_bias.layers.0_1` becomes `weight_to_bias_0_1`; in it the
  affine map becomes `linear`, `Gamma.0`, `Lambda.0` and `lin_*.0` lose the
  number, and an attention block `mab` is read by `parity`.
  """
  params: dict = {}
  attention: dict[str, dict[str, np.ndarray]] = {}
  for name, array in state.items():
    block, _, rest = name.partition(".layers.")
    pair, *path = rest.split(".")
    block = f"{block}_{pair}"
    array = np.asarray(array)
    if "mab" in path:
      inner = ".".join(path[path.index("mab") :])
      attention.setdefault(block, {})[inner] = array
      continue
    *path, leaf = (p for p in path if p != "set_layer" and not p.isdigit())
    part = "linear" if path[-1] == "layer" else path[-1]
    if leaf == "weight":
      leaf, array = "kernel", array.T
    params.setdefault(block, {}).setdefault(part, {})[leaf] = array
  for block, found in attention.items():
    params[block] = parity.params_from_torch(found)
  return params
